package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/rebuild/extension"
	"mayfly/rebuild/join"
	"mayfly/rebuild/order"
	"mayfly/rebuild/ticket"
)

// ordered is a machine that takes what is signed, with the keys of who signs.
type ordered struct {
	m         *machine
	said      bytes.Buffer
	ana, bo   ssh.Signer
	signer    ssh.Signer
	restarted chan string
}

func newOrdered(t *testing.T, limit *deadline, up func() (time.Duration, error)) *ordered {
	t.Helper()
	o := &ordered{ana: testSigner(t), bo: testSigner(t), signer: testSigner(t), restarted: make(chan string, 9)}
	line := func(s ssh.Signer) []string { return []string{trust.FormatKey(s.PublicKey())} }
	policy := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2, TicketKeys: line(o.signer),
		Approvers: []trust.Person{{Name: "ana", Keys: line(o.ana)}, {Name: "bo", Keys: line(o.bo)}}}
	o.m = &machine{con: &console{w: &o.said}, papers: &papers{trust: policy, ticket: &ticket.Ticket{Server: "nl-1", Epoch: 7}},
		span: span{limit: limit, up: up}, restart: func(why string) { o.restarted <- why }}
	return o
}

func (o *ordered) sign(t *testing.T, namespace string, data []byte, by ...ssh.Signer) join.Signed {
	t.Helper()
	s := join.Signed{File: data}
	for _, k := range by {
		sig, err := sshsig.Sign(k, namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		s.Sig = append(s.Sig, sig...)
	}
	return s
}

func (o *ordered) extension(t *testing.T, epoch uint64, until time.Time, by ...ssh.Signer) join.Signed {
	t.Helper()
	e := extension.Extension{Kind: extension.Kind, Fleet: "lab", Server: "nl-1", Epoch: epoch, Made: time.Now().UTC().Truncate(time.Second), Until: until.UTC().Truncate(time.Second), Reason: "x"}
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return o.sign(t, extension.Namespace, data, by...)
}

// A life goes on when enough approvers say so, by the clock that nobody sets, and ends at the new deadline.
func TestTakeExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		up := func() (time.Duration, error) { return time.Since(began), nil }
		d := newDeadline()
		d.life(time.Hour)
		o := newOrdered(t, d, up)
		ended := make(chan time.Duration, 1)
		var soon []time.Duration
		go d.watch(t.Context(), up, func(time.Duration) { soon = append(soon, time.Since(began)) }, func(string) { ended <- time.Since(began) })
		time.Sleep(30*time.Minute + 300*time.Millisecond)
		at := func(d time.Duration) time.Time { return began.Add(d) }
		for _, tt := range []struct {
			name string
			x    join.Signed
			want string
			left time.Duration // until the end, counted from the boot
		}{
			{"one approver", o.extension(t, 7, at(2*time.Hour), o.ana), extension.Unsigned, time.Hour},
			{"the signer", o.extension(t, 7, at(2*time.Hour), o.ana, o.signer), extension.Unsigned, time.Hour},
			{"another life", o.extension(t, 8, at(2*time.Hour), o.ana, o.bo), extension.OtherLife, time.Hour},
			{"shorter", o.extension(t, 7, at(50*time.Minute), o.ana, o.bo), extension.Shorter, time.Hour},
			{"beyond seven days", o.extension(t, 7, at(extension.MaxLife+time.Second), o.ana, o.bo), extension.TooLong, time.Hour},
			{"good", o.extension(t, 7, at(2*time.Hour), o.ana, o.bo), "", 2 * time.Hour},
			{"again", o.extension(t, 7, at(2*time.Hour), o.ana, o.bo), "", 2 * time.Hour},
			{"and again", o.extension(t, 7, at(2*time.Hour), o.ana, o.bo), "", 2 * time.Hour},
			{"shorter than that", o.extension(t, 7, at(90*time.Minute), o.ana, o.bo), extension.Shorter, 2 * time.Hour},
			{"second", o.extension(t, 7, at(3*time.Hour), o.ana, o.bo), "", 3 * time.Hour},
			{"third", o.extension(t, 7, at(4*time.Hour), o.ana, o.bo), "", 4 * time.Hour},
			{"fourth", o.extension(t, 7, at(5*time.Hour), o.ana, o.bo), extension.TooMany, 4 * time.Hour},
		} {
			if got := codeOf(o.m.takeExtension(tt.x, time.Now())); got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
			if got := d.left(0); got != tt.left {
				t.Errorf("%s: the life lasts %s, want %s", tt.name, got, tt.left)
			}
		}
		if got := <-ended; got.Round(time.Second) != 4*time.Hour {
			t.Errorf("ended after %s, want 4h", got)
		}
		if len(soon) != 1 || soon[0].Round(time.Second) != 4*time.Hour-lastDrain {
			t.Errorf("users were let go after %v", soon)
		}
		if n := strings.Count(o.said.String(), "life goes on until"); n != 3 {
			t.Errorf("said %d times: %q", n, o.said.String())
		}
	})
}

// Who lets users go does not come back.
func TestExtensionAfterDrain(t *testing.T) {
	d := newDeadline()
	d.life(time.Hour)
	o := newOrdered(t, d, func() (time.Duration, error) { return time.Minute, nil })
	o.m.draining = true
	if got := codeOf(o.m.takeExtension(o.extension(t, 7, time.Now().Add(2*time.Hour), o.ana, o.bo), time.Now())); got != extension.Late {
		t.Errorf("got %q, want %q", got, extension.Late)
	}
}

// A signed order starts the machine anew, once, in the life that it is for.
func TestTakeOrder(t *testing.T) {
	o := newOrdered(t, newDeadline(), uptime)
	make := func(epoch uint64, by ssh.Signer) join.Signed {
		x := order.New("lab", "nl-1", epoch, time.Now(), time.Minute)
		data, err := x.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return o.sign(t, order.Namespace, data, by)
	}
	good := make(7, o.signer)
	late := time.Now().Add(2 * time.Minute)
	for _, tt := range []struct {
		name string
		x    join.Signed
		at   time.Time
		want string
	}{
		{"an approver's", make(7, o.ana), time.Now(), order.Unsigned},
		{"another life's", make(6, o.signer), time.Now(), order.OtherLife},
		{"expired", good, late, order.Expired},
		{"good", good, time.Now(), ""},
		{"again", good, time.Now(), order.Used},
	} {
		if got := codeOf(o.m.takeOrder(tt.x, tt.at)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if why := <-o.restarted; why != "signed order" {
		t.Errorf("restarted by %q", why)
	}
	if len(o.restarted) != 0 {
		t.Error("restarted twice")
	}
}
