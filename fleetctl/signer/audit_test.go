package signer

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/audit"
	"mayfly/inventory"
	"mayfly/rebuild/boot"
	"mayfly/rebuild/join"
)

// beBastion makes the test's server a bastion, before anything was started.
func (f *fleet) beBastion(t *testing.T) {
	t.Helper()
	s := &f.inv.Servers[0]
	s.Role, s.Capacity, s.Tunnel = inventory.RoleBastion, 0, netip.Prefix{}
	f.sign(t, 1)
}

// joined joins with a new machine, and returns a link for its audit records.
func (f *fleet) joined(t *testing.T) (link *join.AuditLink, epoch uint64, answer join.Response) {
	t.Helper()
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	if answer, err = c.Join(t.Context(), m.request(data, sig)); err != nil {
		t.Fatal(err)
	}
	link = c.AuditLink(func() tls.Certificate { return m.pair(t, answer.TLS) })
	t.Cleanup(link.Renewed)
	return link, tk.Epoch, answer
}

// replica is what the bastion and mayfly-init do together, as one function.
func replica(link *join.AuditLink) audit.Replica {
	return func(b audit.Batch) (kept audit.Kept, err error) {
		body, err := json.Marshal(b)
		if err != nil {
			return kept, err
		}
		status, answer, err := link.Send(context.Background(), body)
		if err != nil {
			return kept, err
		}
		if status != http.StatusOK {
			var r join.Refusal
			return kept, errors.Join(json.Unmarshal(answer, &r), &r)
		}
		return kept, json.Unmarshal(answer, &kept)
	}
}

func verified(t *testing.T, dir string, want uint64) {
	t.Helper()
	key, err := audit.ReadVerifier(filepath.Join(dir, audit.KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(dir, audit.Trusted{Log: key})
	if err != nil || r.Size != want || r.Unsigned != 0 {
		t.Errorf("%s: got %+v, %v, want %d records, all signed", dir, r, err, want)
	}
}

// TestAuditOutlives writes the audit log of two lives of a bastion by way of a real controller, over mTLS.
func TestAuditOutlives(t *testing.T) {
	f := newFleet(t)
	f.beBastion(t)
	f.start(t)
	link, epoch, answer := f.joined(t)
	if !strings.Contains(answer.Host, "ssh-ed25519-cert") {
		t.Errorf("host certificate %q", answer.Host)
	}
	open := func(link *join.AuditLink, epoch uint64) *audit.Log {
		t.Helper()
		l, err := audit.Open(audit.Options{Dir: filepath.Join(t.TempDir(), "log"), Name: boot.AuditName(f.inv.Name, testServer, epoch), Replica: replica(link)})
		if err != nil {
			t.Fatal(err)
		}
		wait(t, "the controller answers", func() bool { return l.Healthy() == nil })
		return l
	}
	first := open(link, epoch)
	began := time.Now()
	for i := range 20 {
		if err := first.AppendOpening("login", i); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a record is at the controller after %s", (time.Since(began) / 20).Round(10*time.Microsecond))
	dir := filepath.Join(f.dir, "audit", testServer, fmt.Sprint(epoch))
	n, err := audit.Read(dir, 0, func(uint64, []byte) error { return nil })
	if err != nil || n != 20 {
		t.Errorf("at the controller: got %d records, %v, want 20", n, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, boot.LifeCertificate)); err != nil || !strings.HasPrefix(string(answer.TLS), string(data)) {
		t.Errorf("the life's certificate is not beside it: %v", err)
	}

	// What another key or another name would write there is refused.
	for name, origin := range map[string]string{"another key": boot.AuditName(f.inv.Name, testServer, epoch), "another life's name": boot.AuditName(f.inv.Name, testServer, epoch+1)} {
		_, key, err := note.GenerateKey(rand.Reader, origin)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := replica(link)(audit.Batch{Log: key, First: 20}); reason(err) != join.AuditRefused {
			t.Errorf("%s: got %v, want %s", name, err, join.AuditRefused)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	verified(t, dir, 20)

	next, later, _ := f.joined(t)
	second := open(next, later)
	if err := second.AppendOpening("login", 1); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	verified(t, dir, 20)
	verified(t, filepath.Join(f.dir, "audit", testServer, fmt.Sprint(later)), 1)
	// The life before has ended, and writes no more.
	if _, err := replica(link)(audit.Batch{}); reason(err) != join.LifeUnknown {
		t.Errorf("the life before: got %v, want %s", err, join.LifeUnknown)
	}
}

// TestAuditOfNoBastion is a VPN server that would have a log kept, and nobody at all.
func TestAuditOfNoBastion(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	link, _, _ := f.joined(t)
	if _, err := replica(link)(audit.Batch{}); reason(err) != join.NameNotAllowed {
		t.Errorf("a VPN server: got %v, want %s", err, join.NameNotAllowed)
	}
	tk := f.newTicket(t, 9)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	stranger := c.AuditLink(func() tls.Certificate { return tls.Certificate{} })
	defer stranger.Renewed()
	if _, err := replica(stranger)(audit.Batch{}); reason(err) != join.CertificateBad {
		t.Errorf("a stranger: got %v, want %s", err, join.CertificateBad)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "audit")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was kept: %v", err)
	}
}
