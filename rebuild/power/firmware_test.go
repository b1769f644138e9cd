package power

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"mayfly/inventory"
)

// efiApplication is a PE32+ image for UEFI that says "mayfly up" on the firmware's console and then goes round and round, so that the
// driver can be tested without a unified kernel image.
func efiApplication() []byte {
	const (
		pe, optional, header, section = 0x40, 0xf0, 0x200, 0x1000
	)
	image := make([]byte, header+0x200)
	le := binary.LittleEndian
	copy(image, "MZ")
	le.PutUint32(image[0x3c:], pe)
	copy(image[pe:], "PE\x00\x00")
	le.PutUint16(image[pe+4:], 0x8664) // x86-64
	le.PutUint16(image[pe+6:], 1)      // sections
	le.PutUint16(image[pe+20:], optional)
	le.PutUint16(image[pe+22:], 0x22) // executable, large addresses
	o := image[pe+24:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[4:], 0x200)    // size of code
	le.PutUint32(o[16:], section) // entry
	le.PutUint32(o[20:], section) // base of code
	le.PutUint32(o[32:], section) // alignment in memory
	le.PutUint32(o[36:], 0x200)   // and in the file
	le.PutUint32(o[56:], 2*section)
	le.PutUint32(o[60:], header)
	le.PutUint16(o[68:], 10) // an EFI application
	le.PutUint32(o[108:], 16)
	s := o[optional:]
	copy(s, ".text")
	le.PutUint32(s[8:], 0x200)
	le.PutUint32(s[12:], section)
	le.PutUint32(s[16:], 0x200)
	le.PutUint32(s[20:], header)
	le.PutUint32(s[36:], 0x60000020) // code, to be read and run
	code := []byte{
		0x48, 0x83, 0xec, 0x28, // sub rsp, 0x28
		0x48, 0x8b, 0x4a, 0x40, // mov rcx, [rdx+0x40]: ConOut
		0x48, 0x8d, 0x15, 5, 0, 0, 0, // lea rdx, [rip+5]: the text
		0xff, 0x51, 0x08, // call [rcx+8]: OutputString
		0xeb, 0xfe, // jmp to itself
	}
	for _, c := range utf16.Encode([]rune("mayfly up\r\n\x00")) {
		code = append(code, byte(c), byte(c>>8))
	}
	copy(image[header:], code)
	return image
}

func newUEFI(t *testing.T, change func(*inventory.Power)) (*QEMU, Boot) {
	t.Helper()
	for _, program := range []string{swtpmProgram, qemuProgram} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not installed", program)
		}
	}
	if _, err := os.Stat(ovmfCode); err != nil {
		t.Skip("SKIPPED: ovmf is not installed")
	}
	q, boot := newMachine(t, t.TempDir())
	q.server.Power.Firmware = inventory.FirmwareUEFI
	q.server.Power.MemoryMiB = 256
	if change != nil {
		change(&q.server.Power)
	}
	image := filepath.Join(t.TempDir(), "mayfly.efi")
	if err := os.WriteFile(image, efiApplication(), 0o600); err != nil {
		t.Fatal(err)
	}
	boot.UKI = signed(t, image)
	return q, boot
}

// TestUEFI: OVMF starts what is on the medium, with a TPM that keeps its identity over lives; nothing of a life but that is left.
func TestUEFI(t *testing.T) {
	q, boot := newUEFI(t, nil)
	ctx := t.Context()
	var identity []byte
	for epoch := uint64(1); epoch <= 2; epoch++ {
		boot.Epoch = epoch
		if err := q.SetBoot(ctx, boot); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(q.dir, mediumFile)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the medium: %v, %v", info, err)
		}
		if err := q.On(ctx, boot); err != nil {
			t.Fatal(err)
		}
		want(t, q, true, epoch)
		if _, err := os.Stat(filepath.Join(q.dir, mediumFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the ticket lies around: %v", err)
		}
		if pids, err := q.findTPM(); err != nil || len(pids) != 1 {
			t.Errorf("%d TPMs run (%v), want 1", len(pids), err)
		}
		waitFor(t, "the firmware to start what is on the medium", func() bool {
			said, err := q.Console(ctx)
			return err == nil && bytes.Contains(said, []byte("mayfly up"))
		})
		if err := q.Off(ctx); err != nil {
			t.Fatal(err)
		}
		want(t, q, false, 0)
		if pids, err := q.findTPM(); err != nil || len(pids) != 0 {
			t.Errorf("off, and %d TPMs run (%v)", len(pids), err)
		}
		state, err := os.ReadFile(filepath.Join(q.dir, tpmDir, "tpm2-00.permall"))
		if err != nil {
			t.Fatal(err)
		}
		if epoch == 2 && len(state) != len(identity) {
			t.Errorf("the TPM's memory had %d bytes, and has %d", len(identity), len(state))
		}
		identity = state
		left, err := os.ReadDir(q.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range left {
			switch f.Name() {
			case tpmDir, tpmLog, consoleFile, qemuLog, bootFile, lockName:
			default:
				t.Errorf("%s is left", f.Name())
			}
		}
	}
}

// TestUEFILeft: a driver that died left a TPM and no machine, or a machine whose TPM's files are gone.
func TestUEFILeft(t *testing.T) {
	q, boot := newUEFI(t, nil)
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := q.startTPM(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.On(t.Context(), boot); err != nil {
		t.Fatal(err)
	}
	if pids, err := q.findTPM(); err != nil || len(pids) != 1 {
		t.Errorf("%d TPMs run (%v), want 1", len(pids), err)
	}
	running, err := q.find()
	if err != nil || len(running) != 1 {
		t.Fatalf("%d machines run (%v)", len(running), err)
	}
	if err := q.kill(t.Context(), running[0]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the TPM to end with its machine", func() bool {
		pids, err := q.findTPM()
		return err == nil && len(pids) == 0
	})
}

func TestUEFIRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*inventory.Power)
		spoil  func(*Boot)
		want   string
	}{
		"no unified kernel image": {nil, func(b *Boot) { b.UKI = File{} }, MediumMissing},
		"no variables":            {func(p *inventory.Power) { p.SecureBootVars = "/nonexistent/vars.fd" }, nil, FirmwareMissing},
		"another image":           {nil, func(b *Boot) { b.UKI.Signed.SHA256 = strings.Repeat("0", 64) }, ""},
	} {
		q, boot := newUEFI(t, tt.change)
		if tt.spoil != nil {
			tt.spoil(&boot)
		}
		err := q.On(t.Context(), boot)
		if err == nil || Reason(err) != tt.want || tt.want == "" && !strings.Contains(err.Error(), "part_altered") {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		want(t, q, false, 0)
	}
}
