package signer

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/inventory/store"
	"mayfly/rebuild/extension"
	"mayfly/rebuild/join"
)

func (f *fleet) extension(t *testing.T, epoch uint64, made, until time.Time, by ...ssh.Signer) extendRequest {
	t.Helper()
	e := extension.Extension{Kind: extension.Kind, Fleet: f.inv.Name, Server: testServer, Epoch: epoch, Made: made.UTC().Truncate(time.Second),
		Until: until.UTC().Truncate(time.Second), Reason: "no power"}
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := extendRequest{Data: data}
	for _, k := range by {
		sig, err := sshsig.Sign(k, extension.Namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		r.Signatures = append(r.Signatures, sig...)
	}
	return r
}

// TestExtend: a life gets certificates beyond its end when enough approvers have signed that, and not otherwise; the ledger shows it.
func TestExtend(t *testing.T) {
	f := withLedger(t)
	s, err := open(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := f.release(t, 7, nil)
	now := time.Now().UTC().Truncate(time.Second)
	signed, err := s.ticket(f.ticketFor(t, 1, 7, data), now)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	got, err := s.admit(m.request(signed.Data, signed.Signature), now)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.lives.load(testServer)
	if err != nil {
		t.Fatal(err)
	}
	ends := v.Ends
	if v.Began.IsZero() || v.Began.After(now) {
		t.Fatalf("the life began at %s, joined at %s", v.Began, now)
	}
	tests := []struct {
		name string
		r    extendRequest
		at   time.Time
		want string
	}{
		{"one approver", f.extension(t, 1, now, ends.Add(time.Hour), f.people[0]), now, extension.Unsigned},
		{"one approver twice", f.extension(t, 1, now, ends.Add(time.Hour), f.people[0], f.people[0]), now, extension.Unsigned},
		{"by the signer's own key", f.extension(t, 1, now, ends.Add(time.Hour), f.people[0], f.ticketKey(t)), now, extension.Unsigned},
		{"another life", f.extension(t, 2, now, ends.Add(time.Hour), f.people...), now, extension.OtherLife},
		{"shorter", f.extension(t, 1, now, ends, f.people...), now, extension.Shorter},
		{"too long", f.extension(t, 1, now.Add(30*time.Second), v.Began.Add(extension.MaxLife+time.Second), f.people...), now, extension.TooLong},
		{"the life is over", f.extension(t, 1, now, ends.Add(2*time.Hour), f.people...), ends, join.LifeOver},
		{"nonsense", extendRequest{Data: []byte("{}"), Signatures: []byte("x")}, now, extension.Malformed},
	}
	for _, tt := range tests {
		if _, err := s.extend(tt.r, tt.at); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if after, err := s.lives.load(testServer); err != nil || !after.Ends.Equal(ends) || after.Extended != 0 {
		t.Fatalf("after refusals the life is %+v, %v", after, err)
	}

	for i := range extension.MaxOfALife {
		until := ends.Add(time.Duration(i+1) * time.Hour)
		r := f.extension(t, 1, now, until, f.people...)
		for range 2 { // the second time it is in force already
			if a, err := s.extend(r, now); err != nil || !a.Ends.Equal(until) || a.Epoch != 1 || a.Server != testServer {
				t.Errorf("extension %d: got %+v, %v", i, a, err)
			}
		}
	}
	if _, err := s.extend(f.extension(t, 1, now, ends.Add(9*time.Hour), f.people...), now); reason(err) != extension.TooMany {
		t.Errorf("once too often: got %v", err)
	}
	// Its keys get certificates after the first end, up to the last one.
	renewal := m.renewal(got.TLS)
	if c, err := s.renew(renewal, ends.Add(-time.Second)); err != nil || !c.NotAfter.After(ends) {
		t.Errorf("renewed until %s, the first end is %s: %v", c.NotAfter, ends, err)
	}
	var kept []string
	for _, e := range f.entries(t) {
		if e.Extend != nil {
			kept = append(kept, e.Extend.Deadline.Sub(ends).String())
			if e.Extend.Statement == "" || !strings.Contains(e.Extend.Signatures, "SSH SIGNATURE") {
				t.Errorf("nobody can check the record %+v", e.Extend)
			}
		}
	}
	if strings.Join(kept, " ") != "1h0m0s 2h0m0s 3h0m0s" {
		t.Errorf("the ledger has extensions to %v", kept)
	}
	// A signer that starts anew knows.
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.book.close(); err != nil {
		t.Fatal(err)
	}
	again := offline(t, f)
	if v := again.book.server(testServer); !v.deadline.Equal(ends.Add(3 * time.Hour)) {
		t.Errorf("after a restart the ledger's deadline is %s", v.deadline)
	}
}

// TestExtensionTravels: what the store holds for a life reaches its server, once a stream.
func TestExtensionTravels(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	ctx := t.Context()
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	answer, err := c.Join(ctx, m.request(data, sig))
	if err != nil {
		t.Fatal(err)
	}
	before, err := f.store.Server(ctx, testServer)
	if err != nil {
		t.Fatal(err)
	}
	if before.Deadline.After(tk.Deadline) {
		t.Errorf("the store's deadline is %s, the ticket's %s", before.Deadline, tk.Deadline)
	}
	r := f.extension(t, tk.Epoch, time.Now(), tk.Deadline.Add(time.Hour), f.people...)
	ends, err := f.client.Extend(ctx, r.Data, r.Signatures)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Extend(ctx, testServer, ends, store.Extension{Epoch: tk.Epoch, Statement: r.Data, Sig: r.Signatures}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		conn, err := c.Stream(ctx, m.pair(t, answer.TLS))
		if err != nil {
			t.Fatal(err)
		}
		frames := join.NewFrames(conn, join.MaxToServer)
		for got := (join.ToServer{}); got.Extension == nil; {
			if got, err = frames.ToServer(); err != nil {
				t.Fatal(err)
			}
			if x := got.Extension; x != nil && (string(x.File) != string(r.Data) || string(x.Sig) != string(r.Signatures)) {
				t.Errorf("another extension arrived: %q", x.File)
			}
		}
		if err := f.store.OrderDrain(ctx, testServer, tk.Epoch, time.Second); err != nil {
			t.Fatal(err)
		}
		if got, err := frames.ToServer(); err != nil || got.Drain == nil {
			t.Errorf("after the extension: got %+v, %v; want the drain", got, err)
		}
		conn.Close()
	}
}
