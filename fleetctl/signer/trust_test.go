package signer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/join"
)

// TestTrustIsFollowed: the signer takes over a trust policy only if it follows by signatures, refuses by it what the old approvers signed, and remembers
// it over a restart, whatever lies beside it then.
func TestTrustIsFollowed(t *testing.T) {
	f := newFleet(t)
	now := time.Now().UTC()
	r := offline(t, f).rules
	if _, err := r.bundle(now); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(f.dir, "trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	steps := filepath.Join(f.dir, "public", "trust")
	next := *f.trust
	cy := newSSHSigner(t)
	next.Version, next.Previous, next.Threshold = 2, trust.Sum(before), 2
	next.Approvers = []trust.Person{next.Approvers[0], {Name: "cy", Keys: []string{trust.FormatKey(cy.PublicKey())}}}
	data, err := next.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	lay := func(by ...ssh.Signer) {
		t.Helper()
		var sigs []byte
		for _, s := range by {
			block, err := sshsig.Sign(s, trust.Namespace, data)
			if err != nil {
				t.Fatal(err)
			}
			sigs = append(sigs, block...)
		}
		if err := chain.Write(steps, 2, data, sigs); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(r *rules, want string) {
		t.Helper()
		if _, err := r.bundle(now); reason(err) != join.BundleMissing || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s with %q", err, join.BundleMissing, want)
		}
	}
	f.write(t, "trust.json", data) // by whoever can write here
	refused(r, "does not follow")
	lay(f.people[0], cy)
	refused(r, trust.OldThreshold)
	lay(f.people...)
	refused(r, trust.NewThreshold)
	lay(f.people[0], f.people[1], cy)
	refused(r, "signed by 1 of 2 people needed (ana)") // bo has no say any more
	if v := r.trusts().Version; v != 2 {
		t.Fatalf("got trust policy %d, want 2", v)
	}
	f.people[1] = cy
	f.sign(t, 2)
	if _, err := r.bundle(now); err != nil {
		t.Errorf("signed by the new approvers: %v", err)
	}
	f.write(t, "trust.json", before)
	refused(r, "does not follow version 2")
	if _, err := loadRules(f.dir); err == nil || !strings.Contains(err.Error(), "does not follow version 2") {
		t.Errorf("a restart with the older one: got %v", err)
	}
	f.write(t, "trust.json", data)
	if again, err := loadRules(f.dir); err != nil || again.trusts().Version != 2 {
		t.Errorf("a restart: got %v", err)
	}
}
