package bastion

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// controlled is a fixture with a control socket, which waits for who is in for as long as this.
func controlled(t *testing.T, limit time.Duration) *fixture {
	f := newFixture(t)
	f.config.Control, f.config.DrainLimit = f.path("control"), policies.Duration(limit)
	f.policy.SSH.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	f.writeBundle(2)
	return f
}

// TestDrain has a bastion end by order: a session goes on and gets its closing record when it ends by itself, nobody new gets in.
func TestDrain(t *testing.T) {
	f := controlled(t, time.Minute)
	f.target("10.77.0.11:22", echo)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	d, err := AskDrain(t.Context(), f.config, time.Hour)
	if err != nil || d.Sessions != 1 || time.Until(d.Until) < 59*time.Minute {
		t.Fatalf("drain: %+v, %v", d, err)
	}
	for { // the socket closes within the order
		conn, err := net.Dial("tcp", f.address)
		if err != nil {
			break
		}
		conn.Close()
	}
	target, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatalf("a session that goes on: %v", err)
	}
	if _, err := target.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(target, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if s, err := AskStatus(t.Context(), f.config); err != nil || s.DrainingUntil == nil || len(s.Sessions) != 1 {
		t.Errorf("status: %+v, %v", s, err)
	}
	anna.Close()
	f.next(eventStop)
	for {
		if r := f.closing(); r.Outcome == "accepted" {
			if r.Ended != endClient || r.Reason != policies.Allowed {
				t.Errorf("record: %+v", r)
			}
			break
		}
	}
}

// TestDrainEnds sees the bound of a drain cut who is still in, a later order shorten it, and a second signal cut at once.
func TestDrainEnds(t *testing.T) {
	for name, test := range map[string]struct {
		order func(f *fixture, cut chan os.Signal)
		want  policies.Reason
	}{
		"bound": {func(f *fixture, _ chan os.Signal) {
			for _, limit := range []time.Duration{time.Hour, time.Second, time.Hour} {
				if _, err := AskDrain(f.t.Context(), f.config, limit); err != nil {
					f.t.Fatal(err)
				}
			}
		}, drainLimit},
		"second signal": {func(f *fixture, cut chan os.Signal) {
			if _, err := AskDrain(f.t.Context(), f.config, time.Hour); err != nil {
				f.t.Fatal(err)
			}
			cut <- syscall.SIGTERM
		}, stopAtOnce},
	} {
		t.Run(name, func(t *testing.T) {
			f := controlled(t, time.Minute)
			cut := make(chan os.Signal, 1)
			f.cut = cut
			f.start()
			f.login("anna", f.anna.Signer(softkey.Always))
			test.order(f, cut)
			if r := f.closing(); r.Ended != endStopping || r.Reason != test.want || r.Outcome != "accepted" {
				t.Errorf("record: %+v, want %s", r, test.want)
			}
			f.next(eventStop)
		})
	}
}

// TestCutAtTheDoor cuts a visit between its login's durable record and the end of its handshake: it closes as what the log has said it
// is, and how it really ended.
func TestCutAtTheDoor(t *testing.T) {
	for name, test := range map[string]struct {
		cut   func(*visit)
		ended string
		why   policies.Reason
	}{
		"by a stop":     {func(v *visit) { v.cut(endStopping, stopAtOnce) }, endStopping, stopAtOnce},
		"by a policy":   {func(v *visit) { v.cut(endPolicy, policies.UserUnknown) }, endPolicy, policies.UserUnknown},
		"by the client": {func(v *visit) { v.conn.Close() }, endLost, policies.Allowed},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.spy.after = func(string) {
				for v := range f.server.sessions.list() {
					test.cut(v)
				}
			}
			f.start()
			source := network(netip.MustParseAddr("127.0.0.1"))
			f.server.penalties.add(source, badSignature, time.Now())
			if client, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
				client.Close()
			}
			f.next(eventLogin)
			if r := f.closing(); r.Outcome != "accepted" || r.Ended != test.ended || r.Reason != test.why || r.User != "anna" {
				t.Errorf("record: %+v, want %s, %s", r, test.ended, test.why)
			}
			f.empty()
			f.server.penalties.mu.Lock()
			defer f.server.penalties.mu.Unlock()
			if f.server.penalties.bySource[source] != nil {
				t.Error("punished, or not cleared of what was before")
			}
		})
	}
}

func TestStatus(t *testing.T) {
	f := controlled(t, 0)
	f.target("10.77.0.11:22", echo)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	target, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := target.Write([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(target, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.greeted("127.0.0.2"); err != nil {
		t.Fatal(err)
	}
	f.fail("127.0.0.3")
	if _, err := f.greeted("127.0.0.3"); err == nil {
		t.Fatal("greeted in spite of its penalty")
	}
	f.next(eventRefused)
	s, err := AskStatus(t.Context(), f.config)
	if err != nil {
		t.Fatal(err)
	}
	if s.Kind != kindStatus || s.Fleet != "lab" || s.Policy != 1 || s.Listen != f.address || !s.Audit.Works || s.Audit.Records == 0 || s.DrainingUntil != nil {
		t.Errorf("status: %+v", s)
	}
	if len(s.Sessions) != 1 {
		t.Fatalf("sessions: %+v", s.Sessions)
	}
	if v := s.Sessions[0]; v.User != "anna" || v.Identity != policies.KindEngineer || !strings.HasPrefix(v.Key, "SHA256:") || v.Up != 5 || v.Down != 5 ||
		len(v.Targets) != 1 || v.Targets[0].Server != "se-1" || !strings.HasPrefix(v.Source, "127.0.0.1:") {
		t.Errorf("session: %+v", v)
	}
	if s.HalfOpen.Total != 1 || s.HalfOpen.Networks[0] != (NetworkStatus{"127.0.0.2/32", 1}) {
		t.Errorf("half open: %+v", s.HalfOpen)
	}
	if len(s.Penalties) != 1 || s.Penalties[0].Network != "127.0.0.3/32" || s.Penalties[0].Why != methodPassword {
		t.Errorf("penalties: %+v", s.Penalties)
	}
	if len(s.Refused) != 1 || s.Refused[0].Reason != sourcePenalised || s.Refused[0].Network != "127.0.0.3/32" {
		t.Errorf("refused: %+v", s.Refused)
	}
	data, err := json.Marshal(Status{})
	if err != nil || strings.ContainsAny(string(data), "ABCDEFGHIJKLMNOPQSUVWXY") { // T and Z are of times
		t.Errorf("keys of a status: %s, %v", data, err)
	}
}

// TestStatusIsBounded fills what can be filled.
func TestStatusIsBounded(t *testing.T) {
	var s Server
	now := time.Now()
	for i := range 5000 {
		from := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
		s.refusals.add(from, startupsFull, 1, now)
		for range 4 {
			s.penalties.add(from, methodPassword, now)
		}
		s.startups.enter(nil, from, policies.Limits{MaxStartups: 5000}, 8, now)
	}
	if list, more := s.refusals.status(); len(list) != maxStatusRefused || more < 900 {
		t.Errorf("%d refusals, %d more", len(list), more)
	}
	if list, all := s.penalties.list(maxStatusPenalties, now); len(list) != maxStatusPenalties || all != 5000 {
		t.Errorf("%d penalties of %d", len(list), all)
	}
	if h := s.startups.status(5000); len(h.Networks) != maxStatusNetworks || h.More != 5000-maxStatusNetworks || h.Total != 5000 {
		t.Errorf("half open: %d networks, %d more", len(h.Networks), h.More)
	}
	if list, more := bounded(make([]SessionStatus, maxStatusSessions+1), maxStatusSessions); len(list) != maxStatusSessions || more != 1 {
		t.Errorf("%d sessions, %d more", len(list), more)
	}
}

func TestControlSocket(t *testing.T) {
	f := controlled(t, 0)
	// What an earlier bastion left is replaced.
	old, err := listenControl(f.config.Control)
	if err != nil {
		t.Fatal(err)
	}
	old.Close()
	f.start()
	info, err := os.Stat(f.config.Control)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("socket: %v, %v", info, err)
	}
	for question, want := range map[string]string{
		"\n": "not a question", "{}\n": "want mayfly-bastion-control/1", `{"kind":"mayfly-bastion-control/1","do":"dance"}` + "\n": "want status, drain or alert",
		`{"kind":"mayfly-bastion-control/1","do":"drain","limit":"25h"}` + "\n": "at most 24h", `{"kind":"mayfly-bastion-control/1","do":"status","x":1}` + "\n": "not a question",
	} {
		conn, err := net.Dial("unix", f.config.Control)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(question)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(answer), want) {
			t.Errorf("%q: %q, %v; want %q", question, answer, err, want)
		}
		conn.Close()
	}
	// A question without end costs the asker its connection.
	conn, err := net.Dial("unix", f.config.Control)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(make([]byte, 2*maxControl))
	if answer, err := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("an endless question: %q, %v", answer, err)
	}

	file := f.path("file")
	f.write(file, []byte("mine"), 0o600)
	if _, err := listenControl(file); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("a file in the place of the socket: %v", err)
	}
	if _, err := listenControl("/tmp/" + strings.Repeat("x", 120)); err == nil {
		t.Error("a path that is too long was taken")
	}
	if _, err := AskStatus(context.Background(), Config{}); err == nil {
		t.Error("asked without a socket")
	}
}

func FuzzControl(f *testing.F) {
	f.Add([]byte(`{"kind":"mayfly-bastion-control/1","do":"drain","limit":"30m"}`))
	f.Add([]byte(`{"kind":"mayfly-bastion-control/1","do":"status"}`))
	f.Add([]byte(`{"kind":"mayfly-bastion-control/1","do":"drain","limit":"-1s"}`))
	f.Add([]byte("[]"))
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := parseControl(line)
		if err == nil && (q.Kind != kindControl || q.Limit < 0 || q.Limit.Std() > MaxDrain) {
			t.Fatalf("%+v", q)
		}
	})
}
