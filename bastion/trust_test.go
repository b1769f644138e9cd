package bastion

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/testenv/softkey"
)

// follow lays the next trust policy into the directory, changed and signed as said.
func (f *fixture) follow(old *trust.Trust, change func(*trust.Trust), by ...ssh.Signer) *trust.Trust {
	f.t.Helper()
	next := *old
	next.Version, next.Previous = old.Version+1, old.Sum()
	change(&next)
	data, err := next.Marshal()
	if err != nil {
		f.t.Fatal(err)
	}
	var sigs []byte
	for _, s := range by {
		block, err := sshsig.Sign(s, trust.Namespace, data)
		if err != nil {
			f.t.Fatal(err)
		}
		sigs = append(sigs, block...)
	}
	if err := chain.Write(f.config.trustPlace().directory(), next.Version, data, sigs); err != nil {
		f.t.Fatal(err)
	}
	return &next
}

// root is the trust policy that the bastion was given.
func (f *fixture) root() *trust.Trust {
	f.t.Helper()
	data, err := os.ReadFile(f.config.Trust)
	if err != nil {
		f.t.Fatal(err)
	}
	t, err := trust.Parse(data)
	if err != nil {
		f.t.Fatal(err)
	}
	return t
}

// carlReplaced gives carl, who had signed the policy, another key.
func carlReplaced(key ssh.Signer) func(*trust.Trust) {
	return func(t *trust.Trust) {
		t.Approvers = []trust.Person{{Name: "carl", Keys: []string{authorized(key.PublicKey())}}, t.Approvers[1], t.Approvers[2]}
	}
}

// sign has people sign the bundle that is there, and nobody else.
func (f *fixture) sign(by ...ssh.Signer) {
	f.t.Helper()
	data, err := os.ReadFile(f.config.Bundle)
	if err != nil {
		f.t.Fatal(err)
	}
	var sigs []byte
	for _, s := range by {
		block, err := sshsig.Sign(s, bundle.Namespace, data)
		if err != nil {
			f.t.Fatal(err)
		}
		sigs = append(sigs, block...)
	}
	f.write(f.config.Bundle+".sig", sigs, 0o644)
}

// nextPolicy waits for a record of the policy with this outcome and detail. Between two files of one step there may be others.
func (f *fixture) nextPolicy(outcome, detail string) {
	f.t.Helper()
	for {
		var r policyRecord
		if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil {
			f.t.Fatal(err)
		}
		if r.Outcome == outcome && strings.Contains(r.Detail, detail) {
			return
		}
	}
}

// distrusted wants anna turned away because nobody who has a say signed the policy.
func (f *fixture) distrusted() {
	f.t.Helper()
	if c, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
		c.Close()
		f.t.Error("anna was let in")
	}
	if r := f.closing(); r.Reason != policyDistrusted {
		f.t.Errorf("record: %+v, want %s", r, policyDistrusted)
	}
}

// TestTrustPolicyIsFollowed: a bundle that the old approvers signed lets nobody new in once another trust policy is in force, at once and after a
// restart; who is in stays; signed by those who have a say, it is in force again.
func TestTrustPolicyIsFollowed(t *testing.T) {
	f := newFixture(t)
	f.start()
	in := f.login("anna", f.anna.Signer(softkey.Always))
	carl, dora, emil := f.approvers[0], f.approvers[1], f.approvers[2]
	second := newSigner(t)
	f.follow(f.root(), carlReplaced(second), dora, emil)
	f.nextPolicy("kept_old", bundle.Unsigned) // carl and dora signed it
	f.distrusted()
	if _, _, err := in.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Errorf("who was in is out: %v", err)
	}
	if _, err := newServer(f.config, nil, nil, time.Now()); err == nil || !strings.Contains(err.Error(), bundle.Unsigned) {
		t.Errorf("a restart: got %v, want %s", err, bundle.Unsigned)
	}
	f.sign(carl, dora, second)
	f.nextPolicy("in_force", "")
	f.login("anna", f.anna.Signer(softkey.Always))
	if status := f.server.ruling.Load().fresh.status(); status.Outcome == string(policyDistrusted) {
		t.Errorf("status: %+v", status)
	}
	in.Close()
}

// TestTrustPolicyBreaks: what does not follow the trust policy in force, or leads back behind it, lets nobody new in, whatever it is.
func TestTrustPolicyBreaks(t *testing.T) {
	f := newFixture(t)
	f.config.TrustChain = filepath.Join(f.dir, "steps")
	carl, dora := f.approvers[0], f.approvers[1]
	root := f.root()
	second := f.follow(root, func(t *trust.Trust) { t.MinRelease = 2 }, carl, dora)
	f.start()
	f.login("anna", f.anna.Signer(softkey.Always)).Close()
	f.closing()
	dir := f.config.trustPlace().directory()
	for _, tt := range []struct {
		name   string
		lay    func()
		detail string
	}{
		{"a fork", func() {
			f.follow(root, func(t *trust.Trust) { t.MinRelease = 3 }, carl, dora)
		}, trust.Forked},
		{"back to the root", func() {
			if err := errors.Join(os.Remove(chain.File(dir, 2)), os.Remove(chain.SignatureFile(dir, 2))); err != nil {
				t.Fatal(err)
			}
		}, trust.Older},
		{"a step by too few", func() {
			f.follow(second, func(t *trust.Trust) { t.MinRelease = 4 }, carl)
		}, trust.OldThreshold},
		{"a jump", func() {
			next := *second
			next.Version = 3
			f.follow(&next, func(t *trust.Trust) { t.Previous = second.Sum() }, carl, dora)
			if err := os.Rename(chain.File(dir, 4), chain.File(dir, 3)); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(chain.SignatureFile(dir, 4), chain.SignatureFile(dir, 3)); err != nil {
				t.Fatal(err)
			}
		}, trust.Jump},
	} {
		tt.lay()
		f.nextPolicy("kept_old", tt.detail)
		f.distrusted()
		if _, err := newServer(f.config, nil, nil, time.Now()); err == nil || !strings.Contains(err.Error(), tt.detail) {
			t.Errorf("%s: a restart: got %v, want %s", tt.name, err, tt.detail)
		}
		if err := os.Remove(chain.File(dir, 3)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		f.follow(root, func(t *trust.Trust) { t.MinRelease = 2 }, carl, dora)
		f.nextPolicy("in_force", "")
		f.login("anna", f.anna.Signer(softkey.Always)).Close()
		f.closing()
	}
}

// TestTrustPolicyRoot: another file of the version that is in force is a fork, in the place of the root as well.
func TestTrustPolicyRoot(t *testing.T) {
	f := newFixture(t)
	f.start()
	f.login("anna", f.anna.Signer(softkey.Always)).Close()
	f.closing()
	f.writeTrust() // another first version, in the place of the one that was given
	f.nextPolicy("kept_old", trust.Forked)
	f.distrusted()
}
