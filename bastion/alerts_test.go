package bastion

import (
	"bufio"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/alert"
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
	history, err := openHistory(s.config, s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.alerts = newAlerts(here, bufio.NewReader(here), history, s.metrics, slog.New(slog.DiscardHandler))
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
	for _, lose := range []string{"", historyName} {
		if lose != "" {
			if err := os.Remove(f.config.Audit + "/" + lose); err != nil {
				t.Fatal(err)
			}
		}
		again, err := openHistory(f.config, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"office", "train"} {
			if _, ok := again.users["anna"][name]; !ok {
				t.Errorf("without %q, %s is forgotten: %v", lose, name, again.users)
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

func TestNetworks(t *testing.T) {
	table, err := parseNetworks("networks", []byte("# ours\n192.0.2.0/24 office\n192.0.2.128/25 lab # upstairs\n2001:db8::/32 six\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"192.0.2.1": "office", "192.0.2.200": "lab", "::ffff:192.0.2.1": "office", "2001:db8:1::1": "six",
		"198.51.100.7": "198.51.100.0/24", "2001:db9:1:2::3": "2001:db9:1::/48",
	} {
		if got := table.name(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
	if got := table.name(netip.Addr{}); got != "nowhere" {
		t.Errorf("no address: %q", got)
	}
	for text, want := range map[string]string{
		"192.0.2.0/24\n": "networks:1: want a prefix and a name", "\n192.0.2.1/24 x\n": "networks:2: ", "x y\n": "networks:1: ",
		"192.0.2.0/24 a\n192.0.2.0/24 b\n": "networks:2: 192.0.2.0/24 is there twice", "192.0.2.0/24 \x1b[0m\n": "name", "::ffff:192.0.2.0/120 x\n": "IPv4",
		"192.0.2.0/24 " + strings.Repeat("x", maxNetworkName+1): "name",
	} {
		if _, err := parseNetworks("networks", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestHistoryIsBounded forgets who used a network longest ago.
func TestHistoryIsBounded(t *testing.T) {
	h := &history{users: make(map[string]map[string]time.Time)}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 2 * maxHistoryNetworks {
		h.note("anna", time.Duration(i).String(), now.Add(time.Duration(i)*time.Second))
	}
	if _, ok := h.users["anna"][time.Duration(0).String()]; ok || len(h.users["anna"]) != maxHistoryNetworks {
		t.Errorf("%d networks", len(h.users["anna"]))
	}
	for i := range 2 * maxHistoryUsers {
		h.note(time.Duration(i).String(), "office", now.Add(time.Hour+time.Duration(i)*time.Second))
	}
	if _, ok := h.users["anna"]; ok || len(h.users) != maxHistoryUsers {
		t.Errorf("%d users", len(h.users))
	}
	for _, text := range []string{"", "{}", `{"kind":"x"}`, `{"kind":"` + kindHistory + `","more":1}`} {
		if err := h.parse([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func FuzzNetworks(f *testing.F) {
	f.Add([]byte("192.0.2.0/24 office\n2001:db8::/32 six # x\n"), "192.0.2.1")
	f.Fuzz(func(t *testing.T, data []byte, address string) {
		table, err := parseNetworks("networks", data)
		if err != nil {
			return
		}
		if a, err := netip.ParseAddr(address); err == nil && table.name(a) == "" {
			t.Errorf("%s has no name", a)
		}
	})
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
