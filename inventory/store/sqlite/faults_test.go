package sqlite

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/durable"
	"mayfly/inventory"
)

// faultDir names the directory that TestFaultChild works in. Without it that test is no child.
const faultDir = "MAYFLY_FAULT_DIR"

// TestFaultChild is the process whose system calls fail: it changes the store and writes a file as backup and restore do.
func TestFaultChild(t *testing.T) {
	dir := os.Getenv(faultDir)
	if dir == "" {
		return // TestFaults starts it
	}
	ctx := t.Context()
	err := durable.WriteFile(filepath.Join(dir, "file"), []byte("new"), 0o600)
	s, oerr := Open(ctx, filepath.Join(dir, "store.db"))
	if oerr == nil {
		_, berr := s.BeginLife(ctx, "a", 0, inventory.New, "", now, nil)
		if berr == nil {
			_ = os.WriteFile(filepath.Join(dir, "said"), nil, 0o600) // the change was said to be made
		}
		oerr = errors.Join(berr, s.Close())
	}
	if err := errors.Join(err, oerr); err != nil {
		t.Log(err)
	}
}

// TestFaults has each system call that writes fail with EIO, one at a time: afterwards there is the old state or the new one, and what was
// said to be made is there.
func TestFaults(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const most = 4 // of each
	var matrix []string
	for _, call := range []string{"pwrite64", "write", "fsync", "fdatasync", "rename,renameat,renameat2", "ftruncate"} {
		line := []string{call + ":"}
		for n := 1; n <= most; n++ {
			dir := t.TempDir()
			file, path := filepath.Join(dir, "file"), filepath.Join(dir, "store.db")
			s, err := Open(t.Context(), path)
			if err == nil {
				err = errors.Join(s.Sync(t.Context(), inventory.Fleet{Servers: []inventory.Server{{Name: "a"}}}, now), s.Close(), os.WriteFile(file, []byte("old"), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			trace := filepath.Join(dir, "trace")
			args := []string{"-f", "-qq", "-o", trace, "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", call, n)}
			if call == "pwrite64" || call == "ftruncate" { // the others are of files with names that are made up as well
				args = append(args, "-P", path, "-P", path+"-wal", "-P", path+"-shm")
			}
			cmd := exec.CommandContext(t.Context(), "strace", append(args, exe, "-test.run=^TestFaultChild$")...)
			cmd.Env = append(os.Environ(), faultDir+"="+dir)
			if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState == nil {
				t.Fatalf("strace: %v: %s", err, out)
			}
			said := false
			if _, err := os.Stat(filepath.Join(dir, "said")); err == nil {
				said = true
			}
			log, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			hit := strings.Contains(string(log), "INJECTED")
			if s, err = Open(t.Context(), path); err != nil {
				t.Errorf("%s %d: %v", call, n, err)
				continue
			}
			v, err := s.Server(t.Context(), "a")
			if cerr := s.Close(); err != nil || cerr != nil {
				t.Errorf("%s %d: %v, %v", call, n, err, cerr)
			}
			old, made := v.Epoch == 0 && v.State == inventory.New, v.Epoch == 1 && v.State == inventory.Wiping
			if !old && !made || said && !made {
				t.Errorf("%s %d: said %v, and it is %+v", call, n, said, v)
			}
			if data, err := os.ReadFile(file); err != nil || string(data) != "old" && string(data) != "new" {
				t.Errorf("%s %d: the file holds %q, %v", call, n, data, err)
			}
			line = append(line, fmt.Sprintf("%d hit=%v new=%v", n, hit, made))
		}
		matrix = append(matrix, strings.Join(line, " | "))
	}
	t.Log("\n" + strings.Join(matrix, "\n"))
	if !strings.Contains(strings.Join(matrix, ""), "hit=true") {
		t.Error("no fault was injected")
	}
}
