package medium

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/rebuild/uki"
)

var credentials = []uki.Credential{
	{Name: "ticket.json", Data: bytes.Repeat([]byte("ticket"), 2000)},
	{Name: "ticket.json.sig", Data: []byte("signature")},
	{Name: "empty"},
}

// content is of no pattern, so that pieces that change places are seen.
func content(size int) []byte {
	p := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

func made(t testing.TB, write func(io.Writer, []byte, []uki.Credential) error, image []byte, files []uki.Credential) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out, image, files); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var kinds = map[string]func(io.Writer, []byte, []uki.Credential) error{"usb": USB, "iso": ISO}

func TestSame(t *testing.T) {
	for name, write := range kinds {
		image := content(1 << 20)
		a, b := made(t, write, image, credentials), made(t, write, image, credentials)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the same content gave other bytes", name)
		}
		image[0] ^= 1
		if c := made(t, write, image, credentials); len(c) != len(a) || bytes.Equal(a, c) {
			t.Errorf("%s: other content gave the same bytes or another size", name)
		}
	}
}

// The partition is where the table says, and both tables are whole.
func TestGPT(t *testing.T) {
	disk := made(t, USB, content(5<<20), credentials)
	get := binary.LittleEndian
	if len(disk)%sector != 0 {
		t.Fatalf("%d bytes", len(disk))
	}
	last := uint64(len(disk)/sector - 1)
	for _, at := range []uint64{1, last} {
		h := bytes.Clone(disk[at*sector : (at+1)*sector])
		sum := get.Uint32(h[16:])
		get.PutUint32(h[16:], 0)
		if string(h[:8]) != "EFI PART" || crc32.ChecksumIEEE(h[:gptHeader]) != sum || get.Uint64(h[24:]) != at || get.Uint64(h[32:]) != last+1-at {
			t.Errorf("the header at %d is not whole", at)
		}
		table := get.Uint64(h[72:]) * sector
		entries := disk[table : table+gptEntries*gptEntry]
		if crc32.ChecksumIEEE(entries) != get.Uint32(h[88:]) {
			t.Errorf("the table of the header at %d is not whole", at)
		}
		first, end := get.Uint64(entries[32:]), get.Uint64(entries[40:])
		if first != partitionAt || end != get.Uint64(h[48:]) || !bytes.Equal(entries[:16], guidESP) {
			t.Errorf("the partition is at %d to %d", first, end)
		}
		if fat := disk[first*sector:]; string(fat[54:59]) != "FAT16" || int64(get.Uint32(fat[28:])) != int64(first) {
			t.Error("where the partition is, is none")
		}
	}
}

// Tools of others find on it what was put there, whatever size it is of: the sizes are of few and of many clusters.
func TestPeers(t *testing.T) {
	for _, program := range []string{"mcopy", "mdir", "fsck.vfat", "xorriso"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not installed (Debian: mtools, dosfstools, xorriso)", program)
		}
	}
	for _, size := range []int{1, 4096, 20 << 20, 260 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			if size > 100<<20 && testing.Short() {
				t.Skip("a large image; left out with -short")
			}
			dir := t.TempDir()
			image := content(size)
			disk, iso := filepath.Join(dir, "disk.img"), filepath.Join(dir, "cd.iso")
			for path, write := range map[string]func(io.Writer, []byte, []uki.Credential) error{disk: USB, iso: ISO} {
				f, err := os.Create(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(write(f, image, credentials), f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			out := run(t, "xorriso", "-indev", iso, "-report_el_torito", "plain", "-osirrox", "on", "-extract", "/EFI.IMG", filepath.Join(dir, "fat.img"))
			if !strings.Contains(out, "UEFI  y   none") || !strings.Contains(out, "/EFI.IMG") {
				t.Errorf("xorriso says %s", out)
			}
			data, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			part := filepath.Join(dir, "part.img")
			if err := os.WriteFile(part, data[partitionAt*sector:len(data)-(1+gptSectors)*sector], 0o600); err != nil {
				t.Fatal(err)
			}
			for _, fat := range []string{filepath.Join(dir, "fat.img"), part} {
				run(t, "fsck.vfat", "-n", fat)
				expect(t, fat, Loader, image)
				for _, c := range credentials {
					expect(t, fat, beside+c.Name+uki.CredentialSuffix, c.Data)
				}
			}
		})
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

func expect(t *testing.T, fat, path string, want []byte) {
	t.Helper()
	got, err := exec.Command("mcopy", "-n", "-i", fat, "::/"+path, "-").Output()
	if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%s: mcopy reads %d bytes (%v), want %d of %.20q", path, len(got), err, len(want), want)
	}
}

func TestRefuses(t *testing.T) {
	one := content(10)
	many := make([]uki.Credential, maxCredentials+1)
	tests := []struct {
		name  string
		image []byte
		files []uki.Credential
		want  string
	}{
		{"no image", nil, nil, "an image of 0 bytes"},
		{"many credentials", one, many, "17 credentials"},
		{"no name", one, []uki.Credential{{}}, "is no name"},
		{"a path", one, []uki.Credential{{Name: "../x"}}, "is no name"},
		{"a hidden one", one, []uki.Credential{{Name: ".x"}}, "is no name"},
		{"not ASCII", one, []uki.Credential{{Name: "é"}}, "is no name"},
		{"long name", one, []uki.Credential{{Name: strings.Repeat("a", maxName+1)}}, "is no name"},
		{"twice for FAT", one, []uki.Credential{{Name: "a"}, {Name: "A"}}, "comes twice"},
		{"large", one, []uki.Credential{{Name: "a", Data: make([]byte, maxCredential+1)}}, "more than"},
	}
	for _, tt := range tests {
		for kind, write := range kinds {
			if err := write(io.Discard, tt.image, tt.files); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s, %s: got %v, want %q", kind, tt.name, err, tt.want)
			}
		}
	}
}

// full takes so many bytes.
type full struct{ room int }

var errFull = errors.New("no space")

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return 0, errFull
	}
	f.room -= len(p)
	return len(p), nil
}

func TestFull(t *testing.T) {
	for kind, write := range kinds {
		for _, room := range []int{0, 1000, 40 << 10, 3 << 20} {
			if err := write(&full{room: room}, content(4<<20), nil); !errors.Is(err, errFull) {
				t.Errorf("%s with room for %d: got %v", kind, room, err)
			}
		}
	}
}

// Every name that is allowed has a short form of its own, and comes back from its long form.
func TestNames(t *testing.T) {
	seen := map[string]string{}
	for i, name := range []string{"EFI", "BOOTX64.EFI", "a", "ticket.json.cred", "ticket.json.sig.cred", "x.y.z", strings.Repeat("long", 16) + ".cred", "exactly13char", "EFI2"} {
		short, long := names(name, i+1)
		if len(short) != shortName+shortSuffix || seen[short] != "" {
			t.Errorf("%q: short form %q, of %q as well", name, short, seen[short])
		}
		seen[short] = name
		if len(long) != longEntries(name)*dirEntry {
			t.Errorf("%q: %d bytes, want %d entries", name, len(long), longEntries(name))
		}
		var back []byte
		for at := len(long) - dirEntry; at >= 0; at -= dirEntry {
			for j := range unitsPerEntry {
				if unit := binary.LittleEndian.Uint16(long[at+unitAt(j):]); unit != 0 && unit != 0xffff {
					back = append(back, byte(unit))
				}
			}
		}
		if long != nil && string(back) != name {
			t.Errorf("%q comes back as %q", name, back)
		}
	}
}
