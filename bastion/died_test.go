package bastion

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/policies"
)

// TestDied starts a bastion on the log of one that was killed: whoever was in gets one closing record before the new run begins, whoever had
// one does not, and a second start finds nobody.
func TestDied(t *testing.T) {
	f := newFixture(t)
	log, err := openAudit(f.config, f.fleet.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	login := func(id string) loginRecord {
		return loginRecord{Connection: id, Source: "127.0.0.1:50000", User: "anna", Identity: "engineer", Key: "SHA256:abc", KeyType: "sk-ssh-ed25519@openssh.com",
			Evidence: "webauthn", Test: true, Policy: 7, Certificate: &certificateRecord{Serial: 3, ID: "c", Authority: "SHA256:ca"}}
	}
	target := func(id string, n int) openingRecord {
		return openingRecord{Connection: id, Number: n, User: "anna", Identity: "engineer", Server: "se-1", Address: "10.77.0.11", Port: 22}
	}
	for _, e := range []struct {
		event  string
		record any
	}{
		{eventLogin, login("before")}, // of a run that has been looked at already
		{eventServe, policyRecord{}},
		{eventLogin, login("idle")},
		{eventLogin, login("ended")},
		{eventLogin, login("jumping")},
		{eventTarget, target("ended", 1)},
		{eventTarget, target("jumping", 1)},
		{eventConnection, closingRecord{Connection: "ended", Outcome: "accepted"}},
		{eventTarget, target("jumping", 2)},
		{eventConnection, closingRecord{Connection: "refused", Outcome: "refused"}},
	} {
		if err := log.Append(e.event, e.record); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	f.start()
	closings := map[string]closingRecord{}
	for range 2 {
		r := f.closing()
		closings[r.Connection] = r
	}
	idle, jumping := closings["idle"], closings["jumping"]
	for _, r := range []closingRecord{idle, jumping} {
		if r.Outcome != "accepted" || r.Reason != policies.Allowed || r.Ended != endDied || r.User != "anna" || r.Key != "SHA256:abc" || r.Policy != 7 ||
			r.Source != "127.0.0.1:50000" || r.Certificate == nil || r.Evidence != "webauthn" || !r.Test || r.Began.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	if len(idle.Targets) != 0 || len(jumping.Targets) != 2 || jumping.Targets[0].Number != 1 || jumping.Targets[1].Number != 2 ||
		jumping.Targets[0].Server != "se-1" || jumping.Targets[0].Ended != endDied {
		t.Errorf("targets: %+v and %+v", idle.Targets, jumping.Targets)
	}
	f.next(eventServe)
	for _, e := range f.waiting {
		t.Errorf("besides: %s %s", e.Event, e.Record)
	}
	if list, cut, err := findDied(f.config.Audit); err != nil || cut || len(list) != 0 {
		t.Errorf("the next start finds %+v, %v, %v", list, cut, err)
	}
}

// TestDiedBetween has a bastion killed after some of those closing records: the next start writes the others alone.
func TestDiedBetween(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	log, err := audit.Open(audit.Options{Dir: dir, Name: "lab/test"})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{config: Config{Audit: dir}, audit: log, log: slog.New(slog.DiscardHandler)}
	s.append(eventServe, policyRecord{})
	s.append(eventLogin, loginRecord{Connection: "a"})
	s.append(eventLogin, loginRecord{Connection: "b"})
	s.append(eventConnection, died{login: loginRecord{Connection: "a"}}.record())
	for range 2 {
		if err := s.closeDied(); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	if _, err := audit.Read(dir, 0, func(_ uint64, text []byte) error {
		var e audit.Entry
		if err := json.Unmarshal(text, &e); err != nil || e.Event != eventConnection {
			return err
		}
		var r closingRecord
		err := json.Unmarshal(e.Record, &r)
		count[r.Connection]++
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(count) != 2 || count["a"] != 1 || count["b"] != 1 {
		t.Errorf("closing records: %v", count)
	}
}

// TestDiedBounds: no policy lets anybody stay as long as the look goes back, a login from before is not looked for, and of many targets the
// first ones are listed.
func TestDiedBounds(t *testing.T) {
	var p policies.Policy
	p.SSH.SessionLimit = policies.Duration(1000 * time.Hour)
	if limit := p.Limits().SessionLimit; limit >= longestSession {
		t.Errorf("a session lasts up to %v, the look goes back %v", limit, longestSession)
	}
	dir := filepath.Join(t.TempDir(), "audit")
	log, err := audit.Open(audit.Options{Dir: dir, Name: "lab/test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Append(eventLogin, loginRecord{Connection: "many"}); err != nil {
		t.Fatal(err)
	}
	for n := range maxTargets + 3 {
		if err := log.Append(eventTarget, openingRecord{Connection: "many", Number: n + 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	list, _, err := findDied(dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	r := list[0].record()
	if len(r.Targets) != maxTargets || r.MoreTargets != 3 || r.Targets[0].Number != 1 {
		t.Errorf("%d targets from %d on, and %d more", len(r.Targets), r.Targets[0].Number, r.MoreTargets)
	}
	text, err := json.Marshal(r)
	if err != nil || len(text) > audit.MaxEntry/2 || bytes.Contains(text, []byte("via")) {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	if list, cut, err := findDied(filepath.Join(dir, "none")); err != nil || cut || len(list) != 0 {
		t.Errorf("no log: %v %v %v", list, cut, err)
	}
}

// TestSkim compares what is read quickly with what is read whole.
func TestSkim(t *testing.T) {
	for _, text := range []string{
		`{"time":"2030-01-01T00:00:00.5Z","event":"login","record":{"connection":"0a","source":"\",\"event\":\""}}`,
		`{"time":"2030-01-01T00:00:00Z","event":"serve","record":{"outcome":"in_force"}}`,
		`{"time":"2030-01-01T00:00:00Z","event":"serve","record":null}`,
	} {
		e, err := audit.ParseEntry([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var of struct{ Connection string }
		if err := json.Unmarshal(e.Record, &of); err != nil {
			t.Fatal(err)
		}
		at, event, connection, err := skim([]byte(text))
		if err != nil || !at.Equal(e.Time) || event != e.Event || connection != of.Connection {
			t.Errorf("%s: %v %q %q %v", text, at, event, connection, err)
		}
	}
	for _, text := range []string{"", "{}", `{"time":"x","event":"login","record":{}}`, `{"time":"2030-01-01T00:00:00Z","event":"login"}`} {
		if _, _, _, err := skim([]byte(text)); err == nil {
			t.Errorf("%q is a record", text)
		}
	}
}

// BenchmarkFindDied looks through a log as long as the look goes.
func BenchmarkFindDied(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "audit")
	log, err := audit.Open(audit.Options{Dir: dir, Name: "lab/test"})
	if err != nil {
		b.Fatal(err)
	}
	r := closingRecord{Outcome: "accepted", User: "anna", Client: "SSH-2.0-OpenSSH_9.2p1", Targets: []targetRecord{{Server: "se-1", Address: "10.77.0.11", Port: 22}}}
	done := make(chan error, 64)
	for w := range 64 {
		go func() {
			for n := range maxLookBack / 64 {
				c := r
				c.Connection = fmt.Sprint(w, "-", n)
				if err := log.Append(eventConnection, c); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 64 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := findDied(dir); err != nil {
			b.Fatal(err)
		}
	}
}
