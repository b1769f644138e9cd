package uki

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
)

// Specification constants: what systemd-stub does with the files beside an image (systemd-stub(7)).
const (
	// CredentialSuffix ends the names of the files that it takes, in the directory named like the image with ".extra.d".
	CredentialSuffix = ".cred"
	// CredentialDir is where the initramfs finds them, as CredentialDir + Name + CredentialSuffix.
	CredentialDir = "/.extra/credentials/"

	credentialRoot = ".extra"
	credentialHome = ".extra/credentials"
)

// Credential is a file beside an image. Nothing signs it: who uses it verifies it. systemd-stub measures all of them into PCR 12.
type Credential struct {
	Name string // without its suffix
	Data []byte
}

// Measured is the one digest (SHA-256) that systemd-stub 252 extends PCR 12 with for these credentials: of the archive that it
// makes of them. There is none for no credentials.
func Measured(files []Credential) [sha256.Size]byte {
	return sha256.Sum256(credentialArchive(files))
}

// credentialArchive is that archive. It is of the same kind as what package cpio writes and not the same bytes: the trailer's
// length is in capitals, and nothing pads it to a block.
func credentialArchive(files []Credential) []byte {
	const dir, regular = 0o040000, 0o100000
	var out []byte
	inode := 0
	add := func(path string, mode uint32, data []byte) {
		inode++
		out = fmt.Appendf(out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path)+1, 0, path)
		out = append(padTo(out, initrdAlign), data...)
		out = padTo(out, initrdAlign)
	}
	add(credentialRoot, dir|0o555, nil)
	add(credentialHome, dir|0o500, nil)
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b Credential) int { return cmp.Compare(a.Name+CredentialSuffix, b.Name+CredentialSuffix) }) {
		add(credentialHome+"/"+f.Name+CredentialSuffix, regular|0o400, f.Data)
	}
	out = fmt.Appendf(out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s%08x%s\x00", 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, "0000000B", 0, "TRAILER!!!")
	return padTo(out, initrdAlign)
}

func padTo(p []byte, size int) []byte {
	return append(p, make([]byte, (size-len(p)%size)%size)...)
}
