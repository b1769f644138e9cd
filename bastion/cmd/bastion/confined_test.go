package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"mayfly/bastion/recording"
	"mayfly/policies/trust"
	"mayfly/testenv/netlab"
	"mayfly/testenv/softkey"
)

// labFleet is fleetTOML with a machine that is in another namespace than the bastion.
const labFleet = `
name = "lab"
domain = "lab.internal"
test = true
[[bastion]]
name = "bastion"
address = "10.77.0.2"
port = 22
[[server]]
name = "web-1"
role = "host"
address = "203.0.113.10/24"
`

const labPolicy = `
version = %d
expires = 2999-01-01T00:00:00Z
[ssh]
level = "pq-preferred"
allow = ["198.51.100.0/24"]
[hardware]
test_roots = ["softkey"]
[[engineer]]
name = "anna"
[[engineer.key]]
public = "%s"
evidence = "test:softkey"
[[grant]]
engineers = ["anna"]
servers = ["*"]
ports = [PORTS]
[rotation]
max_age = "24h"
max_parallel = 1
drain_limit = "1m"
boot_limit = "1m"
`

// TestConfinedLogin runs the program itself, in its sandbox, between an engineer and a machine in namespaces of their own: login, jump,
// a new policy by rename, a port that is granted too late.
func TestConfinedLogin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	lab := netlab.Of(t.TempDir())
	if err := lab.Create(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Remove(); err != nil {
			t.Error(err)
		}
	})
	for _, port := range []string{":22", ":23"} {
		l, err := lab.Target.Listen("tcp", netlab.WebTarget.String()+port)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go echo(l)
	}
	anna, approvers, dir := labFiles(t)
	serving, log := startBastion(t, lab, dir)
	client := dialBastion(t, lab, anna)
	defer client.Close()

	through := func(client *ssh.Client, port string) error {
		conn, err := client.Dial("tcp", "web-1:"+port)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("hello")); err != nil {
			return err
		}
		answer := make([]byte, 5)
		if _, err := io.ReadFull(conn, answer); err != nil {
			return err
		}
		if string(answer) != "hello" {
			t.Errorf("got %q", answer)
		}
		return nil
	}
	if err := through(client, "22"); err != nil {
		t.Errorf("port 22: %v\n%s", err, log())
	}

	// Written beside and renamed over, as tools do it.
	labBundle(t, dir, "next", 2, anna, "22, 23", approvers)
	for _, suffix := range []string{".sig", ""} {
		if err := os.Rename(filepath.Join(dir, "config", "next"+suffix), filepath.Join(dir, "config", "bundle.json"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	waitText(t, log, "policy in force")
	waitText(t, log, "port=23")
	if err := through(client, "22"); err != nil {
		t.Errorf("port 22 after the new policy: %v\n%s", err, log())
	}
	if err := through(client, "23"); err == nil || !strings.Contains(err.Error(), "target_unreachable") {
		t.Errorf("port 23, granted too late: got %v", err)
	}
	client.Close()
	status, err := exec.CommandContext(t.Context(), "bastion", "status", "--config", filepath.Join(dir, "config", "bastion.toml")).CombinedOutput()
	if err != nil || !strings.Contains(string(status), "on: no new privileges") {
		t.Errorf("status: %v\n%s", err, status)
	}
	if err := serving.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := serving.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log())
	}
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) != 0 {
		t.Errorf("the control socket is left: %v, %v", left, err)
	}
	if strings.Contains(log(), "level=ERROR") || !strings.Contains(log(), "msg=confined") {
		t.Errorf("the bastion said:\n%s", log())
	}

	// A fresh start takes the new port.
	serving, log = startBastion(t, lab, dir)
	client = dialBastion(t, lab, anna)
	defer client.Close()
	if err := through(client, "23"); err != nil {
		t.Errorf("port 23 after a restart: %v\n%s", err, log())
	}
	client.Close() // else it would be waited for
	if err := serving.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := serving.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log())
	}
}

func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(conn, conn)
			conn.Close()
		}()
	}
}

// labFiles lays a configuration in one directory and leaves another for the log.
func labFiles(t *testing.T) (*softkey.Key, []ssh.Signer, string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"config", "state", "run"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config")
	approvers, tr := newTrust(t)
	data, err := tr.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	anna, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	labBundle(t, dir, "bundle.json", 1, anna, "22", approvers)
	if err := errors.Join(
		os.WriteFile(filepath.Join(config, "trust.json"), data, 0o644),
		writeHostKey(config),
		os.Mkdir(filepath.Join(config, "statements"), 0o700),
		os.WriteFile(filepath.Join(config, "bastion.toml"), []byte(`listen = "10.77.0.2:22"
trust = "trust.json"
bundle = "bundle.json"
host_key = "host_key"
host_certificate = "host_key-cert.pub"
audit = "../state/audit"
statements = "statements"
control = "../run/control.sock"
`), 0o600)); err != nil {
		t.Fatal(err)
	}
	return anna, approvers, dir
}

func newTrust(t *testing.T) ([]ssh.Signer, trust.Trust) {
	t.Helper()
	approvers, tr, err := makeTrust()
	if err != nil {
		t.Fatal(err)
	}
	return approvers[:2], tr
}

func labBundle(t *testing.T, dir, name string, version int, anna *softkey.Key, ports string, approvers []ssh.Signer) {
	t.Helper()
	policy := strings.Replace(labPolicy, "PORTS", ports, 1)
	if err := writeBundleOf(filepath.Join(dir, "config"), name, labFleet, policy, version, anna, approvers); err != nil {
		t.Fatal(err)
	}
}

// startBastion starts the program in the lab's core and waits until it serves.
func startBastion(t *testing.T, lab netlab.Lab, dir string) (*exec.Cmd, func() string) {
	t.Helper()
	program, err := exec.LookPath("bastion")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, "serve", "--config", filepath.Join(dir, "config", "bastion.toml"))
	cmd.Stderr = out
	if err := lab.Core.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	log := func() string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	waitText(t, log, "serve: ready")
	return cmd, log
}

func waitText(t *testing.T, text func() string, want string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !strings.Contains(text(), want) {
		select {
		case <-limit:
			t.Fatalf("%q never came:\n%s", want, text())
		case <-poll.C:
		}
	}
}

func dialBastion(t *testing.T, lab netlab.Lab, key *softkey.Key) *ssh.Client {
	t.Helper()
	return dialBastionAs(t, lab, "anna", key)
}

func dialBastionAs(t *testing.T, lab netlab.Lab, user string, key *softkey.Key) *ssh.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	raw, err := lab.Client.DialContext(ctx, "tcp", "10.77.0.2:22", netlab.Engineer)
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(raw, "bastion", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key.Signer(softkey.Always))}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return ssh.NewClient(conn, channels, requests)
}

// TestConfinedSession is a recorded session through the program in its sandbox: certificate, host authorities and recording are all
// made, read and written within it.
func TestConfinedSession(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	lab := netlab.Of(t.TempDir())
	if err := lab.Create(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Remove(); err != nil {
			t.Error(err)
		}
	})
	anna, approvers, dir := labFiles(t)
	authority, hostCA := sessionFiles(t, dir)
	reader, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	policy := strings.Replace(labPolicy, "ports = [PORTS]", "ports = [22]\nsession = true", 1) + fmt.Sprintf(`
[session]
record = true
recipients = [%q]
authority = %q
`, reader.Recipient(), trust.FormatKey(authority))
	if err := writeBundleOf(filepath.Join(dir, "config"), "bundle.json", labFleet, policy, 1, anna, approvers); err != nil {
		t.Fatal(err)
	}
	l, err := lab.Target.Listen("tcp", netlab.WebTarget.String()+":22")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveSessions(l, hostCA, authority)

	serving, log := startBastion(t, lab, dir)
	client := dialBastionAs(t, lab, "anna%web-1", anna)
	s, err := client.NewSession()
	if err != nil {
		t.Fatalf("%v\n%s", err, log())
	}
	out, err := s.Output("id")
	if err != nil || string(out) != "ran id\n" {
		t.Errorf("got %q, %v\n%s", out, err, log())
	}
	client.Close()
	if err := serving.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := serving.Wait(); err != nil || strings.Contains(log(), "level=ERROR") {
		t.Errorf("%v\n%s", err, log())
	}
	files, err := filepath.Glob(filepath.Join(dir, "state", "recordings", "*"+recording.Suffix))
	if err != nil || len(files) != 1 {
		t.Fatalf("recordings: %q, %v", files, err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := recording.Open(f, reader)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if how, err := c.Dump(&text); err != nil || how != "target_closed" || !strings.Contains(text.String(), `ran id\n`) {
		t.Errorf("got %q, %v:\n%s", how, err, text.String())
	}
}

// sessionFiles lays a session authority, the fleet's known_hosts and a directory for recordings beside the configuration.
func sessionFiles(t *testing.T, dir string) (authority ssh.PublicKey, hostCA ssh.Signer) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if authority, err = ssh.NewPublicKey(public); err != nil {
		t.Fatal(err)
	}
	_, caKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if hostCA, err = ssh.NewSignerFromKey(caKey); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	toml, err := os.ReadFile(filepath.Join(config, "bastion.toml"))
	if err != nil {
		t.Fatal(err)
	}
	toml = append(toml, "[session]\nca = \"session_ca\"\nhost_cas = \"known_hosts\"\nrecordings = \"../state/recordings\"\n"...)
	if err := errors.Join(
		os.WriteFile(filepath.Join(config, "session_ca"), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(filepath.Join(config, "known_hosts"), []byte("@cert-authority *.lab.internal "+trust.FormatKey(hostCA.PublicKey())+"\n"), 0o600),
		os.WriteFile(filepath.Join(config, "bastion.toml"), toml, 0o600),
		os.Mkdir(filepath.Join(dir, "state", "recordings"), 0o700)); err != nil {
		t.Fatal(err)
	}
	return authority, hostCA
}

// serveSessions is a machine that takes the authority's certificates and says which command it was asked for.
func serveSessions(l net.Listener, hostCA ssh.Signer, authority ssh.PublicKey) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return
	}
	host, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return
	}
	certificate := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"web-1.lab.internal"}, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, hostCA); err != nil {
		return
	}
	certified, err := ssh.NewCertSigner(certificate, host)
	if err != nil {
		return
	}
	checker := ssh.CertChecker{IsUserAuthority: func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), authority.Marshal()) }}
	config := &ssh.ServerConfig{PublicKeyCallback: checker.Authenticate}
	config.AddHostKey(certified)
	for {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer raw.Close()
			_, channels, requests, err := ssh.NewServerConn(raw, config)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			for nc := range channels {
				channel, requests, err := nc.Accept()
				if err != nil {
					return
				}
				for r := range requests {
					r.Reply(r.Type == "exec", nil)
					if r.Type == "exec" {
						io.WriteString(channel, "ran "+string(r.Payload[4:])+"\n")
						channel.SendRequest("exit-status", false, make([]byte, 4))
						channel.Close()
					}
				}
			}
		}()
	}
}
