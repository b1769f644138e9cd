package main

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
)

// TestServeFollowsTrust: serve takes over a trust policy that follows, says so, and then takes only policies of the present approvers; one that does not
// follow changes nothing.
func TestServeFollowsTrust(t *testing.T) {
	d := state(t.TempDir())
	signer := func(seed string) ssh.Signer {
		s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize))))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	line := func(s ssh.Signer) []string { return []string{trust.FormatKey(s.PublicKey())} }
	ana, bo := signer("a"), signer("b")
	fleet, err := os.ReadFile("../inventory/testdata/fleet.toml")
	check(err)
	f, err := inventory.Parse("fleet.toml", fleet)
	check(err)
	text, err := os.ReadFile("../policies/testdata/policy.toml")
	check(err)
	p, err := policies.Parse("policy.toml", text, f)
	check(err)
	root := &trust.Trust{Kind: trust.Kind, Fleet: f.Name, Test: f.Test, Version: 1, Threshold: 1,
		Approvers: []trust.Person{{Name: "ana", Keys: line(ana)}}, TicketKeys: line(signer("t")), ListKeys: line(signer("l"))}
	writeTrust := func(v *trust.Trust) []byte {
		t.Helper()
		data, err := v.Marshal()
		check(err)
		check(os.WriteFile(d.trustFile(), data, 0o644))
		return data
	}
	sign := func(namespace string, data []byte, by ...ssh.Signer) (sigs []byte) {
		t.Helper()
		for _, s := range by {
			block, err := sshsig.Sign(s, namespace, data)
			check(err)
			sigs = append(sigs, block...)
		}
		return sigs
	}
	now := time.Now()
	writeBundle := func(version uint64, by ...ssh.Signer) {
		t.Helper()
		p.Version, p.Expires = version, now.Add(time.Hour).UTC().Truncate(time.Second)
		data, err := bundle.Make(f, p, now)
		check(err)
		check(os.WriteFile(signatures(d.bundleFile()), sign(bundle.Namespace, data, by...), 0o644))
		check(os.WriteFile(d.bundleFile(), data, 0o644))
	}
	writeTrust(root)
	writeBundle(1, ana)
	var log bytes.Buffer
	s, err := openPolicy(t.Context(), d, root, slog.New(slog.NewTextHandler(&log, nil)))
	check(err)
	s.actUnder = func(*bundle.Bundle) error { return nil }
	next := *root
	next.Version, next.Previous = 2, root.Sum()
	next.Approvers = []trust.Person{{Name: "bo", Keys: line(bo)}}
	data := writeTrust(&next)
	reload := func(version uint64, said string) {
		t.Helper()
		log.Reset()
		s.reload(now)
		if got := s.current().Version; got != version || !strings.Contains(log.String(), said) {
			t.Errorf("got policy %d and %q, want %d and %q", got, log.String(), version, said)
		}
	}
	writeBundle(2, bo)
	reload(1, "the old trust policy stays in force") // nobody signed that step
	check(chain.Write(d.chainDir(), 2, data, sign(trust.Namespace, data, ana)))
	reload(1, trust.NewThreshold)
	check(chain.Write(d.chainDir(), 2, data, sign(trust.Namespace, data, ana, bo)))
	reload(2, "trust policy in force")
	if steps := s.lastSteps(); len(steps) != 1 || steps[0].Version != 2 || !bytes.Equal(steps[0].File, data) || len(steps[0].Sig) == 0 {
		t.Errorf("servers get %+v, want version 2", steps)
	}
	writeBundle(3, ana)
	reload(2, bundle.Unsigned)
	writeBundle(4, ana, bo)
	reload(4, "policy in force")
}
