package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

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
	if err := serving.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := serving.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log())
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
	for _, name := range []string{"config", "state"} {
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	raw, err := lab.Client.DialContext(ctx, "tcp", "10.77.0.2:22", netlab.Engineer)
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(raw, "bastion", &ssh.ClientConfig{
		User: "anna", Auth: []ssh.AuthMethod{ssh.PublicKeys(key.Signer(softkey.Always))}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return ssh.NewClient(conn, channels, requests)
}
