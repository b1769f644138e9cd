package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"mayfly/internal/audit"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/testenv/softkey"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bastion": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			return errors.Join(writeFleet(env.WorkDir), writeRecording(env.WorkDir))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor":        waitFor,
			"waitlog":        waitLog,
			"waitcheckpoint": waitCheckpoint,
			"exits":          exits,
		},
	})
}

// waitFor FILE TEXT waits until a file holds a text.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for ; ctx.Err() == nil; <-poll.C {
		if data, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(data), args[1]) {
			return
		}
	}
	ts.Fatalf("%s never held %q", args[0], args[1])
}

// waitLog DIR TEXT waits until a record of an audit log holds a text.
func waitLog(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	found := errors.New("found")
	for ; ctx.Err() == nil; <-poll.C {
		_, err := audit.Read(ts.MkAbs(args[0]), 0, func(_ uint64, text []byte) error {
			if strings.Contains(string(text), args[1]) {
				return found
			}
			return nil
		})
		if errors.Is(err, found) {
			return
		}
	}
	ts.Fatalf("%s never held %q", args[0], args[1])
}

// waitCheckpoint DIR N waits until the checkpoint of an audit log covers N records.
func waitCheckpoint(ts *testscript.TestScript, neg bool, args []string) {
	waitFor(ts, neg, []string{filepath.Join(args[0], "checkpoint"), "\n" + args[1] + "\n"})
}

// exits CODE PROGRAM ARG... runs a program that ends with this code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s: %v", code, args[0], err)
	}
}

const fleetTOML = `
name = "lab"
domain = "lab.internal"
test = true
[network]
management = ["10.77.0.0/24"]
gateway = "10.77.0.1"
[controller]
address = "10.77.0.1"
boot_port = 80
join_port = 443
checkin_port = 8443
[[bastion]]
name = "bastion"
address = "10.77.0.2"
port = 22
[[region]]
name = "se"
[[rack]]
name = "se-a"
region = "se"
[[server]]
name = "se-1"
rack = "se-a"
role = "vpn"
address = "10.77.0.11/24"
capacity = 1000
tunnel = "10.64.1.0/24"
power = { driver = "qemu", tap = "tap1", mac = "52:54:00:00:00:11", memory_mib = 512 }
`

const policyTOML = `
version = %d
expires = 2999-01-01T00:00:00Z
[ssh]
level = "pq-preferred"
allow = ["127.0.0.0/8", "2001:db8::/32"]
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
ports = [22]
[rotation]
max_age = "24h"
max_parallel = 1
drain_limit = "1m"
boot_limit = "1m"
`

// makeTrust makes a trust policy of two people, and the keys of theirs and of tickets and lists.
func makeTrust() (approvers []ssh.Signer, tr trust.Trust, err error) {
	tr = trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2}
	var keys []string
	for range 4 {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, trust.Trust{}, err
		}
		signer, err := ssh.NewSignerFromKey(private)
		if err != nil {
			return nil, trust.Trust{}, err
		}
		approvers = append(approvers, signer)
		keys = append(keys, trust.FormatKey(signer.PublicKey()))
	}
	tr.Approvers = []trust.Person{{Name: "carl", Keys: keys[:1]}, {Name: "dora", Keys: keys[1:2]}}
	tr.TicketKeys, tr.ListKeys = keys[2:3], keys[3:]
	return approvers, tr, nil
}

// writeFleet writes what a bastion serves by, and one bundle each of version 1 and 2, and version 2 with one signature.
func writeFleet(dir string) error {
	approvers, tr, err := makeTrust()
	if err != nil {
		return err
	}
	data, err := tr.Marshal()
	if err != nil {
		return err
	}
	anna, err := softkey.New(rand.Reader)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "trust.json"), data, 0o644),
		os.WriteFile(filepath.Join(dir, "anna.pub"), []byte(anna.Authorized()+"\n"), 0o644),
		writeHostKey(dir),
		writeBundle(dir, "bundle.json", 1, anna, approvers[:2]),
		writeBundle(dir, "newer.json", 2, anna, approvers[:2]),
		writeBundle(dir, "halfsigned.json", 3, anna, approvers[:1]),
	)
}

func writeBundle(dir, name string, version int, anna *softkey.Key, approvers []ssh.Signer) error {
	return writeBundleOf(dir, name, fleetTOML, policyTOML, version, anna, approvers)
}

func writeBundleOf(dir, name, fleetText, policyText string, version int, anna *softkey.Key, approvers []ssh.Signer) error {
	fleet, err := inventory.Parse("fleet.toml", []byte(fleetText))
	if err != nil {
		return err
	}
	policy, err := policies.Parse("policy.toml", fmt.Appendf(nil, policyText, version, anna.Authorized()), fleet)
	if err != nil {
		return err
	}
	data, err := bundle.Make(fleet, policy, time.Now())
	if err != nil {
		return err
	}
	var signatures []byte
	for _, approver := range approvers {
		signature, err := sshsig.Sign(approver, bundle.Namespace, data)
		if err != nil {
			return err
		}
		signatures = append(signatures, signature...)
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, name), data, 0o644), os.WriteFile(filepath.Join(dir, name+".sig"), signatures, 0o644))
}

func writeHostKey(dir string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	certificate := ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"bastion.lab.internal"},
		ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
	if err := certificate.SignCert(rand.Reader, signer); err != nil {
		return err
	}
	old := certificate
	old.ValidBefore = uint64(time.Now().Add(-time.Hour).Unix())
	if err := old.SignCert(rand.Reader, signer); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "host_key"), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(filepath.Join(dir, "host_key-cert.pub"), ssh.MarshalAuthorizedKey(&certificate), 0o644),
		os.WriteFile(filepath.Join(dir, "expired-cert.pub"), ssh.MarshalAuthorizedKey(&old), 0o644),
	)
}
