package signer

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
	"mayfly/tunnel/checkin"
)

// TestEpochsAreNotUsedUp: whoever may ask for tickets moves a server's epochs on by a bounded step each, and a life's end stays in reach.
func TestEpochsAreNotUsedUp(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	for _, step := range []struct {
		epoch uint64
		want  string
	}{{maxEpochStep + 1, join.TicketAhead}, {maxEpochStep, ""}, {1, ""}, {2*maxEpochStep + 1, join.TicketAhead}, {2 * maxEpochStep, ""}} {
		if _, err := s.ticket(f.newTicket(t, step.epoch), now); reason(err) != step.want {
			t.Errorf("epoch %d: got %v, want %q", step.epoch, err, step.want)
		}
	}
	again, err := openLives(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.sign("se-1", 3*maxEpochStep+1, now, func() error { return nil }); reason(err) != join.TicketAhead {
		t.Errorf("after a restart: got %v, want %s", err, join.TicketAhead)
	}
}

// offline is a signer without its socket, at a clock of the test's own.
func offline(t *testing.T, f *fleet) *server {
	t.Helper()
	s, err := open(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.log.Close(), s.book.close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (f *fleet) ticketKey(t *testing.T) ssh.Signer {
	t.Helper()
	k, err := loadKeys(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	return k.ticket
}

func TestInitRefusesToOverwrite(t *testing.T) {
	f := newFleet(t)
	before, err := os.ReadFile(filepath.Join(f.dir, keyDir, tlsKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(f.dir, "lab.test", time.Now()); err == nil {
		t.Error("keys were made twice")
	}
	after, err := os.ReadFile(filepath.Join(f.dir, keyDir, tlsKeyFile))
	if err != nil || string(after) != string(before) {
		t.Errorf("the key changed: %v", err)
	}
}

func TestKeysMustBePrivate(t *testing.T) {
	f := newFleet(t)
	for _, name := range []string{tlsKeyFile, hostCAFile, ticketKeyFile, listKeyFile} {
		path := filepath.Join(f.dir, keyDir, name)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := loadKeys(f.dir); err == nil {
			t.Errorf("loaded %s though others can read it", name)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTicketRefuses(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	good := f.newTicket(t, 5)
	if _, err := s.ticket(good, now); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*ticket.Ticket)
		want   string
	}{
		{"other server", func(x *ticket.Ticket) { x.Server = "se-9" }, join.ServerUnknown},
		{"other address", func(x *ticket.Ticket) { x.Address = netip.MustParsePrefix("10.77.0.12/24") }, join.NotInInventory},
		{"other gateway", func(x *ticket.Ticket) { x.Gateway = netip.MustParseAddr("127.0.0.9") }, join.NotInInventory},
		{"other controller", func(x *ticket.Ticket) { x.Controller = "127.0.0.9:1" }, join.NotInInventory},
		{"other controller name", func(x *ticket.Ticket) { x.Name = "se-1.lab.test" }, join.NotInInventory},
		{"other domain", func(x *ticket.Ticket) { x.Domain = "evil.test" }, join.NotInInventory},
		{"other fleet", func(x *ticket.Ticket) { x.Fleet = "prod" }, join.NotInInventory},
		{"other CA", func(x *ticket.Ticket) { x.CA = string(selfSigned(t, newMachine(t).csr)) }, join.NotInInventory},
		{"other release host", func(x *ticket.Ticket) { x.Mirrors = []string{"http://192.0.2.1:80/releases/7/"} }, join.NotInInventory},
		{"older than policy's age", func(x *ticket.Ticket) { x.MaxAge = 25 * 3600 }, join.LifetimeTooLong},
		{"no age", func(x *ticket.Ticket) { x.MaxAge = 0 }, join.LifetimeTooLong},
		{"long window", func(x *ticket.Ticket) { x.NotAfter = x.NotAfter.Add(2 * time.Hour) }, join.LifetimeTooLong},
		{"past window", func(x *ticket.Ticket) { x.NotAfter = x.NotAfter.Add(-time.Hour) }, join.LifetimeTooLong},
		{"short secret", func(x *ticket.Ticket) { x.Secret = "00" }, join.RequestInvalid},
		{"epoch far ahead", func(x *ticket.Ticket) { x.Epoch = 5 + maxEpochStep + 1 }, join.TicketAhead},
		{"the last epoch of all", func(x *ticket.Ticket) { x.Epoch = math.MaxUint64 }, join.TicketAhead},
		{"epoch 0", func(x *ticket.Ticket) { x.Epoch = 0 }, join.RequestInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := good
			tt.change(&x)
			got, err := s.ticket(x, now)
			if reason(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if len(got.Signature) != 0 {
				t.Error("it was signed")
			}
		})
	}
}

func TestAdmitOnceAcrossRestart(t *testing.T) {
	f := newFleet(t)
	now := time.Now().UTC()
	m := newMachine(t)
	var signed signedFile
	admit := func(at time.Time, epoch uint64) error {
		s, err := open(f.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.log.Close(); err != nil {
				t.Error(err)
			}
		}()
		if epoch != 0 {
			fresh, err := s.ticket(f.newTicket(t, epoch), at)
			if err != nil {
				return err
			}
			signed = fresh
		}
		_, err = s.admit(m.request(signed.Data, signed.Signature), at)
		return err
	}
	if err := admit(now, 1); err != nil {
		t.Fatal(err)
	}
	if err := admit(now, 0); reason(err) != join.TicketUsed {
		t.Errorf("second use after a restart: got %v, want %s", err, join.TicketUsed)
	}
	if err := admit(now, 1); reason(err) != join.LifeRevoked {
		t.Errorf("another ticket of a revoked life: got %v, want %s", err, join.LifeRevoked)
	}
	if err := admit(now, 2); err != nil {
		t.Errorf("the next life: %v", err)
	}
	if err := admit(now, 1); reason(err) != join.TicketOlder {
		t.Errorf("an earlier epoch: got %v, want %s", err, join.TicketOlder)
	}
	if err := admit(now.Add(6*time.Minute), 0); reason(err) != ticket.Expired {
		t.Errorf("an expired ticket: got %v, want %s", err, ticket.Expired)
	}
}

// TestCertificatesAreShort: in a life of a day, no certificate is valid for longer than MaxServerLife.
func TestCertificatesAreShort(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	m := newMachine(t)
	tk := f.newTicket(t, 1)
	tk.MaxAge = int64(24 * time.Hour / time.Second)
	tk.Deadline = now.Add(24 * time.Hour).Truncate(time.Second)
	signed, err := s.ticket(tk, now)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, certs join.Certificates, now time.Time) {
		t.Helper()
		end := now.Add(MaxServerLife + time.Second)
		leaf := m.pair(t, certs.TLS).Leaf
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(certs.Host))
		if err != nil {
			t.Fatal(err)
		}
		host := time.Unix(int64(key.(*ssh.Certificate).ValidBefore), 0)
		if leaf.NotAfter.After(end) || host.After(end) || certs.NotAfter.After(end) {
			t.Errorf("%s: TLS until %s, host until %s, said %s; want none after %s", what, leaf.NotAfter, host, certs.NotAfter, end)
		}
		if leaf.NotAfter.Before(now.Add(MaxServerLife - time.Minute)) {
			t.Errorf("%s: TLS until %s only", what, leaf.NotAfter)
		}
	}
	certs, err := s.admit(m.request(signed.Data, signed.Signature), now)
	if err != nil {
		t.Fatal(err)
	}
	check("admitted", certs.Certificates, now)
	later := now.Add(45 * time.Minute)
	renewed, err := s.renew(m.renewal(certs.TLS), later)
	if err != nil {
		t.Fatal(err)
	}
	check("renewed", renewed, later)
}

func TestRenewEnds(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	m := newMachine(t)
	signed, err := s.ticket(f.newTicket(t, 1), now)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := s.admit(m.request(signed.Data, signed.Signature), now)
	if err != nil {
		t.Fatal(err)
	}
	later := now.Add(45 * time.Minute)
	renewed, err := s.renew(m.renewal(certs.TLS), later)
	if err != nil {
		t.Fatal(err)
	}
	if end := now.Add(time.Hour + time.Second); renewed.NotAfter.After(end) {
		t.Errorf("renewed until %s, the life ends at %s", renewed.NotAfter, end)
	}
	if _, err := s.renew(m.renewal(renewed.TLS), now.Add(61*time.Minute)); reason(err) != join.CertificateBad {
		t.Errorf("an expired certificate: got %v, want %s", err, join.CertificateBad)
	}
	if _, err := s.renew(m.renewal(selfSigned(t, m.csr)), later); reason(err) != join.CertificateBad {
		t.Errorf("another CA's certificate: got %v, want %s", err, join.CertificateBad)
	}
	other := newMachine(t)
	swapped := m
	swapped.host = other.host
	if _, err := s.renew(swapped.renewal(renewed.TLS), later); reason(err) != join.LifeUnknown {
		t.Errorf("another host key: got %v, want %s", err, join.LifeUnknown)
	}
}

func TestRate(t *testing.T) {
	var r rate
	now := time.Now()
	for i := range 3 {
		if err := r.allow("admissions", "se-1", 3, now.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.allow("admissions", "se-1", 3, now.Add(59*time.Minute)); reason(err) != join.RateLimited {
		t.Errorf("got %v, want %s", err, join.RateLimited)
	}
	for _, ok := range []error{r.allow("admissions", "se-2", 3, now), r.allow("renewals", "se-1", 3, now), r.allow("admissions", "se-1", 3, now.Add(time.Hour))} {
		if ok != nil {
			t.Error(ok)
		}
	}
}

func TestNames(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	m := newMachine(t)
	for name, want := range map[string]string{"controller": "", "checkin": "", "se-1": join.NameNotAllowed, "": join.NameNotAllowed, "controller.lab.test": join.NameNotAllowed} {
		if _, err := s.service(serviceRequest{Name: name, CSR: m.csr}, now); reason(err) != want {
			t.Errorf("service %q: got %v, want %q", name, err, want)
		}
	}
	for name, want := range map[string]string{"b1": "", "se-1": join.NameNotAllowed, "b2": join.NameNotAllowed, "": join.NameNotAllowed} {
		if _, err := s.host(hostRequest{Bastion: name, HostKey: m.host}, now); reason(err) != want {
			t.Errorf("bastion %q: got %v, want %q", name, err, want)
		}
	}
	a, err := s.host(hostRequest{Bastion: "b1", HostKey: m.host}, now)
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(key.(*ssh.Certificate).ValidPrincipals, " "); got != "b1 b1.lab.test 127.0.0.2" {
		t.Errorf("principals %q", got)
	}
}

func TestList(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC().Truncate(time.Second)
	good := checkin.List{Kind: "mayfly-list/1", Fleet: "lab", Issued: now, Expires: now.Add(2 * time.Minute), Servers: []checkin.Server{
		{Name: "se-1.lab.test", Region: "se", Address: netip.MustParseAddr("10.77.0.11"), Register: 7443},
	}}
	signed, err := s.list(good, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.VerifyAny([]string{f.public.ListKey}, checkin.Namespace, signed.List, signed.Signature); err != nil {
		t.Error(err)
	}
	tests := []struct {
		name   string
		change func(*checkin.List)
		want   string
	}{
		{"fleet", func(l *checkin.List) { l.Fleet = "prod" }, join.NotInInventory},
		{"address", func(l *checkin.List) { l.Servers[0].Address = netip.MustParseAddr("192.0.2.1") }, join.NotInInventory},
		{"region", func(l *checkin.List) { l.Servers[0].Region = "nl" }, join.NotInInventory},
		{"server", func(l *checkin.List) { l.Servers[0].Name = "se-2.lab.test" }, join.ServerUnknown},
		{"twice", func(l *checkin.List) { l.Servers = append(l.Servers, l.Servers[0]) }, join.ServerUnknown},
		{"long", func(l *checkin.List) { l.Expires = l.Issued.Add(time.Hour) }, join.LifetimeTooLong},
		{"backwards", func(l *checkin.List) { l.Expires = l.Issued.Add(-time.Second) }, join.LifetimeTooLong},
		{"another time", func(l *checkin.List) { l.Issued = l.Issued.Add(-time.Hour) }, join.RequestInvalid},
	}
	for _, tt := range tests {
		l := good
		l.Servers = append([]checkin.Server(nil), good.Servers...)
		tt.change(&l)
		if _, err := s.list(l, now); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestOlderBundleIsRefused(t *testing.T) {
	f := newFleet(t)
	f.sign(t, 5)
	now := time.Now().UTC()
	if _, err := offline(t, f).rules.bundle(now); err != nil {
		t.Fatal(err)
	}
	f.sign(t, 4)
	r, err := loadRules(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.bundle(now); reason(err) != join.BundleMissing {
		t.Errorf("got %v, want %s", err, join.BundleMissing)
	}
}
