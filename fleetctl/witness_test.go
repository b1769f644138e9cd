package main

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
)

// A witness remembers how far it has followed, and is not led back.
func TestWitnessFollows(t *testing.T) {
	signer := func(seed string) ssh.Signer {
		s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize))))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	line := func(s ssh.Signer) []string { return []string{trust.FormatKey(s.PublicKey())} }
	ana := signer("a")
	root := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 1,
		Approvers: []trust.Person{{Name: "ana", Keys: line(ana)}}, TicketKeys: line(signer("t")), ListKeys: line(signer("l"))}
	next := *root
	next.Version, next.Previous, next.MinRelease = 2, root.Sum(), 5
	data, err := next.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sshsig.Sign(ana, trust.Namespace, data)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "trust")
	follow := followed(root, dir, filepath.Join(t.TempDir(), "state", "trust_version"))
	if now, _, err := follow(); err != nil || now.Version != 1 {
		t.Fatalf("got %v, %v, want the root", now, err)
	}
	if err := chain.Write(dir, 2, data, sig); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if now, steps, err := follow(); err != nil || now.Version != 2 || len(steps) != 1 {
			t.Fatalf("got %v, %v, want version 2", now, err)
		}
	}
	if err := os.Remove(chain.File(dir, 2)); err != nil {
		t.Fatal(err)
	}
	if now, _, err := follow(); err == nil || !strings.Contains(err.Error(), trust.Older) {
		t.Errorf("led back: got %v, %v, want %s", now, err, trust.Older)
	}
}
