// Package medium writes what a BMC's virtual drive, a USB stick or a virtual machine boots by UEFI: a unified kernel image and beside it
// the files that systemd-stub hands over to the initramfs as /.extra/credentials. USB is a disk with a GPT and one EFI system partition,
// ISO is an El Torito CD. Both are written in one pass and are the same bytes for the same input: no time, no serial number, no
// free-space garbage in them but what is made from the content.
//
// # Booting it in QEMU
//
// Servers refuse block devices that their kernel has a driver loaded for; a medium has to be one that only the firmware sees. See
// [DeviceArguments] for the options that do this, and docs/formats/medium.md for what was measured.
//
// Files: medium.go (what is on it), fat.go (the FAT16 file system), names.go (its short and long names), gpt.go (USB), iso.go (ISO), qemu.go.
//
// References: Microsoft's "FAT: General Overview of On-Disk Format" 1.03; UEFI specification 2.10, parts 5 and 13.3; ECMA-119; El Torito 1.0.
package medium
