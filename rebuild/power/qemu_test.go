package power

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/inventory"
	"mayfly/rebuild/release"
)

// bootable makes a multiboot kernel that says "up" on the serial port and then halts for ever, so that the driver can be tested
// without Debian's.
func bootable(t *testing.T, dir string) (kernel string) {
	t.Helper()
	const magic, loadAddresses, base, headerSize = 0x1badb002, 0x00010000, 0x100000, 32
	var image []byte
	for _, w := range []uint32{magic, loadAddresses, ^uint32(magic+loadAddresses) + 1, base, base, 0, 0, base + headerSize} {
		image = append(image, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	for _, c := range []byte("up\n") {
		image = append(image, 0xb0, c, 0x66, 0xba, 0xf8, 0x03, 0xee) // mov al, c; mov dx, 0x3f8; out dx, al
	}
	image = append(image, 0xf4, 0xeb, 0xfd) // hlt; jmp back to it
	kernel = filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, append(image, make([]byte, 4096)...), 0o600); err != nil {
		t.Fatal(err)
	}
	return kernel
}

// signed is a file as if people had signed what it holds now.
func signed(t *testing.T, path string) File {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return File{Path: path, Signed: release.Part{Size: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data))}}
}

func newMachine(t *testing.T, dir string) (*QEMU, Boot) {
	t.Helper()
	if _, err := exec.LookPath(qemuProgram); err != nil {
		t.Skip("SKIPPED: qemu-system-x86_64 is not installed")
	}
	server := inventory.Server{Name: "se-1", Power: inventory.Power{Driver: inventory.DriverQEMU, MAC: "52:54:00:00:00:01", MemoryMiB: 64}}
	q, err := OpenQEMU(server, dir, Options{Netdev: "user"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	kernel := bootable(t, files)
	stub := filepath.Join(files, "stub")
	if err := os.WriteFile(stub, []byte("stub"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Off(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return q, Boot{Epoch: 1, Kernel: signed(t, kernel), Stub: signed(t, stub), Trust: []byte("trust"), Ticket: []byte("secret ticket"), TicketSig: []byte("sig")}
}

func want(t *testing.T, q *QEMU, on bool, epoch uint64) {
	t.Helper()
	st, err := q.Status(t.Context())
	if err != nil || st.On != on || st.Epoch != epoch {
		t.Fatalf("Status: %+v, %v; want on %v, epoch %d", st, err, on, epoch)
	}
}

func TestOnOff(t *testing.T) {
	// A directory whose path is longer than a socket's may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	q, boot := newMachine(t, dir)
	want(t, q, false, 0)
	if err := q.Off(t.Context()); err != nil {
		t.Fatalf("Off of a machine that is off: %v", err)
	}
	if err := q.On(t.Context(), boot); err != nil {
		t.Fatal(err)
	}
	want(t, q, true, 1)
	first, err := q.find()
	if err != nil {
		t.Fatal(err)
	}
	if err := q.On(t.Context(), boot); err != nil {
		t.Fatalf("On with the same epoch: %v", err)
	}
	again, err := q.find()
	if err != nil || len(again) != 1 || again[0] != first[0] {
		t.Errorf("On with the same epoch started another: %v, was %v (%v)", again, first, err)
	}
	second := boot
	second.Epoch = 2
	if err := q.On(t.Context(), second); err == nil {
		t.Error("On with another epoch went on while the machine runs")
	}
	if sid, err := unix.Getsid(first[0].pid); err != nil || sid != first[0].pid {
		t.Errorf("the machine's session is %d (%v), want its own", sid, err)
	}
	if _, err := os.Stat(filepath.Join(q.dir, initrdFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the ticket lies around: %v", err)
	}
	args, err := arguments(first[0].pid)
	if err != nil || strings.Contains(strings.Join(args, " "), "secret") {
		t.Errorf("the command line %q (%v) holds the ticket", args, err)
	}
	waitFor(t, "the machine to say it is up", func() bool {
		data, err := os.ReadFile(q.ConsoleFile())
		return err == nil && bytes.Contains(data, []byte("up\n"))
	})
	core := filepath.Join(t.TempDir(), "core")
	if err := q.DumpMemory(t.Context(), core); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(core); err != nil || info.Size() < 64<<20 {
		t.Errorf("the dump is %v (%v), want at least the machine's memory", info, err)
	}
	if err := q.OffThrough(t.Context(), 0); Reason(err) != NewerLife {
		t.Errorf("a life before the one that runs: got %v, want %s", err, NewerLife)
	}
	want(t, q, true, 1)
	if err := q.OffThrough(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	want(t, q, false, 0)
	if err := q.On(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	want(t, q, true, 2)
}

// A driver may die between any two of its steps; the next one goes on. Each case is what a dead driver left.
func TestRestart(t *testing.T) {
	leftovers := map[string]func(t *testing.T, q *QEMU, boot Boot){
		"initrd written": func(t *testing.T, q *QEMU, boot Boot) {
			if err := writeInitrd(filepath.Join(q.dir, initrdFile), boot); err != nil {
				t.Fatal(err)
			}
		},
		"half an initrd, old pid file and socket": func(t *testing.T, q *QEMU, _ Boot) {
			for _, name := range []string{initrdFile, pidFile, qmpSocket} {
				if err := os.WriteFile(filepath.Join(q.dir, name), []byte("1"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"qemu just started": func(t *testing.T, q *QEMU, boot Boot) {
			if err := q.start(t.Context(), boot); err != nil {
				t.Fatal(err)
			}
		},
		"running, pid file lost": func(t *testing.T, q *QEMU, boot Boot) {
			if err := q.On(t.Context(), boot); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(q.dir, pidFile)); err != nil {
				t.Fatal(err)
			}
		},
		"killed from outside": func(t *testing.T, q *QEMU, boot Boot) {
			if err := q.On(t.Context(), boot); err != nil {
				t.Fatal(err)
			}
			running, err := q.find()
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(running[0].pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the machine to be gone", func() bool {
				left, err := q.find()
				return err == nil && len(left) == 0
			})
		},
	}
	for name, leave := range leftovers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q, boot := newMachine(t, dir)
			if err := os.MkdirAll(q.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			leave(t, q, boot)
			next, err := OpenQEMU(q.server, dir, q.options, q.log)
			if err != nil {
				t.Fatal(err)
			}
			if err := next.On(t.Context(), boot); err != nil {
				t.Fatal(err)
			}
			want(t, next, true, 1)
			if running, err := next.find(); err != nil || len(running) != 1 {
				t.Errorf("%d machines run, want 1 (%v)", len(running), err)
			}
			if err := next.Off(t.Context()); err != nil {
				t.Fatal(err)
			}
			want(t, next, false, 0)
		})
	}
}

func TestOnFails(t *testing.T) {
	q, boot := newMachine(t, t.TempDir())
	bad := boot
	bad.Kernel = signed(t, filepath.Join(filepath.Dir(boot.Kernel.Path), "stub"))
	if err := q.On(t.Context(), bad); err == nil || !strings.Contains(err.Error(), kernelFile) {
		t.Errorf("On with a kernel that is none: %v, want what qemu says", err)
	}
	want(t, q, false, 0)
	bad = boot
	bad.Epoch = 0
	if err := q.On(t.Context(), bad); err == nil {
		t.Error("On without an epoch went on")
	}
}

func TestOpenRefuses(t *testing.T) {
	good := inventory.Server{Name: "se-1", Power: inventory.Power{Driver: inventory.DriverQEMU, Tap: "tap0", MAC: "52:54:00:00:00:01"}}
	if _, err := Open(good, Place{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("a good server: %v", err)
	}
	tests := map[string]func(*inventory.Server){
		"driver":     func(s *inventory.Server) { s.Power.Driver = "virsh" },
		"no name":    func(s *inventory.Server) { s.Name = "" },
		"name":       func(s *inventory.Server) { s.Name = "../x" },
		"no tap":     func(s *inventory.Server) { s.Power.Tap = "" },
		"tap option": func(s *inventory.Server) { s.Power.Tap = "a,script=x" },
		"mac option": func(s *inventory.Server) { s.Power.MAC = "52:54:00:00:00:01,x=y" },
		"memory":     func(s *inventory.Server) { s.Power.MemoryMiB = -1 },
	}
	for name, f := range tests {
		s := good
		f(&s)
		if _, err := Open(s, Place{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestInitrd(t *testing.T) {
	dir := t.TempDir()
	stub := filepath.Join(dir, "stub")
	if err := os.WriteFile(stub, []byte("stub!"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, initrdFile)
	if err := writeInitrd(file, Boot{Stub: signed(t, stub), Trust: []byte("t"), Ticket: []byte("secret"), TicketSig: []byte("s")}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("initrd has mode %v (%v), want 0600", info.Mode(), err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(data, []byte("stub!\x00\x00\x00070701")) {
		t.Errorf("the second archive does not follow aligned: %q", data[:20])
	}
	if !bytes.Contains(data, fmt.Appendf(nil, "%08x", 0o100600)) {
		t.Error("the ticket is not 0600 in the archive")
	}
}

// Whoever can write where releases lie may change a file after `fleetctl rotate` has checked it and before the machine boots: the
// machine boots what was signed or not at all.
func TestAlteredAfterCheck(t *testing.T) {
	alter := func(f func(path string) error) func(*testing.T, *File) {
		return func(t *testing.T, file *File) {
			if err := f(file.Path); err != nil {
				t.Fatal(err)
			}
		}
	}
	pipe := func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }
	for name, tt := range map[string]struct {
		change func(*testing.T, *File)
		want   string
	}{
		"other bytes":    {alter(func(path string) error { return os.WriteFile(path, []byte("evil!"), 0o600) }), release.PartAltered},
		"cut":            {alter(func(path string) error { return os.Truncate(path, 4) }), release.PartTruncated},
		"longer":         {alter(func(path string) error { return os.Truncate(path, 6) }), release.PartOversize},
		"a pipe":         {alter(pipe), "not a regular file"},
		"gone":           {alter(os.Remove), "no such file"},
		"nothing signed": {func(_ *testing.T, f *File) { f.Signed = release.Part{} }, release.PartAltered},
	} {
		for _, which := range []string{"stub", "kernel"} {
			dir := t.TempDir()
			path := filepath.Join(dir, which)
			if err := os.WriteFile(path, []byte("good!"), 0o600); err != nil {
				t.Fatal(err)
			}
			file := signed(t, path)
			tt.change(t, &file)
			write, boot := writeInitrd, Boot{Stub: file}
			if which == "kernel" {
				write, boot = writeKernel, Boot{Kernel: file}
			}
			if err := write(filepath.Join(dir, "out"), boot); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s, %s: got %v, want %q", which, name, err, tt.want)
			}
		}
	}
}

func TestAlteredDoesNotBoot(t *testing.T) {
	for name, file := range map[string]func(Boot) File{
		"kernel": func(b Boot) File { return b.Kernel },
		"stub":   func(b Boot) File { return b.Stub },
	} {
		q, boot := newMachine(t, t.TempDir())
		data, err := os.ReadFile(file(boot).Path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		if err := os.WriteFile(file(boot).Path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := q.On(t.Context(), boot); err == nil || !strings.Contains(err.Error(), release.PartAltered) {
			t.Errorf("altered %s: got %v, want %q", name, err, release.PartAltered)
		}
		want(t, q, false, 0)
	}
}

// waitFor polls a state that has no event to wait for.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(pollInterval)
	}
}
