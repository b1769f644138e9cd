package main

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
)

// TestNewTrust: a server takes the step that follows its trust policy by signatures, and no other.
func TestNewTrust(t *testing.T) {
	signer := func(seed string) ssh.Signer {
		s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize))))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	line := func(s ssh.Signer) []string { return []string{trust.FormatKey(s.PublicKey())} }
	ana, bo := signer("a"), signer("b")
	root := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 1,
		Approvers: []trust.Person{{Name: "ana", Keys: line(ana)}}, TicketKeys: line(signer("t")), ListKeys: line(signer("l"))}
	next := *root
	next.Version, next.Previous, next.Approvers = 2, root.Sum(), []trust.Person{{Name: "bo", Keys: line(bo)}}
	third := next
	third.Version, third.Previous, third.MinRelease = 3, next.Sum(), 7
	step := func(v *trust.Trust, by ...ssh.Signer) join.Trust {
		t.Helper()
		data, err := v.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		s := join.Trust{Version: v.Version, File: data}
		for _, k := range by {
			block, err := sshsig.Sign(k, trust.Namespace, data)
			if err != nil {
				t.Fatal(err)
			}
			s.Sig = append(s.Sig, block...)
		}
		return s
	}
	var said bytes.Buffer
	m := &machine{papers: &papers{trust: root}, con: &console{w: &said}}
	lying := step(&third, bo)
	lying.Version = 2
	for _, tt := range []struct {
		name   string
		step   join.Trust
		reason string // of the refusal
		want   uint64 // version afterwards
	}{
		{"one too far", step(&third, bo), "", 1},
		{"by the old alone", step(&next, ana), trust.NewThreshold, 1},
		{"by the new alone", step(&next, bo), trust.OldThreshold, 1},
		{"another than it says", lying, trust.OldThreshold, 1},
		{"by both", step(&next, ana, bo), "", 2},
		{"again", step(&next, ana, bo), "", 2},
		{"the next", step(&third, bo), "", 3},
		{"back", step(&next, ana, bo), "", 3},
	} {
		err := m.newTrust(tt.step)
		reason := ""
		if err != nil {
			reason, _ = code(err)
		}
		if reason != tt.reason || m.papers.trust.Version != tt.want {
			t.Errorf("%s: got %v and version %d, want %q and %d", tt.name, err, m.papers.trust.Version, tt.reason, tt.want)
		}
	}
	if !strings.Contains(said.String(), "trust policy 3 in force, by approvers") {
		t.Errorf("said %q", said.String())
	}
}
