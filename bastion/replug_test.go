package bastion

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/plugin"
	"mayfly/testenv/softkey"
)

// decider is a host of plugins within the test.
type decider struct {
	mu    sync.Mutex
	pins  []plugin.Pin
	asked int
	most  int // questions at once
	now   int
	judge func(asked int, q plugin.Request) string
}

func (d *decider) Pin(pins []plugin.Pin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pins = pins
}

func (d *decider) Decide(_ context.Context, pins []plugin.Pin, q plugin.Request) plugin.Verdict {
	d.mu.Lock()
	d.asked++
	d.now++
	d.most = max(d.most, d.now)
	v := plugin.Verdict{Outcome: d.judge(d.asked, q), Plugin: pins[0].Name}
	if !slices.Equal(pins, d.pins) {
		v.Outcome = plugin.Failed
	}
	d.mu.Unlock()
	time.Sleep(time.Millisecond) // others come meanwhile
	d.mu.Lock()
	d.now--
	d.mu.Unlock()
	return v
}

// relay is a bastion's end of a socket to a decider, and what ends the decider.
func (d *decider) relay(t *testing.T) (r *plugin.Relay, end func()) {
	here, there := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := plugin.ServeRelay(t.Context(), there, d); err != nil && err != io.EOF && err != io.ErrClosedPipe {
			t.Logf("relay: %v", err)
		}
	})
	return plugin.NewRelay(here), func() { there.Close(); serving.Wait() }
}

// TestNewPluginIsAskedAboutWhoIsIn pins a plugin that takes a while to start: who it denies is cut, who it allows stays in.
func TestNewPluginIsAskedAboutWhoIsIn(t *testing.T) {
	f := newFixture(t)
	f.config.Plugin = PluginConfig{Directory: "/", User: "plugins"}
	f.target("10.77.0.11:22", echo)
	f.target("10.77.0.12:22", echo)
	d := &decider{judge: func(asked int, q plugin.Request) string {
		switch {
		case asked <= 4:
			return plugin.Failed // it starts
		case q.User == "bert", q.Server == "se-2":
			return plugin.Denied
		}
		if q.Identity != "engineer" || q.Key == "" || q.Source != "127.0.0.1" {
			return plugin.Denied
		}
		return plugin.Allowed
	}}
	relay, end := d.relay(t)
	notices := make(chan pluginsRecord, 1)
	f.startWith(func(s *Server) {
		s.plugins = relay
		s.events = func(kind string, fields any) {
			if kind == noticePlugins {
				notices <- fields.(pluginsRecord)
			}
		}
	})
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	stays, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	goes, err := anna.Dial("tcp", "se-2:22")
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Version = 2
	f.policy.Plugins = []policies.Plugin{{Name: "site", SHA256: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", Decides: []string{"login", "target"}}}
	f.writeBundle(2)
	bert.Wait()
	cutWithin(t, goes, patience)
	if r := f.closing(); r.User != "bert" || r.Ended != endPolicy || r.Reason != pluginDenied {
		t.Errorf("record: %+v", r)
	}
	if r := decode[pluginsRecord](t, f.next(eventPlugins)); r != (pluginsRecord{Outcome: pluginsAsked, Policy: 2, Asked: 4, Cut: 2}) {
		t.Errorf("record: %+v", r)
	}
	if _, err := stays.Write([]byte("x")); err != nil {
		t.Errorf("what the plugin allows: %v", err)
	} else if _, err := io.ReadFull(stays, make([]byte, 1)); err != nil {
		t.Errorf("what the plugin allows: %v", err)
	}
	if s := f.server.status(time.Now()).Plugins; s == nil || !s.Works || !slices.Equal(s.Names, []string{"site"}) {
		t.Errorf("status: %+v", s)
	}

	// The host ends: said in the log, to whoever listens, and in the status; who is in stays, and nobody else comes.
	end()
	if r := decode[pluginsRecord](t, f.next(eventPlugins)); r.Outcome != pluginsEnded || <-notices != r {
		t.Errorf("record: %+v", r)
	}
	if s := f.server.status(time.Now()).Plugins; s == nil || s.Works {
		t.Errorf("status: %+v", s)
	}
	if _, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
		t.Error("somebody got in without the plugin")
	}
	if r := f.closing(); r.Reason != pluginFailed {
		t.Errorf("record: %+v", r)
	}
	if n := len(f.server.sessions.list()); n != 1 {
		t.Errorf("%d are in, want anna", n)
	}
}

// TestPluginThatNeverAnswers cuts all who it did not allow within the limit, and not earlier; however many they are, it is asked a few at once.
func TestPluginThatNeverAnswers(t *testing.T) {
	f := newFixture(t)
	f.policy.Expires = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	f.policy.Plugins = []policies.Plugin{{Name: "site", SHA256: "00", Decides: []string{"login"}}}
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := rule(&bundle.Bundle{Policy: f.policy, Inventory: f.fleet}, keys)
	if err != nil {
		t.Fatal(err)
	}
	r.limits.MaxPerEngineer = 100
	synctest.Test(t, func(t *testing.T) {
		d := &decider{judge: func(_ int, q plugin.Request) string {
			if q.Source == "127.0.0.2" {
				return plugin.Allowed
			}
			return plugin.Failed
		}}
		s := &Server{log: slog.New(slog.DiscardHandler), audit: appends(func() error { return nil }), repinned: make(chan struct{}, 1)}
		var end func()
		s.plugins, end = d.relay(t)
		s.ruling.Store(r)
		s.pinPlugins(f.policy)
		var visits []*visit
		for i := range 50 {
			here, there := net.Pipe()
			defer there.Close()
			defer here.Close()
			source := netip.MustParseAddr("127.0.0.1")
			if i == 0 {
				source = netip.MustParseAddr("127.0.0.2")
			}
			v := &visit{server: s, conn: here, source: netip.AddrPortFrom(source, 1), began: time.Now(), ruling: r,
				login: policies.Login{Source: source, User: "anna", Key: f.anna.Authorized()}}
			if full := s.sessions.enter(v, v.login, policies.KindEngineer, r.limits); full != "" {
				t.Fatal(full)
			}
			visits = append(visits, v)
		}
		watching, stop := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() { s.watchPlugins(watching) })
		s.askAgain()
		time.Sleep(replugLimit - time.Nanosecond)
		synctest.Wait()
		for _, v := range visits {
			if v.reason() != policies.Allowed {
				t.Fatal("cut before the limit")
			}
		}
		time.Sleep(2*time.Second + time.Nanosecond)
		synctest.Wait()
		for i, v := range visits {
			if allowed := v.reason() == policies.Allowed; allowed != (i == 0) {
				t.Errorf("visit %d: %s", i, v.reason())
			}
		}
		if d.most > replugAtOnce {
			t.Errorf("%d questions at once, want at most %d", d.most, replugAtOnce)
		}
		stop()
		watch.Wait()
		end()
		<-s.plugins.Done()
	})
}

// TestHungPluginHostDelaysNoRevocation has a host of plugins that reads nothing, and an engineer who asks all the time: who a new policy
// takes out is out within the second all the same.
func TestHungPluginHostDelaysNoRevocation(t *testing.T) {
	f := newFixture(t)
	f.config.Plugin = PluginConfig{Directory: "/", User: "plugins"}
	f.policy.Plugins = []policies.Plugin{{Name: "site", SHA256: strings.Repeat("0", 64), Decides: []string{policies.DecidesTarget}, Deadline: policies.Duration(time.Second)}}
	f.writeBundle(2)
	here, there := net.Pipe() // holds nothing: the pins of the start hang already
	f.startWith(func(s *Server) { s.plugins = plugin.NewRelay(here) })
	t.Cleanup(func() { there.Close() })
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	gone := make(chan struct{})
	go func() {
		bert.Wait()
		close(gone)
	}()
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			if conn, err := anna.Dial("tcp", "se-1:22"); err == nil {
				t.Error("a target was opened that no plugin allowed")
				conn.Close()
			}
		})
	}
	f.policy.Version++
	f.policy.Engineers, f.policy.Grants = f.policy.Engineers[:1], f.policy.Grants[:1]
	began := time.Now()
	f.writeBundle(2)
	select {
	case <-gone:
		if took := time.Since(began); took > 3*time.Second { // a second, on a busy machine
			t.Errorf("it took %v", took)
		}
	case <-time.After(patience):
		t.Error("bert, whom no policy knows any more, is still in")
	}
	there.Close()
	anna.Close()
	asking.Wait()
}

// stubborn is a host that hangs until it is killed, or does not die of that.
type stubborn struct {
	ended  chan struct{}
	killed int
	err    error
}

func (s *stubborn) Kill() error {
	if s.killed++; s.err == nil && s.killed == 1 {
		close(s.ended)
	}
	return s.err
}

// TestHungHostDoesNotHoldUpTheEnd: the bastion ends though its host of plugins does not.
func TestHungHostDoesNotHoldUpTheEnd(t *testing.T) {
	for _, err := range []error{nil, os.ErrPermission} {
		synctest.Test(t, func(t *testing.T) {
			began, host := time.Now(), &stubborn{ended: make(chan struct{}), err: err}
			awaitHost(host.ended, host, slog.New(slog.DiscardHandler))
			if took := time.Since(began); took != hostLimit || host.killed != 1 {
				t.Errorf("%v: it took %v, killed %d times", err, took, host.killed)
			}
		})
	}
}
