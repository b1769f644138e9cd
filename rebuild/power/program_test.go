package power

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
)

var pdu struct {
	once sync.Once
	data []byte
	err  error
}

// pduProgram builds the example once.
func pduProgram(t *testing.T) []byte {
	t.Helper()
	pdu.once.Do(func() {
		dir, err := os.MkdirTemp("", "mayfly-pdu-")
		if err != nil {
			pdu.err = err
			return
		}
		defer os.RemoveAll(dir)
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "pdu"), "./testdata/pdu")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			pdu.err = fmt.Errorf("%w: %s", err, out)
			return
		}
		pdu.data, pdu.err = os.ReadFile(filepath.Join(dir, "pdu"))
	})
	if pdu.err != nil {
		t.Fatal(pdu.err)
	}
	return pdu.data
}

// siteUser is who a site's program runs as in tests: root never runs one as itself.
func siteUser() string {
	if os.Geteuid() == 0 {
		return "nobody"
	}
	return ""
}

// newProgram lays the example into a place and opens a driver over it.
func newProgram(t *testing.T, driver, fault string, change func(*inventory.Power, string)) (r *remote, outlet string) {
	t.Helper()
	p, _ := testPlace(t)
	open := t.TempDir()
	if err := errors.Join(os.Chmod(open, 0o777), os.Chmod(filepath.Dir(open), 0o755)); err != nil { // for the user that it runs as
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.Plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.Secrets.Seal("pdu", []byte("horse-7")); err != nil {
		t.Fatal(err)
	}
	data := pduProgram(t)
	file := filepath.Join(p.Plugins, "pdu")
	if err := os.WriteFile(file, data, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	outlet = filepath.Join(open, "outlet")
	s := inventory.Server{Name: "se-1", Address: netip.MustParsePrefix("192.0.2.11/24"), Power: inventory.Power{Driver: driver, Program: file,
		SHA256: hex.EncodeToString(sum[:]), RunAs: siteUser(), Settings: strings.TrimSpace(outlet + " " + fault), Password: "sealed:pdu"}}
	if driver == inventory.DriverPlugin {
		s.Power.Program = "pdu"
	}
	if change != nil {
		change(&s.Power, file)
	}
	d, err := Open(s, p)
	if err != nil {
		t.Fatal(err)
	}
	r = d.(*remote)
	r.pace = quickPace
	r.bmc.(*program).ration.every = time.Millisecond
	return r, outlet
}

func TestProgram(t *testing.T) {
	for _, driver := range []string{inventory.DriverExec, inventory.DriverPlugin} {
		t.Run(driver, func(t *testing.T) {
			r, outlet := newProgram(t, driver, "", nil)
			ctx, boot := t.Context(), bootFor(t, 7)
			if err := errors.Join(r.SetBoot(ctx, boot), r.On(ctx, boot)); err != nil {
				t.Fatal(err)
			}
			if st, err := r.Status(ctx); err != nil || st != (Status{On: true, Epoch: 7}) {
				t.Errorf("Status: %+v, %v", st, err)
			}
			if data, err := os.ReadFile(outlet); err != nil || string(data) != "on" {
				t.Errorf("the outlet is %q (%v)", data, err)
			}
			if said, err := r.Console(ctx); err != nil || string(said) != "up\n" {
				t.Errorf("Console: %q, %v", said, err)
			}
			if err := errors.Join(r.Joined(ctx), r.Off(ctx)); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(outlet); err != nil || string(data) != "off" {
				t.Errorf("the outlet is %q (%v)", data, err)
			}
		})
	}
}

func TestProgramFaults(t *testing.T) {
	status := func(ctx context.Context, r *remote) error { _, err := r.Status(ctx); return err }
	file := func(change func(path string) error) func(*inventory.Power, string) {
		return func(_ *inventory.Power, path string) {
			if err := change(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		fault  string
		do     func(context.Context, *remote) error
		change func(*inventory.Power, string)
		want   string
		text   string
	}{
		"crashes":       {"crash", status, nil, ProgramFailed, ""},
		"late":          {"late", status, nil, ProgramLate, "in time"},
		"huge answer":   {"huge", status, nil, Oversize, ""},
		"tells secrets": {"tell", status, nil, Refused, "the password is (sealed)"},
		"does nothing":  {"deaf", func(ctx context.Context, r *remote) error { return r.On(ctx, Boot{Epoch: 1}) }, nil, BootNotApplied, "reads back another"},
		"does no power": {"deaf", func(ctx context.Context, r *remote) error { return r.drive(ctx, true) }, nil, NotApplied, "still off"},
		"another hash":  {"", status, func(p *inventory.Power, _ string) { p.SHA256 = strings.Repeat("00", 32) }, ProgramRefused, "SHA-256"},
		"altered":       {"", status, file(func(path string) error { return os.Truncate(path, 100) }), ProgramRefused, "SHA-256"},
		"others write":  {"", status, file(func(path string) error { return os.Chmod(path, 0o777) }), ProgramRefused, "others could change it"},
		"others put":    {"", status, file(func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) }), ProgramRefused, "others could put"},
		"a link":        {"", status, file(func(path string) error { return errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)) }), ProgramRefused, ""},
		"gone":          {"", status, file(os.Remove), ProgramRefused, "no such file"},
		"no such user":  {"", status, func(p *inventory.Power, _ string) { p.RunAs = "mayfly-no-such-user" }, ProgramRefused, "unknown user"},
		"as root":       {"", status, func(p *inventory.Power, _ string) { p.RunAs = "root" }, ProgramRefused, "as root"},
		"no secret":     {"", status, func(p *inventory.Power, _ string) { p.Password = "sealed:other" }, SecretMissing, ""},
	} {
		for _, driver := range []string{inventory.DriverExec, inventory.DriverPlugin} {
			t.Run(driver+", "+name, func(t *testing.T) {
				r, _ := newProgram(t, driver, tt.fault, tt.change)
				r.offer = func(_ context.Context, b Boot) (nextBoot, error) {
					return nextBoot{epoch: b.Epoch, medium: "http://192.0.2.1/medium"}, nil
				}
				limit := time.Minute
				if tt.fault == "late" {
					limit = 2 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				err := tt.do(ctx, r)
				if Reason(err) != tt.want || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "horse-7") {
					t.Errorf("got %v, want reason %q with %q", err, tt.want, tt.text)
				}
			})
		}
	}
}

// TestProgramUser: a site's program runs as its own user, and never as root.
func TestProgramUser(t *testing.T) {
	for _, driver := range []string{inventory.DriverExec, inventory.DriverPlugin} {
		r, _ := newProgram(t, driver, "who", nil)
		_, err := r.Status(t.Context())
		want := fmt.Sprintf("uid %d", os.Geteuid())
		if os.Geteuid() == 0 {
			want = "uid 65534"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", driver, err, want)
		}
		if os.Geteuid() != 0 {
			continue
		}
		r, _ = newProgram(t, driver, "who", func(p *inventory.Power, _ string) { p.RunAs = "" })
		if _, err := r.Status(t.Context()); Reason(err) != ProgramRefused {
			t.Errorf("%s, as root: got %v", driver, err)
		}
	}
}

// TestScript: a program may be a script, which is run from memory too.
func TestScript(t *testing.T) {
	const script = "#!/bin/sh\ncat > /dev/null\necho \"{\\\"power\\\":\\\"on\\\",\\\"text\\\":\\\"$HOME$PWD\\\"}\"\n"
	sum := sha256.Sum256([]byte(script))
	r, _ := newProgram(t, inventory.DriverExec, "", func(p *inventory.Power, path string) {
		p.SHA256 = hex.EncodeToString(sum[:])
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	if st, err := r.Status(t.Context()); err != nil || !st.On {
		t.Errorf("got %+v, %v", st, err)
	}
}
