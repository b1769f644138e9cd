package skprovider

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/ssh"

	"mayfly/testenv/cgobuild"
	"mayfly/testenv/debian"
	"mayfly/testenv/pivcard"
)

// deadline is for what a program should do; it is generous, for a loaded machine.
const deadline = time.Minute

const testPIN = "493817"

// built is the library, built once for all tests.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// made is the maker of all keys.
var made = sync.OnceValues(pivcard.NewIssuer)

func maker(t *testing.T) *pivcard.Issuer {
	t.Helper()
	i, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func library(t *testing.T) string {
	t.Helper()
	client := []debian.Need{{Name: "ssh-keygen", Package: "openssh-client"}, {Name: "/usr/lib/openssh/ssh-sk-helper", Package: "openssh-client"}}
	if missing := debian.Missing(append(cgobuild.Needs(Tag), client...)); len(missing) > 0 {
		t.Skipf("needs %s, which testenv test installs", debian.Describe(missing))
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "mayfly-sk-"); built.err == nil {
			built.path, built.err = Build(context.Background(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// desk is a key, and a place where OpenSSH's programs use it.
type desk struct {
	t       *testing.T
	dir     string
	library string
	issuer  *pivcard.Issuer
	key     *Device
	served  bool // there is an sshd
}

// askpass types the PIN that lies in a file, and notes what it was asked for.
const askpass = `#!/bin/sh
[ "$SSH_ASKPASS_PROMPT" = none ] && exit 0
printf '%%s\n' "$1" >> %[1]s/prompts
cat %[1]s/pin
`

func newDesk(t *testing.T, change func(*Make)) *desk {
	t.Helper()
	d := &desk{t: t, library: library(t)}
	dir, err := os.MkdirTemp("", "mayfly-sk-") // a short path: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d.dir = dir
	d.issuer = maker(t)
	m := Make{Issuer: d.issuer.FIDO, AAGUID: Model}
	if change != nil {
		change(&m)
	}
	if d.key, err = Create(d.path("key"), m, Settings{Touch: TouchGiven, PIN: testPIN}); err != nil {
		t.Fatal(err)
	}
	d.write("askpass", fmt.Sprintf(askpass, dir), 0o700)
	d.types(testPIN)
	return d
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) write(name, text string, mode os.FileMode) string {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), []byte(text), mode); err != nil {
		d.t.Fatal(err)
	}
	return d.path(name)
}

func (d *desk) read(name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

// types is the PIN that the person types from now on.
func (d *desk) types(pin string) { d.write("pin", pin+"\n", 0o600) }

func (d *desk) set(change func(*Settings)) {
	d.t.Helper()
	if err := d.key.Set(change); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(d.t.Context(), deadline)
	d.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = d.dir
	cmd.Env = append(d.key.Environment(), "PATH="+os.Getenv("PATH"), "HOME="+d.dir, "SSH_ASKPASS="+d.path("askpass"), "SSH_ASKPASS_REQUIRE=force")
	cmd.WaitDelay = deadline
	return cmd
}

// run runs a program that succeeds.
func (d *desk) run(name string, args ...string) string {
	d.t.Helper()
	out, err := d.command(name, args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// fails runs a program that fails and says this.
func (d *desk) fails(want, name string, args ...string) {
	d.t.Helper()
	out, err := d.command(name, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(string(out), want) {
		d.t.Fatalf("%s %q: got %v, want a failure with %q:\n%s", name, args, err, want, out)
	}
}

// challenge is what a fleet gave for the enrolment.
const challenge = "a line that a fleet made\n"

// enroll are ssh-keygen's arguments for a key in a file, which attests.
func (d *desk) enroll(kind, file string, options ...string) []string {
	d.write("challenge", challenge, 0o600)
	args := []string{"-q", "-t", kind, "-N", "", "-C", "", "-f", d.path(file), "-w", d.library, "-O", "application=ssh:x",
		"-O", "challenge=" + d.path("challenge"), "-O", "write-attestation=" + d.path(file+".attestation")}
	for _, o := range options {
		args = append(args, "-O", o)
	}
	return args
}

// attestation is the file that ssh-keygen wrote (PROTOCOL.u2f).
type attestation struct {
	Magic       string
	Certificate []byte
	Signature   []byte
	AuthData    []byte
	Flags       uint32
	Reserved    string
}

func (d *desk) attestation(file string) (a attestation, data []byte) {
	d.t.Helper()
	if err := ssh.Unmarshal(d.read(file+".attestation"), &a); err != nil {
		d.t.Fatal(err)
	}
	if a.Magic != "ssh-sk-attest-v01" {
		d.t.Errorf("got form %q", a.Magic)
	}
	if err := cbor.Unmarshal(a.AuthData, &data); err != nil {
		d.t.Fatal(err)
	}
	return a, data
}

func (d *desk) public(file string) ssh.PublicKey {
	d.t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey(d.read(file + ".pub"))
	if err != nil {
		d.t.Fatal(err)
	}
	return key
}

// last is the last thing that the key was asked, which is this.
func (d *desk) last(operation string) Entry {
	d.t.Helper()
	entries, err := d.key.Journal()
	if err != nil {
		d.t.Fatal(err)
	}
	if len(entries) == 0 || entries[len(entries)-1].Operation != operation {
		d.t.Fatalf("got entries %+v, want a last one of %s", entries, operation)
	}
	return entries[len(entries)-1]
}

func TestEnroll(t *testing.T) {
	const nothing, credProtect2, credProtect3 = "", "\xa1\x6bcredProtect\x02", "\xa1\x6bcredProtect\x03"
	for _, tt := range []struct {
		kind       string
		options    []string
		flags      byte
		extensions string
		prompts    int
	}{
		{"ed25519-sk", nil, flagAttested | flagPresent, nothing, 0},
		{"ecdsa-sk", nil, flagAttested | flagPresent, nothing, 0},
		{"ed25519-sk", []string{"verify-required"}, flagExtensions | flagAttested | flagVerified | flagPresent, credProtect3, 1},
		{"ecdsa-sk", []string{"verify-required"}, flagExtensions | flagAttested | flagVerified | flagPresent, credProtect3, 1},
		{"ed25519-sk", []string{"resident"}, flagExtensions | flagAttested | flagVerified | flagPresent, credProtect2, 1},
		{"ecdsa-sk", []string{"resident", "verify-required", "user=anna"}, flagExtensions | flagAttested | flagVerified | flagPresent, credProtect3, 1},
	} {
		t.Run(tt.kind+" "+strings.Join(tt.options, " "), func(t *testing.T) {
			d := newDesk(t, nil)
			d.run("ssh-keygen", d.enroll(tt.kind, "id", tt.options...)...)
			a, data := d.attestation("id")
			certificate, err := x509.ParseCertificate(a.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			if err := certificate.CheckSignatureFrom(d.issuer.FIDO.Certificate); err != nil {
				t.Errorf("not by this issuer: %v", err)
			}
			var model []byte
			for _, e := range certificate.Extensions {
				if e.Id.Equal(oidAAGUID) {
					if rest, err := asn1.Unmarshal(e.Value, &model); err != nil || len(rest) > 0 {
						t.Errorf("AAGUID extension: %v, %d bytes left", err, len(rest))
					}
				}
			}
			if !bytes.Equal(model, Model[:]) {
				t.Errorf("the certificate names model %q", model)
			}
			hash := sha256.Sum256([]byte(challenge))
			digest := sha256.Sum256(append(slices.Clone(data), hash[:]...))
			if !ecdsa.VerifyASN1(certificate.PublicKey.(*ecdsa.PublicKey), digest[:], a.Signature) {
				t.Error("the attestation's signature does not verify")
			}
			rp := sha256.Sum256([]byte("ssh:x"))
			if !bytes.Equal(data[:32], rp[:]) || data[32] != tt.flags || binary.BigEndian.Uint32(data[33:]) != 1 || !bytes.Equal(data[37:53], Model[:]) {
				t.Errorf("authenticator data %x, want flags %02x", data[:53], tt.flags)
			}
			handle := int(binary.BigEndian.Uint16(data[53:]))
			var key map[int]any
			rest, err := cbor.UnmarshalFirst(data[55+handle:], &key)
			if err != nil {
				t.Fatal(err)
			}
			if string(rest) != tt.extensions {
				t.Errorf("got extensions %q, want %q", rest, tt.extensions)
			}
			blob := d.public("id").Marshal()
			if x, ok := key[-2].([]byte); !ok || !bytes.Contains(blob, x) {
				t.Errorf("the attested key %v is not the SSH key", key)
			}
			prompts, err := os.ReadFile(d.path("prompts"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if got := bytes.Count(prompts, []byte("\n")); got != tt.prompts {
				t.Errorf("got %d questions for the PIN, want %d:\n%s", got, tt.prompts, prompts)
			}
			if e := d.last("enroll"); !e.Touched || e.PIN != (tt.prompts > 0) || e.Code != 0 {
				t.Errorf("got entry %+v", e)
			}
		})
	}
}

func TestEnrollRefused(t *testing.T) {
	t.Run("no touch", func(t *testing.T) {
		d := newDesk(t, nil)
		d.set(func(s *Settings) { s.Touch = TouchRefused })
		d.fails("Key enrollment failed: invalid format", "ssh-keygen", d.enroll("ed25519-sk", "id")...)
		if e := d.last("enroll"); e.Text != "nobody touched the key" {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("PIN, until it is blocked", func(t *testing.T) {
		d := newDesk(t, nil)
		d.types("000000")
		d.fails("Too many incorrect PINs", "ssh-keygen", d.enroll("ed25519-sk", "id", "verify-required")...)
		if tries, err := d.key.Tries(); err != nil || tries != pinTries-2 {
			t.Errorf("got %d tries, %v", tries, err)
		}
		d.fails("Key enrollment failed: invalid format", "ssh-keygen", d.enroll("ed25519-sk", "id", "verify-required")...)
		if e := d.last("enroll"); !strings.Contains(e.Text, "until the key is plugged in anew") {
			t.Errorf("got %+v", e)
		}
		d.types(testPIN)
		d.fails("Key enrollment failed: invalid format", "ssh-keygen", d.enroll("ed25519-sk", "id", "verify-required")...)
		if err := d.key.Reinsert(); err != nil {
			t.Fatal(err)
		}
		d.run("ssh-keygen", d.enroll("ed25519-sk", "id", "verify-required")...)
		if tries, err := d.key.Tries(); err != nil || tries != pinTries {
			t.Errorf("after the right PIN: got %d tries, %v", tries, err)
		}
	})
	t.Run("no PIN set", func(t *testing.T) {
		d := newDesk(t, nil)
		d.set(func(s *Settings) { s.PIN = "" })
		d.fails("requested feature not supported", "ssh-keygen", d.enroll("ed25519-sk", "id", "verify-required")...)
		d.run("ssh-keygen", d.enroll("ed25519-sk", "id")...)
	})
	t.Run("no key", func(t *testing.T) {
		d := newDesk(t, nil)
		cmd := d.command("ssh-keygen", d.enroll("ed25519-sk", "id")...)
		cmd.Env = slices.DeleteFunc(cmd.Env, func(s string) bool { return strings.HasPrefix(s, Variable+"=") })
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "device not found") {
			t.Errorf("got %v\n%s", err, out)
		}
		d.fails("device not found", "ssh-keygen", d.enroll("ed25519-sk", "id", "device=/dev/hidraw0")...)
	})
	t.Run("key there already", func(t *testing.T) {
		d := newDesk(t, nil)
		d.run("ssh-keygen", d.enroll("ed25519-sk", "id", "resident")...)
		d.fails("", "ssh-keygen", d.enroll("ed25519-sk", "other", "resident")...)
		if e := d.last("enroll"); e.Code != CredentialExists {
			t.Errorf("got %+v", e)
		}
		d.run("ssh-keygen", d.enroll("ed25519-sk", "other", "resident", "user=anna")...)
	})
}
