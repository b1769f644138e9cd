// Package uki makes what UEFI firmware boots: a unified kernel image, which is systemd's EFI stub with the kernel, the initramfs and
// the command line added as sections, so that one signature and one measurement cover all of them. It hashes PE files as firmware does
// (Authenticode), signs and verifies them for Secure Boot, and writes the key lists that firmware enrols. Everything is a function of
// its arguments: the same input gives the same bytes, signatures included, since RSA signatures of this form hold nothing random.
//
// Files: pe.go (a strict reader of PE files), build.go (sections added), authenticode.go (the hash), pkcs7.go (signed data), sign.go and
// verify.go (Secure Boot), key.go (keys and certificates), enrol.go (signature lists for PK, KEK and db),
// varstore.go (a virtual machine's file of variables), credential.go (the files beside an image), contents.go (what is in one).
//
// References: Microsoft's "PE Format" and "Windows Authenticode Portable Executable Signature Format"; UEFI specification 2.10, parts 8.2
// and 32; systemd-stub(7); RFC 2315.
package uki
