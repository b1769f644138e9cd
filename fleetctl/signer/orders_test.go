package signer

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/policies"
	"mayfly/policies/request"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/testenv/softkey"
)

// operators are a fleet's engineers with keys, under a policy with [[operator]].
type operators struct {
	*fleet
	keys map[string]*softkey.Key
}

func newOperators(t *testing.T) *operators {
	t.Helper()
	o := &operators{newFleet(t), map[string]*softkey.Key{}}
	o.change = func(p *policies.Policy) {
		p.Engineers = nil
		for _, name := range []string{"ana", "bo", "cy"} {
			if o.keys[name] == nil {
				key, err := softkey.New(rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				o.keys[name] = key
			}
			p.Engineers = append(p.Engineers, policies.Engineer{Name: name, Keys: []policies.Key{{Public: o.keys[name].Authorized(), Evidence: "test:lab"}}})
		}
		p.Operators = []policies.Operator{
			{Engineers: []string{"ana", "bo"}, Actions: []string{policies.ActionCertify, policies.ActionCARotate, policies.ActionCARetire, policies.ActionCAOverride}},
			{Engineers: []string{"ana", "bo"}, Actions: []string{policies.ActionDrain}, People: 2},
		}
	}
	o.sign(t, 1)
	return o
}

// order is a request that these people have signed.
func (o *operators) order(t *testing.T, fleet string, order request.Order, made time.Time, by ...string) *request.Signed {
	t.Helper()
	data, err := request.New(fleet, order, "disk full", made, time.Hour).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s := &request.Signed{Data: data}
	for _, name := range by {
		sig, err := sshsig.Sign(o.keys[name].Signer(softkey.Always), request.Namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		s.Signatures = append(s.Signatures, sig...)
	}
	return s
}

// records are those of an event in one of the signer's logs.
func records(t *testing.T, dir, log, event string) []map[string]any {
	t.Helper()
	var list []map[string]any
	_, err := audit.Read(filepath.Join(dir, keyDir, log), 0, func(_ uint64, line []byte) error {
		var r struct {
			Event  string         `json:"event"`
			Record map[string]any `json:"record"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		if r.Event == event {
			list = append(list, r.Record)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestDrainedTakesPeople: the signer believes people and not whoever holds its socket, and each request once.
func TestDrainedTakesPeople(t *testing.T) {
	o := newOperators(t)
	s := offline(t, o.fleet)
	now := time.Now().UTC()
	m := newMachine(t)
	signed, err := s.ticket(o.newTicket(t, 1), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.admit(m.request(signed.Data, signed.Signature), now); err != nil {
		t.Fatal(err)
	}
	half := 30 * time.Minute
	ask := func(s *server, leave *request.Signed, span, length time.Duration) error {
		_, err := s.drained(drainedRequest{Server: "se-1", Epoch: 1, Expires: now.Add(length), For: span, Request: leave}, now)
		return err
	}
	drain := request.Drain("se-1", half)
	good := o.order(t, "lab", drain, now, "ana", "bo")
	broken := &request.Signed{Data: append(slices.Clone(good.Data), ' '), Signatures: good.Signatures}
	for _, tt := range []struct {
		name  string
		leave *request.Signed
		want  string
	}{
		{"none", nil, request.Missing},
		{"unsigned", o.order(t, "lab", drain, now), request.Unsigned},
		{"one of two", o.order(t, "lab", drain, now, "ana"), request.TooFew},
		{"one twice", o.order(t, "lab", drain, now, "ana", "ana"), request.TooFew},
		{"one and who may not", o.order(t, "lab", drain, now, "ana", "cy"), request.TooFew},
		{"who may not", o.order(t, "lab", drain, now, "cy"), request.NotAllowed},
		{"another fleet", o.order(t, "other", drain, now, "ana", "bo"), request.OtherFleet},
		{"expired", o.order(t, "lab", drain, now.Add(-time.Hour), "ana", "bo"), request.Expired},
		{"early", o.order(t, "lab", drain, now.Add(2*time.Minute), "ana", "bo"), request.Early},
		{"another server", o.order(t, "lab", request.Drain("se-2", half), now, "ana", "bo"), request.Other},
		{"shorter", o.order(t, "lab", request.Drain("se-1", time.Minute), now, "ana", "bo"), request.Other},
		{"changed", broken, request.Malformed},
	} {
		if err := ask(s, tt.leave, half, half); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if err := ask(s, good, half, half+policies.DrainedMargin+time.Second); reason(err) != join.LifetimeTooLong {
		t.Errorf("for longer than people signed: got %v", err)
	}
	if got := records(t, o.dir, logDir, "request"); len(got) != 0 {
		t.Errorf("on record before anything was done: %v", got)
	}
	if err := ask(s, good, half, half+policies.DrainedMargin); err != nil { // nothing that was refused has used it up
		t.Fatal(err)
	}
	if err := ask(s, good, half, half); reason(err) != request.Used {
		t.Errorf("again: got %v, want %s", err, request.Used)
	}
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := open(o.dir) // what was used is used after a restart
	if err != nil {
		t.Fatal(err)
	}
	s.log = again.log // closed by offline
	if err := ask(again, good, half, half); reason(err) != request.Used {
		t.Errorf("again, after a restart: got %v, want %s", err, request.Used)
	}
	got := records(t, o.dir, logDir, "request")
	if len(got) != 1 {
		t.Fatalf("got %d records, want 1: %v", len(got), got)
	}
	text := fmt.Sprint(got[0])
	for _, want := range []string{"action:drain", "subject:se-1", "for:30m0s", "reason:disk full", "sha256:" + sum(good.Data), "name:ana", "name:bo", "evidence:test:lab", "key:" + policies.Fingerprint(o.keys["ana"].Authorized()), "test:true"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "without_request") {
		t.Errorf("on record without a request: %s", text)
	}
}

// TestRequestOverSocket: what people signed comes to the signer as they signed it.
func TestRequestOverSocket(t *testing.T) {
	o := newOperators(t)
	o.start(t)
	_, data, sig := o.begin(t)
	m := newMachine(t)
	if _, err := o.client.Admit(t.Context(), m.request(data, sig)); err != nil {
		t.Fatal(err)
	}
	s, err := o.store.Server(t.Context(), testServer)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	drain := func(leave *request.Signed) error {
		_, _, err := o.client.Drained(t.Context(), testServer, s.Epoch, now.Add(time.Minute), time.Minute, leave)
		return err
	}
	key := trust.FormatKey(newSSHSigner(t).PublicKey())
	host := func(leave *request.Signed) error {
		_, _, err := o.client.Host(t.Context(), "b1", key, leave)
		return err
	}
	drained, certified := o.order(t, "lab", request.Drain(testServer, time.Minute), now, "ana", "bo"), o.order(t, "lab", request.Certify("b1", key), now, "ana")
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"drain, none", drain(nil), request.Missing}, {"drain, another's", drain(certified), request.Other}, {"drain", drain(drained), ""}, {"drain again", drain(drained), request.Used},
		{"host, none", host(nil), request.Missing}, {"host, another's", host(drained), request.Other}, {"host", host(certified), ""}, {"host again", host(nil), ""},
	} {
		if reason(tt.err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, tt.err, tt.want)
		}
	}
}

// TestCertifyTakesPeople: a bastion's key that was never certified takes a request, the same key again none.
func TestCertifyTakesPeople(t *testing.T) {
	o := newOperators(t)
	s := offline(t, o.fleet)
	now := time.Now().UTC()
	first, second := trust.FormatKey(newSSHSigner(t).PublicKey()), trust.FormatKey(newSSHSigner(t).PublicKey())
	ask := func(key string, leave *request.Signed) error {
		_, err := s.host(hostRequest{Bastion: "b1", HostKey: key, Request: leave}, now)
		return err
	}
	leave := o.order(t, "lab", request.Certify("b1", first), now, "bo")
	for _, tt := range []struct {
		name, key string
		leave     *request.Signed
		want      string
	}{
		{"none", first, nil, request.Missing},
		{"of who may not", first, o.order(t, "lab", request.Certify("b1", first), now, "cy"), request.NotAllowed},
		{"another key", second, leave, request.Other},
		{"the first time", first, leave, ""},
		{"the same key again", first, nil, ""},
		{"the same key and an old request", first, leave, ""},
		{"another key, without", second, nil, request.Missing},
		{"another key", second, o.order(t, "lab", request.Certify("b1", second), now, "ana"), ""},
		{"back to the first, without", first, nil, request.Missing},
		{"back to the first, by the old request", first, leave, request.Used},
	} {
		if err := ask(tt.key, tt.leave); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if got := records(t, o.dir, logDir, "request"); len(got) != 2 {
		t.Errorf("got %d records of requests, want 2: %v", len(got), got)
	}
	// A real fleet without [[operator]] certifies nothing new; a test fleet does, and says so.
	o.change = func(p *policies.Policy) {}
	o.sign(t, 2)
	a, err := s.host(hostRequest{Bastion: "b1", HostKey: first}, now)
	if err != nil || !a.Without {
		t.Errorf("without [[operator]] in a test fleet: %+v, %v", a, err)
	}
	got := records(t, o.dir, logDir, "request")
	if last := got[len(got)-1]; last["without_request"] != true || last["test"] != true {
		t.Errorf("on record: %v", last)
	}
	b, err := s.rules.bundle(now)
	if err != nil {
		t.Fatal(err)
	}
	b.Inventory.Test = false
	if err := ask(second, nil); reason(err) != request.NoOperators {
		t.Errorf("without [[operator]] in a real fleet: got %v, want %s", err, request.NoOperators)
	}
}

// TestCATakesPeople: `fleetctl ca` is the process that acts, and asks as the signer does.
func TestCATakesPeople(t *testing.T) {
	o := newOperators(t)
	now := time.Now().UTC()
	nowhere := func(HostCAs) error { return nil }
	next := func(l *Leave) error {
		_, err := NextHostCA(o.dir, "lab.test", l, now, nowhere)
		return err
	}
	refuse := func(what string, err error, want string) {
		t.Helper()
		if reason(err) != want || hint.Of(err) == "" {
			t.Errorf("%s: got %v with hint %q, want %s", what, err, hint.Of(err), want)
		}
	}
	files := func() int {
		t.Helper()
		list, err := filepath.Glob(filepath.Join(o.dir, keyDir, hostCAFile+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := files()
	refuse("none", next(&Leave{}), request.Missing)
	refuse("who may not", next(&Leave{Request: o.order(t, "lab", request.CARotate(request.NewCA), now, "cy")}), request.NotAllowed)
	if got := files(); got != before+1 { // the lock
		t.Errorf("%d files of CAs, want %d: a key was made by nobody's leave", got, before+1)
	}
	leave := o.order(t, "lab", request.CARotate(request.NewCA), now, "ana")
	if err := next(&Leave{Request: leave}); err != nil {
		t.Fatal(err)
	}
	l, err := LoadHostCAs(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	fresh, old := l.CAs[l.Find(CANext)].Fingerprint(), l.Current().Fingerprint()
	use := func(overlap time.Duration, s *request.Signed, at time.Time) error {
		_, err := UseHostCA(o.dir, overlap, &Leave{Request: s}, at)
		return err
	}
	refuse("used before its time by one", use(0, o.order(t, "lab", request.CAHurry(fresh, 0), now, "ana"), now), request.TooFew)
	refuse("used before its time by a rotation's request", use(0, o.order(t, "lab", request.CARotate(fresh), now, "ana", "bo"), now), request.Other)
	refuse("used before its time by another haste", use(0, o.order(t, "lab", request.CAHurry(fresh, time.Hour), now, "ana", "bo"), now), request.Other)
	refuse("the request that made it", use(0, leave, now), request.Other)
	if err := use(0, o.order(t, "lab", request.CAHurry(fresh, 0), now, "ana", "bo"), now); err != nil {
		t.Fatal(err)
	}
	retire := func(compromised bool, s *request.Signed, at time.Time) error {
		_, err := RetireHostCA(o.dir, old, compromised, &Leave{Request: s}, at)
		return err
	}
	refuse("compromised, by one", retire(true, o.order(t, "lab", request.CACompromised(old), now, "bo"), now), request.TooFew)
	later := now.Add(MaxHostLife)
	refuse("retired by nobody", retire(false, nil, later), request.Missing)
	refuse("of another one", retire(false, o.order(t, "lab", request.CARetire(fresh), later, "bo"), later), request.Other)
	if err := retire(false, o.order(t, "lab", request.CARetire(old), later, "bo"), later); err != nil {
		t.Fatal(err)
	}
	if err := retire(false, nil, later); err != nil {
		t.Errorf("retired before: nothing is done, and nobody is asked: %v", err)
	}
	refuse("the next one, by the request of the first", next(&Leave{Request: leave}), request.Used)
	if got := records(t, o.dir, caLogDir, "request"); len(got) != 3 {
		t.Errorf("got %d records of requests, want 3: %v", len(got), got)
	}
	log := filepath.Join(o.dir, keyDir, caLogDir)
	key, err := audit.ReadVerifier(filepath.Join(log, audit.KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := audit.Verify(log, audit.Trusted{Log: key}); err != nil || r.Size < 3 || key.Name() != "mayfly/lab/cas" {
		t.Errorf("the log of CAs, %s: %+v, %v", key.Name(), r, err)
	}
}
