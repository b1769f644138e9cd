package skprovider

import (
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// agent starts an ssh-agent that may load the library, until the test ends.
func (d *desk) agent(hand func(*exec.Cmd)) (environment string) {
	d.t.Helper()
	for _, program := range []string{"ssh-agent", "ssh-add"} {
		if _, err := exec.LookPath(program); err != nil {
			d.t.Skipf("needs %s (openssh-client), which testenv test installs", program)
		}
	}
	socket := d.path("agent")
	cmd := d.command("ssh-agent", "-D", "-P", filepath.Dir(d.library)+"/*", "-a", socket)
	if hand != nil {
		hand(cmd)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil { // it says where it listens once it does
		d.t.Fatal(err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		d.t.Fatal(err)
	}
	conn.Close()
	return "SSH_AUTH_SOCK=" + socket
}

// with runs a program with one more variable.
func (d *desk) with(variable, name string, args ...string) (string, error) {
	cmd := d.command(name, args...)
	cmd.Env = append(cmd.Env, variable)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ssh-agent loads the library as well, for keys of files and for resident ones.
func TestAgent(t *testing.T) {
	d := newDesk(t, nil)
	d.run("ssh-keygen", d.enroll("ed25519-sk", "id", "verify-required")...)
	d.run("ssh-keygen", d.enroll("ecdsa-sk", "resident", "resident", "user=anna")...)
	d.serve("id", "PubkeyAuthOptions touch-required verify-required")
	socket := d.agent(nil)
	if out, err := d.with(socket, "ssh-add", "-S", d.library, d.path("id")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := d.with(socket, "ssh-add", "-K", "-S", d.library); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := d.with(socket, "ssh-add", "-L")
	if err != nil || !strings.Contains(out, "sk-ssh-ed25519@openssh.com ") || !strings.Contains(out, "sk-ecdsa-sha2-nistp256@openssh.com ") {
		t.Errorf("got %v\n%s", err, out)
	}
	if out, err := d.with(socket, "ssh", d.login("id")...); err != nil || !strings.Contains(out, "anna\n") {
		t.Errorf("got %v\n%s", err, out)
	}
	if e := d.last("sign"); !e.PIN || !e.Touched || e.Code != 0 {
		t.Errorf("got %+v", e)
	}
	d.set(func(s *Settings) { s.Touch = TouchRefused })
	if out, err := d.with(socket, "ssh", d.login("id", "-o", "SecurityKeyProvider=none")...); err == nil || !strings.Contains(out, denied) {
		t.Errorf("got %v\n%s", err, out)
	}
}

// The environment that counts is the one of who starts ssh-sk-helper: an agent's own.
func TestAgentHasItsOwnEnvironment(t *testing.T) {
	d := newDesk(t, nil)
	d.run("ssh-keygen", d.enroll("ed25519-sk", "id")...)
	socket := d.agent(func(cmd *exec.Cmd) {
		cmd.Env = slices.DeleteFunc(cmd.Env, func(s string) bool { return strings.HasPrefix(s, Variable+"=") })
	})
	if out, err := d.with(socket, "ssh-add", "-S", d.library, d.path("id")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d.write("text", "signed\n", 0o600)
	if out, err := d.with(socket, "ssh-keygen", "-Y", "sign", "-n", "test", "-f", d.path("id.pub"), d.path("text")); err == nil {
		t.Errorf("signed without a key: %s", out)
	}
	d.last("enroll") // nobody asked the key since
}

func TestResident(t *testing.T) {
	d := newDesk(t, nil)
	d.run("ssh-keygen", d.enroll("ed25519-sk", "one", "resident", "verify-required")...)
	d.run("ssh-keygen", d.enroll("ecdsa-sk", "two", "resident", "user=anna")...)
	d.run("ssh-keygen", d.enroll("ecdsa-sk", "not", "verify-required")...)
	d.run("ssh-keygen", "-q", "-K", "-N", "", "-w", d.library)
	for from, to := range map[string]string{"one": "id_ed25519_sk_rk_x", "two": "id_ecdsa_sk_rk_x_anna"} {
		got := strings.Fields(string(d.read(to + ".pub")))
		if want := strings.Fields(string(d.read(from + ".pub"))); !slices.Equal(got[:2], want[:2]) {
			t.Errorf("%s: got %q, want %q", to, got, want)
		}
	}
	if found, err := filepath.Glob(d.path("id_*.pub")); err != nil || len(found) != 2 {
		t.Errorf("got %q, %v, want two keys", found, err)
	}
	d.serve("id_ed25519_sk_rk_x", "PubkeyAuthOptions touch-required verify-required")
	d.run("ssh", d.login("id_ed25519_sk_rk_x")...)
	d.types("000000")
	d.fails("Unable to load resident keys", "ssh-keygen", "-K", "-N", "", "-w", d.library)
	if e := d.last("resident"); e.Code != PINRequired {
		t.Errorf("got %+v", e)
	}
}

func TestSignature(t *testing.T) {
	for _, kind := range []string{"ed25519-sk", "ecdsa-sk"} {
		t.Run(kind, func(t *testing.T) {
			d := newDesk(t, nil)
			d.run("ssh-keygen", d.enroll(kind, "id", "verify-required")...)
			d.write("text", "signed\n", 0o600)
			d.write("allowed", "anna "+string(d.read("id.pub")), 0o600)
			check := []string{"-Y", "verify", "-n", "test", "-f", d.path("allowed"), "-I", "anna", "-s", d.path("text.sig"), "-O", "print-pubkey"}
			sign := func() *exec.Cmd {
				cmd := d.command("ssh-keygen", "-Y", "sign", "-n", "test", "-f", d.path("id"), d.path("text"))
				cmd.Env = append(cmd.Env, "SSH_SK_PROVIDER="+d.library)
				return cmd
			}
			if out, err := sign().CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			verify := func(text string) (string, error) {
				cmd := d.command("ssh-keygen", check...)
				cmd.Stdin = strings.NewReader(text)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			if out, err := verify("signed\n"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if out, err := verify("other\n"); err == nil {
				t.Errorf("another text verifies: %s", out)
			}
			if e := d.last("sign"); !e.PIN || !e.Touched {
				t.Errorf("got %+v", e)
			}
			d.types("000000")
			if out, err := sign().CombinedOutput(); err == nil {
				t.Errorf("signed with a wrong PIN: %s", out)
			}
		})
	}
}
