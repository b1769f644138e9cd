package medium

import "fmt"

// DeviceArguments are QEMU's options for a medium in a file, which firmware tries as number boot (from 0): form is "usb" or "iso".
// Only one machine's firmware reads it, and it is attached read-only.
//
// A USB stick hangs on a controller of its own (qemu-xhci), and the kernels of the image load neither xhci nor usb-storage; a CD hangs on
// q35's AHCI, which needs a machine without sata=off. Neither is a block device to the server then. virtio-blk and virtio-scsi are as
// fast and stay unseen as long as their drivers are not loaded. The driver of nvme is built into Debian's cloud kernel.
func DeviceArguments(form, path string, boot int) []string {
	id := fmt.Sprintf("medium%d", boot)
	source := "if=none,format=raw,readonly=on,id=" + id + ",file=" + path
	if form == "iso" {
		return []string{"-drive", source + ",media=cdrom", "-device", fmt.Sprintf("ide-cd,drive=%s,bootindex=%d", id, boot)}
	}
	bus := "xhci" + id
	return []string{"-device", "qemu-xhci,id=" + bus, "-drive", source, "-device", fmt.Sprintf("usb-storage,bus=%s.0,drive=%s,removable=on,bootindex=%d", bus, id, boot)}
}
