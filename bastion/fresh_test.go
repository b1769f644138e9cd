package bastion

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/testenv/softkey"
)

// stubWitness is a witness that says what the test wants.
type stubWitness struct {
	name string
	key  ssh.Signer
	url  string

	mu      sync.Mutex
	version uint64
	sum     string
	silent  bool
	asked   int
	nonces  map[string]bool
}

// witnessed gives the fixture two witnesses, both of which must confirm.
func witnessed(f *fixture) {
	f.t.Helper()
	for _, name := range []string{"ida", "jon"} {
		w := &stubWitness{name: name, key: newSigner(f.t), nonces: map[string]bool{}}
		server := httptest.NewServer(w)
		f.t.Cleanup(server.Close)
		w.url = server.URL
		f.witnesses = append(f.witnesses, w)
		f.config.Witnesses = append(f.config.Witnesses, w.url+"/")
	}
	f.writeTrust()
}

// publish tells the witnesses of the bundle that lies there.
func (f *fixture) publish(version uint64) {
	f.t.Helper()
	data, err := os.ReadFile(f.config.Bundle)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, w := range f.witnesses {
		w.say(version, witness.Sum(data))
	}
}

func (w *stubWitness) say(version uint64, sum string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version, w.sum, w.silent = version, sum, version == 0
}

func (w *stubWitness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	q, err := witness.ParseQuestion(data)
	if err != nil || r.URL.Path != witness.PathAnswer || r.Method != http.MethodPost || w.nonces[q.Nonce] {
		http.Error(rw, "not a question, or one that was asked before", http.StatusBadRequest)
		return
	}
	w.nonces[q.Nonce] = true
	w.asked++
	if w.silent || w.version == 0 {
		http.Error(rw, "silent", http.StatusServiceUnavailable)
		return
	}
	answer, err := witness.Sign(w.key, w.name, q, w.version, w.sum, time.Now())
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Write(answer)
}

// TestLoadAsksWitnesses starts under each thing that witnesses can say.
func TestLoadAsksWitnesses(t *testing.T) {
	other := witness.Sum([]byte("other"))
	for _, tt := range []struct {
		name string
		say  func(*fixture)
		want string
	}{
		{"both confirm", func(*fixture) {}, ""},
		{"one is silent", func(f *fixture) { f.witnesses[1].say(0, "") }, witness.Missing},
		{"one knows an older", func(f *fixture) { f.policy.Version = 2; f.writeBundle(2); f.publish(2); f.witnesses[1].say(1, other) }, witness.Missing},
		{"one knows a newer", func(f *fixture) { f.witnesses[1].say(2, other) }, witness.Frozen},
		{"one knows another", func(f *fixture) { f.witnesses[1].say(1, other) }, witness.Forked},
		{"one is not configured", func(f *fixture) { f.config.Witnesses = f.config.Witnesses[:1] }, "2 witnesses must confirm a policy, and the configuration names 1"},
		{"one is another", func(f *fixture) { f.witnesses[1].key = newSigner(t) }, witness.Missing},
		{"one sends to another place", func(f *fixture) {
			s := httptest.NewServer(http.RedirectHandler(f.witnesses[1].url+witness.PathAnswer, http.StatusTemporaryRedirect))
			t.Cleanup(s.Close)
			f.config.Witnesses[1] = s.URL
		}, witness.Missing},
		{"one sends too much", func(f *fixture) {
			s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				io.WriteString(rw, strings.Repeat(" ", witness.MaxAnswer+1))
			}))
			t.Cleanup(s.Close)
			f.config.Witnesses[1] = s.URL
		}, witness.Missing},
	} {
		f := newFixture(t)
		witnessed(f)
		f.publish(1)
		tt.say(f)
		_, err := load(f.config, seenPolicy{}, time.Now())
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			report, err := Check(f.config, time.Now())
			if err != nil || report.Witness.Threshold != 2 || strings.Join(report.Witness.Confirmed, " ") != "ida jon" {
				t.Errorf("%s: check: %+v, %v", tt.name, report.Witness, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, hint %q, want %q", tt.name, err, hint.Of(err), tt.want)
		}
	}
}

// TestReloadAsksWitnesses brings a policy that takes somebody out before the witnesses know it, and after.
func TestReloadAsksWitnesses(t *testing.T) {
	f := newFixture(t)
	witnessed(f)
	f.publish(1)
	f.start()
	f.login("bert", f.bert.Signer(softkey.Always))

	f.policy.Version, f.policy.Engineers, f.policy.Grants = 2, f.policy.Engineers[:1], f.policy.Grants[:1]
	f.writeBundle(2)
	if r := f.reloaded(keptOld); r.Version != 1 || !strings.Contains(r.Detail, witness.Missing) {
		t.Errorf("before the witnesses know it: %+v", r)
	}
	f.publish(2)
	// Nobody asks for it: it is tried again by itself.
	for {
		var r policyRecord
		if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil {
			t.Fatal(err)
		}
		if r.Outcome == "in_force" && r.Version == 2 && r.Cut == 1 {
			break
		}
	}
	if r := f.closing(); r.User != "bert" || r.Ended != endPolicy || r.Reason != policies.UserUnknown {
		t.Errorf("closing record: %+v", r)
	}
	// A new certificate alone is no reason to ask.
	asked := f.witnesses[0].asked
	f.writeHostKeys(time.Now().Add(2 * time.Hour))
	f.reloaded(func(r policyRecord) bool { return r.Outcome == "in_force" })
	if got := f.witnesses[0].asked; got != asked {
		t.Errorf("asked %d times for a new certificate", got-asked)
	}
}

// TestSilentWitnessesDeny lets the confirmation of a policy in force run out: nobody new gets in, with the reason on record.
func TestSilentWitnessesDeny(t *testing.T) {
	for _, tt := range []struct {
		last witness.Verdict
		want policies.Reason
	}{
		{witness.Verdict{Reason: witness.Missing}, witnessMissing},
		{witness.Verdict{Reason: witness.Frozen, Newer: 2}, policyFrozen},
		{witness.Verdict{Reason: witness.Forked}, policyForked},
		{witness.Verdict{Fresh: true, Reason: witness.Confirmed}, witnessMissing}, // confirmed once, and not asked since
	} {
		t.Run(tt.last.Reason, func(t *testing.T) {
			f := newFixture(t)
			witnessed(f)
			f.publish(1)
			f.target("10.77.0.11:22", echo)
			f.start()
			in := f.login("anna", f.anna.Signer(softkey.Always))
			open, err := in.Dial("tcp", "se-1:22")
			if err != nil {
				t.Fatal(err)
			}
			c := f.server.ruling.Load().fresh
			c.mu.Lock()
			c.at, c.last = time.Now().Add(-time.Hour-time.Second), tt.last
			c.mu.Unlock()
			if _, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
				t.Fatal("somebody got in")
			}
			if r := f.closing(); r.Outcome != "refused" || r.Reason != tt.want || !strings.Contains(r.Detail, "1h0m1s ago") {
				t.Errorf("%s: record %+v", tt.want, r)
			}
			if _, err := in.Dial("tcp", "se-1:22"); err == nil || !strings.Contains(err.Error(), string(tt.want)) {
				t.Errorf("%s: a new target of a live session: %v", tt.want, err)
			}
			// What is open goes on.
			io.WriteString(open, "x")
			if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
				t.Errorf("%s: an open target: %v", tt.want, err)
			}
			in.Close()
			f.closing()
		})
	}
}

// TestGrace goes through a day in which the witnesses fall silent and come back.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newSigner(t)
		tr := &trust.Trust{Fleet: "lab", WitnessThreshold: 1, Witnesses: []trust.Person{{Name: "ida", Keys: []string{authorized(key.PublicKey())}}}}
		var silent atomic.Bool
		var version atomic.Uint64
		version.Store(1)
		c := &confirmation{trust: tr, version: 1, sum: witness.Sum(nil), grace: time.Hour, at: time.Now(),
			ask: func(_ context.Context, q witness.Question, _ func([][]byte) bool) [][]byte {
				if silent.Load() {
					return nil
				}
				a, err := witness.Sign(key, "ida", q, version.Load(), witness.Sum(nil), time.Now())
				if err != nil {
					t.Error(err)
				}
				return [][]byte{a}
			}}
		records := &recorder{}
		s := &Server{audit: records, log: quiet}
		s.ruling.Store(&ruling{fresh: c})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.keepFresh(ctx); close(done) }()
		opens := func(want policies.Reason) {
			t.Helper()
			synctest.Wait()
			if v := c.opens(time.Now()); v.Reason != want || v.Allow != (want == policies.Allowed) {
				t.Errorf("got %+v, want %s", v, want)
			}
		}
		time.Sleep(12*time.Hour + time.Second)
		opens(policies.Allowed)
		silent.Store(true)
		time.Sleep(time.Hour - 2*time.Minute)
		opens(policies.Allowed)
		time.Sleep(3 * time.Minute)
		opens(witnessMissing)
		silent.Store(false)
		time.Sleep(askAgain)
		opens(policies.Allowed)
		version.Store(2) // published, and it never came here
		time.Sleep(time.Hour - 2*time.Minute)
		opens(policies.Allowed)
		time.Sleep(3 * time.Minute)
		opens(policyFrozen)
		stop()
		<-done
		if got := strings.Join(records.outcomes(t), " "); got != "witness_missing confirmed bundle_frozen" {
			t.Errorf("records: %s", got)
		}
	})
}

// Without a confirmation nobody gets in; a test fleet whose trust policy asks nobody needs none.
func TestConfirmationZero(t *testing.T) {
	var none *confirmation
	if v := none.opens(time.Now()); v.Allow {
		t.Errorf("no confirmation: %+v", v)
	}
	for _, tr := range []*trust.Trust{{WitnessThreshold: 1}, {WitnessThreshold: 1, Test: true}} {
		if v := (&confirmation{trust: tr}).opens(time.Now()); v.Allow {
			t.Errorf("zero confirmation under %+v: %+v", tr, v)
		}
	}
	if v := (&confirmation{trust: &trust.Trust{Test: true}}).opens(time.Now()); !v.Allow {
		t.Errorf("a test fleet without witnesses: %+v", v)
	}
}

// TestNewPolicyCutsByItself puts the files in place, without a signal, and waits until who the policy denies is out: long before the next time
// at which live sessions are decided anyway. How long it takes is in the log, as a measurement: 0.3 s on an idle machine.
func TestNewPolicyCutsByItself(t *testing.T) {
	f := newFixture(t)
	witnessed(f)
	f.publish(1)
	f.start()
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	f.policy.Version, f.policy.Engineers, f.policy.Grants = 2, f.policy.Engineers[:1], f.policy.Grants[:1]
	served := f.config.Bundle
	f.config.Bundle = f.path("next.json")
	f.writeBundle(2)
	f.publish(2)
	f.config.Bundle = served
	for _, name := range []string{".sig", ""} {
		if err := os.Rename(f.path("next.json")+name, served+name); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	bert.Wait()
	took := time.Since(began)
	if t.Logf("out after %v", took); took > 10*time.Second {
		t.Errorf("out after %v", took)
	}
	if r := f.closing(); r.User != "bert" || r.Ended != endPolicy {
		t.Errorf("closing record: %+v", r)
	}
	var r policyRecord
	if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil || r.Version != 2 || r.Cut != 1 {
		t.Errorf("policy record: %+v, %v", r, err)
	}
}

// TestPolicyWrittenInPieces writes a bundle as an editor or a slow copy does: nothing is recorded as bad that becomes whole.
func TestPolicyWrittenInPieces(t *testing.T) {
	f := newFixture(t)
	f.start()
	f.policy.Version = 2
	served := f.config.Bundle
	f.config.Bundle = f.path("next.json")
	f.writeBundle(2)
	f.config.Bundle = served
	for _, name := range []string{".sig", ""} {
		data, err := os.ReadFile(f.path("next.json") + name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(served+name, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
			if _, err := file.Write(piece); err != nil {
				t.Fatal(err)
			}
			tick := time.NewTimer(pollInterval + pollInterval/2) // so that it is looked at in between
			<-tick.C
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var r policyRecord
	if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil {
		t.Fatal(err)
	}
	if r.Outcome != "in_force" || r.Version != 2 {
		t.Errorf("first record: %+v", r)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// recorder keeps records in memory.
type recorder struct {
	mu   sync.Mutex
	kept []any
}

func (r *recorder) Healthy() error                               { return nil }
func (r *recorder) AppendOpening(event string, record any) error { return r.Append(event, record) }
func (r *recorder) AppendRefused(event string, record any) error { return r.Append(event, record) }

func (r *recorder) Append(_ string, record any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, record)
	return nil
}

func (r *recorder) outcomes(t *testing.T) (list []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range r.kept {
		if fresh, ok := record.(freshRecord); ok {
			list = append(list, fresh.Outcome)
		}
	}
	return list
}

// TestForkEndsTheGrace: two witnesses who know another file of the version keep newcomers out at once, one of them does not.
func TestForkEndsTheGrace(t *testing.T) {
	now := time.Now()
	tr := &trust.Trust{Fleet: "lab", WitnessThreshold: 1}
	keys := map[string]ssh.Signer{}
	for _, name := range []string{"ida", "jon", "kim"} {
		keys[name] = newSigner(t)
		tr.Witnesses = append(tr.Witnesses, trust.Person{Name: name, Keys: []string{authorized(keys[name].PublicKey())}})
	}
	for _, tt := range []struct {
		name  string
		says  []string // another file
		newer []string
		want  policies.Reason
	}{
		{"nobody", nil, nil, policies.Allowed}, {"one", []string{"jon"}, nil, policies.Allowed}, {"one, twice", []string{"jon", "jon"}, nil, policies.Allowed},
		{"two", []string{"jon", "kim"}, nil, policyForked}, {"two, and one knows a newer", []string{"jon", "kim"}, []string{"ida"}, policyForked},
		{"a newer is out", nil, []string{"ida", "jon"}, policies.Allowed},
	} {
		c := &confirmation{trust: tr, version: 1, sum: witness.Sum(nil), grace: time.Hour, at: now.Add(-time.Minute),
			ask: func(_ context.Context, q witness.Question, _ func([][]byte) bool) (answers [][]byte) {
				for version, names := range map[uint64][]string{1: tt.says, 2: tt.newer} {
					for _, name := range names {
						a, err := witness.Sign(keys[name], name, q, version, witness.Sum([]byte("other")), now)
						if err != nil {
							t.Error(err)
						}
						answers = append(answers, a)
					}
				}
				return answers
			}}
		c.renew(t.Context(), now)
		if v := c.opens(now); v.Reason != tt.want || v.Allow != (tt.want == policies.Allowed) {
			t.Errorf("%s: got %+v, want %s", tt.name, v, tt.want)
		}
	}
}
