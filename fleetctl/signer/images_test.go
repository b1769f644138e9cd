package signer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/release"
	"mayfly/testenv/swtpm"
)

// TestImageAltered: registers are computed from the image that people signed, or not at all.
func TestImageAltered(t *testing.T) {
	a := newAttested(t)
	path := filepath.Join(a.dir, "public", "releases", "7", release.UKIFile)
	evil := bytes.Replace(testImage, testParts.Initrd, bytes.ToUpper(testParts.Initrd), 1)
	if bytes.Equal(evil, testImage) {
		t.Fatal("nothing changed")
	}
	for _, tt := range []struct {
		name, want string
		image      []byte
	}{
		{"altered", release.PartAltered, evil},
		{"good", "", testImage},
		{"good, and kept", "", evil},
	} {
		if err := os.WriteFile(path, tt.image, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := a.whole(t, firmwareOf(testUKI, testKernel)); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestImageRefuses: another initramfs for the kernel, and EFI drivers, are found out by what the signer computes and the inventory says.
func TestImageRefuses(t *testing.T) {
	a := newAttested(t)
	good := firmwareOf(testUKI, testKernel)
	evil := append(append([]swtpm.Event{}, good[:len(good)-1]...), swtpm.Told(9, 6, "evil initramfs"))
	driver := swtpm.Hashed(2, swtpm.Driver, [32]byte{7}, "option ROM")
	loaded := append(append([]swtpm.Event{}, good...), driver)
	if err := a.whole(t, evil); reason(err) != attest.Image {
		t.Errorf("got %v", err)
	}
	if err := a.whole(t, loaded); reason(err) != attest.Driver {
		t.Errorf("got %v", err)
	}
}
