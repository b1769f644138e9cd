package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lines reads a stream of events.
type stream struct {
	t   *testing.T
	res *http.Response
	in  *bufio.Reader
}

func listen(t *testing.T, c *http.Client, base string) (*stream, *http.Response) {
	t.Helper()
	res, err := c.Get(base + "/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return &stream{t, res, bufio.NewReader(res.Body)}, res
}

// change is the next change's tag.
func (s *stream) change() string {
	s.t.Helper()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the stream ended: %v", err)
		}
		if tag, ok := strings.CutPrefix(line, "data: "); ok {
			return strings.TrimSpace(tag)
		}
	}
}

// A listener hears of each change, and of the state as it is when it comes.
func TestEvents(t *testing.T) {
	var l live
	in := small()
	l.in.Store(&in)
	server := httptest.NewServer(Handler(Config{Gather: l.gather}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	s, res := listen(t, server.Client(), server.URL)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %s, %s", res.Status, res.Header.Get("Content-Type"))
	}
	first := s.change()
	paused := small()
	paused.Pause.On = true
	l.in.Store(&paused)
	if second := s.change(); second == first {
		t.Errorf("got %s twice", first)
	}
}

// Places for listeners are bounded, in all and for one engineer, and come back.
func TestListenersBounded(t *testing.T) {
	f := newFeed(nil, time.Now, nil)
	var leave []func()
	for range maxOfEngineer {
		l, ok := f.enter("anna")
		if !ok {
			t.Fatal("a place is missing")
		}
		leave = append(leave, l)
	}
	if _, ok := f.enter("anna"); ok {
		t.Error("anna has one too many")
	}
	for i := range maxListeners - maxOfEngineer {
		if _, ok := f.enter(string(rune('a' + i))); !ok {
			t.Fatal("a place is missing")
		}
	}
	if _, ok := f.enter("zoe"); ok {
		t.Error("one too many in all")
	}
	leave[0]()
	if _, ok := f.enter("zoe"); !ok {
		t.Error("the place did not come back")
	}
	w := httptest.NewRecorder()
	f.serve(w, httptest.NewRequest(http.MethodGet, "/events", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("X-Reason") != Busy || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d and %q, want 503 and %s", w.Code, w.Header().Get("X-Reason"), Busy)
	}
}

// A view is made at most once in the interval, or in four times what it took; one that cannot be made leaves the old one.
func TestFeedRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made, takes, failed := 0, time.Duration(0), error(nil)
		var told error
		f := newFeed(func(context.Context) (View, error) {
			made++
			time.Sleep(takes)
			return View{Policy: uint64(made)}, failed
		}, time.Now, func(err error) { told = err })
		for _, tt := range []struct {
			after, takes time.Duration
			want         int
		}{{0, 0, 1}, {0, 0, 1}, {lookInterval - 1, 0, 1}, {1, 5 * time.Second, 2}, {lookInterval, 0, 2}, {19 * time.Second, 0, 3}} {
			time.Sleep(tt.after)
			takes = tt.takes
			if v := f.view(t.Context()); v == nil || made != tt.want {
				t.Errorf("after %v: %d made, want %d", tt.after, made, tt.want)
			}
		}
		failed = errors.New("the store does not answer")
		time.Sleep(lookInterval)
		if v := f.view(t.Context()); v == nil || v.Policy != 3 || !errors.Is(told, failed) {
			t.Errorf("got %+v, told %v, want the old view and the failure", v, told)
		}
	})
}

// A view that is old says so, and the next reader after a night gets a new one.
func TestFeedIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made, failed := 0, error(nil)
		f := newFeed(func(context.Context) (View, error) {
			made++
			time.Sleep(time.Second)
			return View{Policy: uint64(made), Made: time.Now(), Mood: Calm, Alerts: []Alert{}}, failed
		}, time.Now, func(error) {})
		if v := f.view(t.Context()); v == nil || v.Stale || v.Mood != Calm {
			t.Fatalf("at first: %+v", v)
		}
		failed = errors.New("the store does not answer")
		time.Sleep(staleAfter / 2)
		if v := f.view(t.Context()); v.Stale {
			t.Errorf("after half a minute: %+v", v)
		}
		time.Sleep(12 * time.Hour)
		v := f.view(t.Context())
		if v == nil || !v.Stale || v.Mood != Danger || len(v.Alerts) != 1 || v.Alerts[0].Code != "stale" || v.Policy != 1 {
			t.Errorf("after a night without a store: %+v", v)
		}
		failed = nil
		got := make(chan *View, 2)
		for range 2 {
			go func() { got <- f.view(t.Context()) }()
		}
		for range 2 {
			if v := <-got; v == nil || v.Stale || v.Mood != Calm || len(v.Alerts) != 0 {
				t.Errorf("one of two who come at once gets %+v", v)
			}
		}
	})
}

// Whoever comes while the first view is made waits for it; later, nobody waits.
func TestFeedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int32
		f := newFeed(func(context.Context) (View, error) {
			time.Sleep(time.Second)
			made.Add(1)
			return View{}, nil
		}, time.Now, func(error) {})
		got := make(chan *View, 10)
		for range 10 {
			go func() { got <- f.view(t.Context()) }()
		}
		for range 10 {
			if <-got == nil {
				t.Error("one got no view")
			}
		}
		if n := made.Load(); n != 1 {
			t.Errorf("%d views were made at once, want 1", n)
		}
		time.Sleep(lookInterval)
		go f.look(t.Context())
		synctest.Wait()
		began := time.Now()
		if f.view(t.Context()) == nil || time.Since(began) != 0 {
			t.Errorf("waited %v for a view that is being made anew", time.Since(began))
		}
		time.Sleep(2 * time.Second)
	})
}

// A stream ends when the engineer's leave does.
func TestStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := small()
		var l live
		l.in.Store(&in)
		f := newFeed(l.gather, time.Now, func(error) {})
		var left atomic.Bool
		client, server := net.Pipe()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.serve(w, r.WithContext(context.WithValue(r.Context(), decisionKey, func() bool { return !left.Load() })))
		})}
		go srv.Serve(&oneConn{conn: server, done: make(chan struct{})})
		defer srv.Close()
		if _, err := io.WriteString(client, "GET /events HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { io.Copy(io.Discard, client); close(ended) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case <-ended:
			t.Fatal("it ended while the engineer may look")
		default:
		}
		left.Store(true)
		began := time.Now()
		<-ended
		if took := time.Since(began); took > keepAlive {
			t.Errorf("it went on for %v", took)
		}
	})
}

// A stream outlives the deadlines of requests and pages, in both versions of HTTP.
func TestStreamLasts(t *testing.T) {
	for _, old := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			in := small()
			var l live
			l.in.Store(&in)
			f := newFeed(l.gather, time.Now, func(error) {})
			client, server := net.Pipe()
			protocols := &http.Protocols{}
			protocols.SetHTTP1(old)
			protocols.SetUnencryptedHTTP2(!old)
			srv := &http.Server{Handler: http.HandlerFunc(f.serve), ReadTimeout: headerDeadline, ReadHeaderTimeout: headerDeadline, WriteTimeout: writeDeadline, IdleTimeout: idleDeadline, Protocols: protocols}
			go srv.Serve(&oneConn{conn: server, done: make(chan struct{})})
			defer srv.Close()
			tr := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return client, nil }}
			defer tr.CloseIdleConnections()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://page/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			began, lines := time.Now(), bufio.NewScanner(res.Body)
			for time.Since(began) < 2*time.Minute {
				if !lines.Scan() {
					t.Fatalf("%s: it ended after %v: %v", res.Proto, time.Since(began), lines.Err())
				}
			}
		})
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { close(l.done); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
