package bastion

import (
	"bufio"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/alert"
	"mayfly/bastion/origin"
	"mayfly/bastion/reconcile"
	"mayfly/internal/audit"
	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// heard is the other end of a server's alerts.
type heard struct {
	t       *testing.T
	got     chan alert.Alert
	conn    net.Conn
	waiting []alert.Alert
	stop    func() // before the server does, which counts what is left over
}

// listenTo has a server tell its alerts to the test.
func listenTo(t *testing.T, s *Server) *heard {
	t.Helper()
	here, there := net.Pipe()
	h := &heard{t: t, got: make(chan alert.Alert, 4*maxAlertsWaiting), conn: there}
	known, err := origin.Open(s.config.Audit, s.config.Alerts.Networks, s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.alerts = newAlerts(here, bufio.NewReader(here), known, s.metrics, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := bufio.NewReader(there)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			a, err := alert.Parse(line)
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			h.got <- a
			there.Write(alert.Receipt{Kind: a.Kind, To: "exec", Outcome: alert.Sent}.Marshal())
		}
	}()
	h.stop = func() {
		there.Close()
		s.alerts.end()
		<-done
	}
	return h
}

// next waits for an alert of a kind; others wait for their own call.
func (h *heard) next(kind alert.Kind) alert.Alert {
	h.t.Helper()
	for i, a := range h.waiting {
		if a.Kind == kind {
			h.waiting = slices.Delete(h.waiting, i, i+1)
			return a
		}
	}
	timeout := time.After(patience)
	for {
		select {
		case a := <-h.got:
			if a.Kind == kind {
				if a.Fleet != "lab" || a.Bastion != "bastion" || a.Severity != kind.Severity() || a.Time.IsZero() {
					h.t.Errorf("alert %+v", a)
				}
				return a
			}
			h.waiting = append(h.waiting, a)
		case <-timeout:
			h.t.Fatalf("no alert %s", kind)
		}
	}
}

// loginFrom logs in from another address of loopback.
func (f *fixture) loginFrom(source, user string, key *softkey.Key) *ssh.Client {
	f.t.Helper()
	conn, err := dialFrom(f.t.Context(), source, f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	config := &ssh.ClientConfig{User: user, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Auth: []ssh.AuthMethod{ssh.PublicKeys(key.Signer(softkey.Always))}}
	c, channels, requests, err := ssh.NewClientConn(conn, f.address, config)
	if err != nil {
		f.t.Fatal(err)
	}
	return ssh.NewClient(c, channels, requests)
}

// TestAlertsOfLogins has an engineer come from a known network, from a new one, and from both at once; and refuses one again and again.
func TestAlertsOfLogins(t *testing.T) {
	f := newFixture(t)
	f.write(f.path("networks"), []byte("127.0.0.1/32 office\n127.0.0.2/32 train\n"), 0o644)
	f.config.Alerts = AlertsConfig{Exec: "/bin/true", Networks: f.path("networks"), Refusals: 3}
	if err := os.MkdirAll(f.config.Audit, 0o700); err != nil {
		t.Fatal(err)
	}
	var h *heard
	f.startWith(func(s *Server) { h = listenTo(t, s) })
	t.Cleanup(func() { h.stop() })
	first := f.login("anna", f.anna.Signer(softkey.Always))
	second := f.loginFrom("127.0.0.2", "anna", f.anna)
	one := h.next(alert.NewNetwork)
	if one.Subject != "anna from train" || one.Reference == "" {
		t.Errorf("alert %+v", one)
	}
	two := h.next(alert.TwoNetworks)
	if two.Subject != "anna" || !strings.Contains(two.Detail, "office") || !strings.Contains(two.Detail, "train") || two.Reference == "" {
		t.Errorf("alert %+v", two)
	}
	first.Close()
	second.Close()
	for range 3 {
		if _, err := f.client("anna", f.bert.Signer(softkey.Always)); err == nil {
			t.Fatal("bert's key let anna in")
		}
	}
	repeated := []string{h.next(alert.RepeatedRefusals).Subject, h.next(alert.RepeatedRefusals).Subject}
	slices.Sort(repeated)
	if !slices.Equal(repeated, []string{"source 127.0.0.1/32", "user anna"}) {
		t.Errorf("repeated refusals of %q", repeated)
	}
	// It is remembered beside the log, and read from the log if that is lost.
	for _, lose := range []string{"", "known_networks.json"} {
		if lose != "" {
			if err := os.Remove(f.config.Audit + "/" + lose); err != nil {
				t.Fatal(err)
			}
		}
		again, err := origin.Open(f.config.Audit, f.config.Alerts.Networks, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"office", "train"} {
			if fresh, _ := again.Note("anna", name, time.Now()); fresh {
				t.Errorf("without %q, %s is forgotten", lose, name)
			}
		}
	}
}

// TestAlertsOfTheBastion raises those that are about the bastion itself, each by what causes it.
func TestAlertsOfTheBastion(t *testing.T) {
	f := newFixture(t)
	f.config.Alerts = AlertsConfig{Exec: "/bin/true"}
	f.config.Control = f.path("control")
	if err := os.MkdirAll(f.config.Audit, 0o700); err != nil {
		t.Fatal(err)
	}
	var h *heard
	f.startWith(func(s *Server) { h = listenTo(t, s) })
	t.Cleanup(func() { h.stop() })

	f.policy.Version = 2
	f.writeBundle(1)
	if a := h.next(alert.PolicyRefused); !strings.Contains(a.Detail, "policy 1 stays in force") || !strings.Contains(a.Detail, "bundle_unsigned") {
		t.Errorf("alert %+v", a)
	}
	f.server.witnessRejected(audit.Rejection{Witness: "w", Size: 7, Seen: 9})
	if a := h.next(alert.WitnessRejects); a.Subject != "w" || !strings.Contains(a.Detail, "has seen 9") {
		t.Errorf("alert %+v", a)
	}
	f.server.brokenGlass(breakGlassRecord{What: glassTarget, Name: "glass", Opening: "o1", Connection: "c1", Server: "se-1", Port: 22, Source: "192.0.2.1:5"})
	if a := h.next(alert.BreakGlass); a.Subject != "glass target se-1:22 c1" || a.Reference != "c1" {
		t.Errorf("alert %+v", a)
	}
	f.server.notAllowed("site", "c2", policies.Verdict{Reason: pluginLate, Detail: "site: 2s"})
	if a := h.next(alert.PluginFailed); a.Subject != "site" || a.Reference != "c2" || !strings.Contains(a.Detail, "plugin_late") {
		t.Errorf("alert %+v", a)
	}
	f.server.notify(noticePlugins, pluginsRecord{Outcome: pluginsEnded, Policy: 1})
	if a := h.next(alert.PluginFailed); a.Subject != "bastion-plugins" {
		t.Errorf("alert %+v", a)
	}
	f.server.notify(noticeFresh, freshRecord{Outcome: "witness_missing", Version: 1})
	if a := h.next(alert.PolicyUnconfirmed); a.Subject != "policy 1" {
		t.Errorf("alert %+v", a)
	}
	f.server.notify(noticeStatement, statementRecord{File: "approval.json", Reason: "statement_unsigned"})
	if a := h.next(alert.StatementRefused); a.Subject != "approval.json" {
		t.Errorf("alert %+v", a)
	}
	f.server.notify(noticeAuditIll, "disk full")
	f.server.notify(noticeAuditWell, "well")
	if a := h.next(alert.AuditIll); a.Detail != "disk full" {
		t.Errorf("alert %+v", a)
	}
	h.next(alert.AuditRecovered)

	list := make([]reconcile.Unrecorded, maxLoginsTold+5)
	for i := range list {
		list[i].User, list[i].Server, list[i].Why, list[i].Time = "mallory", "se-1", "no_passage", time.Date(2030, 1, 1, 0, i, 0, 0, time.UTC)
	}
	if err := TellLogins(t.Context(), f.config, list); err != nil {
		t.Fatal(err)
	}
	for i := range maxLoginsTold {
		a := h.next(alert.UnrecordedLogin)
		if want := list[i].Time.Format(time.RFC3339); !strings.Contains(a.Subject, want) || !strings.HasPrefix(a.Subject, "mallory on se-1") || !strings.Contains(a.Detail, "21 such logins") {
			t.Errorf("alert %+v, want %s", a, want)
		}
	}
}

// TestAlertsAreHeldBack sends one of a kind and subject, counts the others, and says how many there were.
func TestAlertsAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		in := bufio.NewReader(there)
		a := newAlerts(here, bufio.NewReader(here), nil, nil, slog.New(slog.DiscardHandler))
		one := alert.Alert{Kind: alert.AuditIll, Severity: alert.Critical, Time: time.Now(), Subject: "x"}
		read := func() alert.Alert {
			t.Helper()
			line, err := in.ReadBytes('\n')
			if err != nil {
				t.Fatal(err)
			}
			got, err := alert.Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		for range 5 {
			a.raise(one, time.Now())
		}
		if got := read(); got.Repeats != 0 {
			t.Errorf("first: %+v", got)
		}
		time.Sleep(alertQuiet - time.Nanosecond)
		a.raise(one, time.Now())
		time.Sleep(time.Nanosecond)
		a.raise(one, time.Now())
		if got := read(); got.Repeats != 5 {
			t.Errorf("second: %+v", got)
		}
		// Whoever does not read blocks nobody: what does not fit is dropped, and the table stays within its bound.
		for i := range 3 * maxAlertsSaid {
			one.Subject = time.Duration(i).String()
			a.raise(one, time.Now())
		}
		if n := len(a.said); n > maxAlertsSaid {
			t.Errorf("%d are remembered", n)
		}
		began := time.Now()
		a.end()
		if d := time.Since(began); d > alertEnd || a.delivering() {
			t.Errorf("it ended after %s, delivering: %v", d, a.delivering())
		}
		a.raise(one, time.Now()) // after the end: no harm
	})
}

// TestRepeated counts within a time, and keeps to its bound.
func TestRepeated(t *testing.T) {
	var r repeated
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, want := range []bool{false, false, true, false, false, true} {
		if got := r.add("user anna", 3, time.Minute, now); got != want {
			t.Errorf("%d: got %v", i, got)
		}
	}
	r.add("user anna", 3, time.Minute, now)
	r.add("user anna", 3, time.Minute, now)
	if r.add("user anna", 3, time.Minute, now.Add(time.Minute)) {
		t.Error("what was a minute ago counts")
	}
	for i := range 2 * maxRepeated {
		r.add(time.Duration(i).String(), 3, time.Minute, now)
	}
	if len(r.all) > maxRepeated {
		t.Errorf("%d are counted", len(r.all))
	}
}

// sickLog is a log whose health the test sets.
type sickLog struct {
	auditLog
	err error
}

func (l *sickLog) Healthy() error { return l.err }

// TestAlertOfAudit tells once that the log is ill, and once that it has recovered.
func TestAlertOfAudit(t *testing.T) {
	log := &sickLog{}
	var told []string
	s := &Server{audit: log, log: slog.New(slog.DiscardHandler), events: func(kind string, _ any) { told = append(told, kind) }}
	for _, err := range []error{nil, os.ErrClosed, os.ErrClosed, nil, nil} {
		log.err = err
		s.watchAudit()
	}
	if want := []string{noticeAuditIll, noticeAuditWell}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
