package skprovider

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshdOnce is Debian's sshd for one connection on its standard input and output, in a mount namespace that has an account anna.
const sshdOnce = `#!/bin/sh
exec unshare --mount /bin/sh -ec '
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
(grep -v -e ^sshd: -e ^anna: /etc/passwd; echo sshd:x:101:65534::/run/sshd:/bin/false; echo anna:x:4242:65534::/:/bin/sh) > /run/passwd
(grep -v -e ^anna: /etc/shadow; echo "anna:*:::::::") > /run/shadow
chmod 600 /run/shadow
mount --bind /run/passwd /etc/passwd
mount --bind /run/shadow /etc/shadow
exec /usr/sbin/sshd -i -E %[1]s/sshd.log -f "$0"
' "$1"
`

// serve makes an sshd to log in to as anna with the key of a file. options are lines of its configuration, or of the key's.
func (d *desk) serve(file string, options ...string) {
	d.t.Helper()
	if os.Geteuid() != 0 {
		d.t.Skip("needs root: sshd logs in another user, in a mount namespace")
	}
	if _, err := exec.LookPath("/usr/sbin/sshd"); err != nil {
		d.t.Skip("needs sshd (openssh-server), which testenv test installs")
	}
	if err := os.Chmod(d.dir, 0o755); err != nil { // sshd reads authorized keys as their user
		d.t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("host_key", string(pem.EncodeToMemory(block)), 0o600)
	d.write("authorized_keys", string(ssh.MarshalAuthorizedKey(d.public(file))), 0o644)
	d.write("sshd_config", fmt.Sprintf(`
HostKey %[1]s/host_key
PidFile none
AuthorizedKeysFile %[1]s/authorized_keys
AuthenticationMethods publickey
UsePAM no
StrictModes no
LogLevel VERBOSE
%[2]s
`, d.dir, strings.Join(options, "\n")), 0o600)
	d.write("sshd", fmt.Sprintf(sshdOnce, d.dir), 0o700)
	if d.served {
		return
	}
	d.served = true
	d.t.Cleanup(func() {
		if log, err := os.ReadFile(d.path("sshd.log")); err == nil && d.t.Failed() {
			d.t.Logf("sshd said:\n%s", log)
		}
	})
}

// login are ssh's arguments for a login with the key of a file.
func (d *desk) login(file string, options ...string) []string {
	args := []string{"-F", "none", "-o", "ProxyCommand=" + d.path("sshd") + " " + d.path("sshd_config"), "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", "PreferredAuthentications=publickey",
		"-o", "SecurityKeyProvider=" + d.library, "-i", d.path(file)}
	return append(append(args, options...), "anna@server", "id -un")
}

// denied is what ssh says when no key was good for the server.
const denied = "Permission denied (publickey)"

func TestLogin(t *testing.T) {
	for _, kind := range []string{"ed25519-sk", "ecdsa-sk"} {
		t.Run(kind, func(t *testing.T) {
			d := newDesk(t, nil)
			d.run("ssh-keygen", d.enroll(kind, "id", "verify-required")...)
			d.serve("id", "PubkeyAuthOptions touch-required verify-required")
			for range 2 { // its counter rises
				if out := d.run("ssh", d.login("id")...); !strings.Contains(out, "anna\n") {
					t.Errorf("got %s\n%s", out, d.read("sshd.log"))
				}
				if e := d.last("sign"); !e.Touched || !e.PIN || e.Code != 0 {
					t.Errorf("got %+v", e)
				}
			}

			d.set(func(s *Settings) { s.Touch = TouchRefused })
			d.fails(denied, "ssh", d.login("id")...)
			if e := d.last("sign"); e.Text != "nobody touched the key" {
				t.Errorf("got %+v", e)
			}

			d.set(func(s *Settings) { s.Touch, s.Flaws = TouchGiven, []Flaw{FlawNoTouchFlag} })
			d.fails(denied, "ssh", d.login("id")...)
			d.said("user presence (authenticator touch) requirement not met")

			d.set(func(s *Settings) { s.Flaws = []Flaw{FlawNoVerifyFlag} })
			d.fails(denied, "ssh", d.login("id")...)
			d.said("user verification requirement not met")
			d.set(func(s *Settings) { s.Flaws = nil })

			d.types("000000")
			for range pinInRow {
				d.fails(denied, "ssh", d.login("id")...)
			}
			if e := d.last("sign"); !strings.Contains(e.Text, "until the key is plugged in anew") {
				t.Errorf("got %+v", e)
			}
			d.types(testPIN)
			d.fails(denied, "ssh", d.login("id")...)
			if kind == "ecdsa-sk" {
				return // once is enough
			}
			for left := pinTries - pinInRow; left > 0; left-- { // until it is blocked for good
				d.types("000000")
				if err := d.key.Reinsert(); err != nil {
					t.Fatal(err)
				}
				d.fails(denied, "ssh", d.login("id")...)
			}
			d.types(testPIN)
			if err := d.key.Reinsert(); err != nil {
				t.Fatal(err)
			}
			d.fails(denied, "ssh", d.login("id")...)
			if e := d.last("sign"); e.Text != "the PIN is blocked for good" {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// said holds that sshd's log has this.
func (d *desk) said(want string) {
	d.t.Helper()
	if log := d.read("sshd.log"); !strings.Contains(string(log), want) {
		d.t.Errorf("sshd did not say %q:\n%s", want, log)
	}
}

// A key that was made without verify-required never says that a PIN was given, and sshd may insist.
func TestLoginWithoutPIN(t *testing.T) {
	d := newDesk(t, nil)
	d.run("ssh-keygen", d.enroll("ed25519-sk", "id")...)
	d.serve("id", "PubkeyAuthOptions touch-required")
	d.run("ssh", d.login("id")...)
	d.serve("id", "PubkeyAuthOptions touch-required verify-required")
	d.fails(denied, "ssh", d.login("id")...)
	d.said("user verification requirement not met")
	if _, err := os.Stat(d.path("prompts")); err == nil {
		t.Errorf("somebody was asked: %s", d.read("prompts"))
	}
}

// A key made with verify-required signs nothing for a client that leaves the question for the PIN out: the flag lies in the client's
// key file, the protection in the device.
func TestProtectionIsTheDevices(t *testing.T) {
	d := newDesk(t, nil)
	d.run("ssh-keygen", d.enroll("ed25519-sk", "id", "verify-required")...)
	handle := d.handle("id")
	for name, want := range map[byte]Code{wantPresence: DeviceNotFound, wantPresence | wantVerification: PINRequired} {
		_, err := d.key.Sign(SignRequest{Algorithm: Ed25519, Data: []byte("x"), Application: "ssh:x", Handle: handle, Flags: name})
		if refused, ok := err.(*Error); err == nil || ok && refused.Code != want {
			t.Errorf("flags %02x: got %v, want code %d", name, err, want)
		}
		if e := d.last("sign"); e.Code != want || e.Touched {
			t.Errorf("flags %02x: got %+v, want code %d", name, e, want)
		}
	}
}

// handle is the key handle in a private key file without passphrase (PROTOCOL.key, PROTOCOL.u2f).
func (d *desk) handle(file string) []byte {
	d.t.Helper()
	block, _ := pem.Decode(d.read(file))
	if block == nil {
		d.t.Fatalf("%s is no key file", file)
	}
	var outer struct {
		Cipher, KDF, Options string
		Count                uint32
		Public               []byte
		Private              []byte
	}
	var inner struct {
		Check1, Check2 uint32
		Type           string
		Public         []byte
		Application    string
		Flags          byte
		Handle         []byte
		Rest           []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(block.Bytes[len("openssh-key-v1\x00"):], &outer); err != nil {
		d.t.Fatal(err)
	}
	if err := ssh.Unmarshal(outer.Private, &inner); err != nil {
		d.t.Fatal(err)
	}
	return inner.Handle
}

// A finger touches during a login, refuses, and comes late.
func TestFinger(t *testing.T) {
	d := newDesk(t, nil)
	d.run("ssh-keygen", d.enroll("ed25519-sk", "id")...)
	d.serve("id")
	d.set(func(s *Settings) { s.Touch = TouchAsked })
	d.fails(denied, "ssh", d.login("id")...)
	if e := d.last("sign"); !strings.Contains(e.Text, "nobody attends the key") {
		t.Errorf("got %+v", e)
	}
	f, err := d.key.Attend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.key.Attend(t.Context()); err == nil {
		t.Error("two fingers on one key")
	}
	answer := func(do func(*Ask) error) <-chan error {
		done := make(chan error, 1)
		go func() {
			var ask *Ask
			select {
			case ask = <-f.Asks:
			case <-time.After(deadline):
				done <- errors.New("nobody asked for a touch")
				return
			}
			if ask.Operation != "sign" || ask.Application != "ssh:x" {
				t.Errorf("asked for %+v", ask)
			}
			done <- do(ask)
		}()
		return done
	}

	done := answer((*Ask).Give)
	d.run("ssh", d.login("id")...)
	if err := <-done; err != nil {
		t.Errorf("touching: %v", err)
	}
	done = answer((*Ask).Refuse)
	d.fails(denied, "ssh", d.login("id")...)
	if err := <-done; err != nil {
		t.Errorf("refusing: %v", err)
	}
	d.set(func(s *Settings) { s.Patience = 1 })
	done = answer(func(a *Ask) error { a.Wait(); return a.Give() })
	d.fails(denied, "ssh", d.login("id")...)
	if err := <-done; err != ErrLate {
		t.Errorf("touching late: got %v", err)
	}
	if e := d.last("sign"); e.Touched || !strings.Contains(e.Text, "in time") {
		t.Errorf("got %+v", e)
	}
}
