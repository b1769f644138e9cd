package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// server is a mirror of the test's; it counts what it was asked.
type server struct {
	*httptest.Server
	asked atomic.Int32
}

func newServer(t *testing.T, handler http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

// bootFrom is a boot that has got as far as its mirrors.
func bootFrom(t *testing.T, ca []byte, urls ...string) (*boot, *bytes.Buffer) {
	t.Helper()
	k := &ticket.Ticket{NotAfter: time.Now().Add(time.Minute), CA: string(ca)}
	for _, u := range urls {
		k.Mirrors = append(k.Mirrors, u+"/")
	}
	m, err := newMirrors(k)
	if err != nil {
		t.Fatal(err)
	}
	console := new(bytes.Buffer)
	return &boot{console: console, ticket: k, mirrors: m}, console
}

func anything([]byte) error { return nil }

// wants refuses all other text, as a hash would.
func wants(text string) func([]byte) error {
	return func(data []byte) error {
		if string(data) != text {
			return refusef(notTicketed, "it says %q", data)
		}
		return nil
	}
}

// A mirror that does not serve what was signed is left for the next one, and how it failed decides whether it is asked again.
func TestMirrors(t *testing.T) {
	ca, _ := certificates(t, "x")
	elsewhere := newServer(t, says("right"))
	bad := map[string]http.HandlerFunc{
		"lies":      says("wrong"),
		"oversized": says("rightright"),
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for _, err := w.Write(make([]byte, 1<<16)); err == nil; {
				_, err = w.Write(make([]byte, 1<<16))
			}
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/f", http.StatusFound)
		},
		"has nothing": http.NotFound,
		"is broken":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusBadGateway) },
		"resets": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		},
		"huge header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHeaders))
			io.WriteString(w, "right")
		},
	}
	for name, handler := range bad {
		t.Run(name, func(t *testing.T) {
			first, second := newServer(t, handler), newServer(t, says("right"))
			b, console := bootFrom(t, ca, first.URL, second.URL)
			got, err := b.fetchSmall(t.Context(), "f", 5, wants("right"))
			if err != nil || string(got) != "right" {
				t.Fatalf("%q, %v; console: %s", got, err, console)
			}
			if !strings.Contains(console.String(), "mirror 1: f: ") {
				t.Errorf("the console says nothing of the first mirror: %s", console)
			}
			if _, err := b.fetchSmall(t.Context(), "g", 5, wants("right")); err != nil {
				t.Errorf("the next file: %v", err)
			}
			if n := first.asked.Load(); n != 1 {
				t.Errorf("the first mirror was asked %d times: the second served well", n)
			}
		})
	}
	if n := elsewhere.asked.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// When every mirror failed, the reason is the one that they have in common, and each is named.
func TestMirrorsFail(t *testing.T) {
	ca, _ := certificates(t, "x")
	liar, liar2, big, none := newServer(t, says("wrong")), newServer(t, says("other")), newServer(t, says("too long")), newServer(t, http.NotFound)
	for _, tt := range []struct {
		name    string
		mirrors []*server
		want    string
		say     []string
	}{
		{"one that lies", []*server{liar}, notTicketed, []string{`"wrong"`}},
		{"two that lie", []*server{liar, liar2}, notTicketed, []string{`"wrong"`, `"other"`}},
		{"each in its way", []*server{liar, big}, fetchFailed, []string{`"wrong"`, "more than 5"}},
		{"one without", []*server{none}, fetchFailed, []string{"status 404"}},
		{"one lies, one is without", []*server{liar, none}, fetchFailed, []string{`"wrong"`, "status 404"}},
		{"one is without, one lies", []*server{none, liar}, fetchFailed, []string{`"wrong"`, "status 404"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var urls []string
			before := int32(0)
			for _, m := range tt.mirrors {
				urls = append(urls, m.URL)
				before += m.asked.Load()
			}
			b, _ := bootFrom(t, ca, urls...)
			_, err := b.fetchSmall(t.Context(), "f", 5, wants("right"))
			if reasonOf(err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
			for i, m := range tt.mirrors {
				if !strings.Contains(err.Error(), hostOf(urls[i])) || !strings.Contains(err.Error(), tt.say[i]) && !strings.Contains(err.Error(), tt.say[len(tt.say)-1-i]) {
					t.Errorf("%v: it does not name mirror %d", err, i+1)
				}
				before -= m.asked.Load()
			}
			if before != -int32(len(tt.mirrors)) {
				t.Errorf("asked %d times, want each mirror once", -before)
			}
		})
	}
	b, _ := bootFrom(t, ca, liar.URL)
	b.ticket.NotAfter = time.Now()
	if _, err := b.fetchSmall(t.Context(), "f", 5, anything); reasonOf(err) != fetchFailed || !strings.Contains(err.Error(), "not asked") {
		t.Errorf("after the ticket's end: %v, want %s", err, fetchFailed)
	}
	b, _ = bootFrom(t, ca, liar.URL, liar2.URL)
	_, err := b.fetchSmall(t.Context(), "f", 5, func([]byte) error { return &release.Refusal{Reason: release.Expired, Err: io.EOF} })
	if asked := liar2.asked.Load(); reasonOf(err) != release.Expired || b.mirrors.at != 0 {
		t.Errorf("what no mirror can mend: %v, mirror %d after %d questions", err, b.mirrors.at+1, asked)
	}
}

// An HTTPS mirror is one of the fleet's CA, for its address, with TLS 1.3.
func TestMirrorHTTPS(t *testing.T) {
	ca, certificate := certificates(t, "controller.demo.test", net.IPv4(127, 0, 0, 1))
	_, stranger := certificates(t, "controller.demo.test", net.IPv4(127, 0, 0, 1))
	start := func(c *tls.Config) string {
		s := httptest.NewUnstartedServer(says("right"))
		s.TLS = c
		s.Config.ErrorLog = discardLog
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	for _, tt := range []struct {
		name string
		tls  *tls.Config
		good bool
	}{
		{"the fleet's", &tls.Config{Certificates: []tls.Certificate{certificate}}, true},
		{"a stranger's", &tls.Config{Certificates: []tls.Certificate{stranger}}, false},
		{"an older TLS", &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: tls.VersionTLS12}, false},
	} {
		b, _ := bootFrom(t, ca, start(tt.tls))
		err := get(t.Context(), b.mirrors.client, b.mirrors.all[0].url+"f", turn{time: time.Minute}, func(r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// What arrives too slowly is given up, whatever trickles.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name string
			each int // bytes a second
			slow bool
		}{{"nothing", 0, true}, {"a byte", 1, true}, {"just under", paceBytes/int(paceWindow.Seconds()) - 1, true}, {"enough", paceBytes / int(paceWindow.Seconds()) * 5 / 4, false}} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*paceWindow)
			p := &paced{r: bytes.NewReader(make([]byte, 100*paceBytes))}
			start := time.Now()
			stop := p.watch(turn{time: time.Hour}, start, func(error) { cancel() })
			for ctx.Err() == nil {
				time.Sleep(time.Second)
				io.ReadFull(p, make([]byte, tt.each))
			}
			if took := time.Since(start); (took < 2*paceWindow) != tt.slow {
				t.Errorf("%s: given up after %s", tt.name, took)
			}
			stop()
			cancel()
		}
	})
}

// byRate is a network of mirrors: how many bytes a second each one's host brings. Below 0 it resets.
type byRate map[string]int

func (n byRate) RoundTrip(r *http.Request) (*http.Response, error) {
	rate := n[r.URL.Hostname()]
	if rate < 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: http.StatusOK, Body: &trickle{ctx: r.Context(), rate: rate, left: rootSize}, Request: r}, nil
}

const rootSize = 32 << 20

type trickle struct {
	ctx        context.Context
	rate, left int
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), b.left)
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(time.Duration(n) * time.Second / time.Duration(b.rate)):
	}
	b.left -= n
	return n, nil
}

func (*trickle) Close() error { return nil }

// Mirrors that keep the least pace do not take the time of an honest one: it has its turn while the ticket may be used.
func TestSlowMirrors(t *testing.T) {
	const (
		slow = 70 << 10
		fast = 4 << 20
		line = 400 << 10 // of all of them, where the machine's own line is slow: more than a turn of three, less than the ticket's time
	)
	ca, _ := certificates(t, "x")
	for _, tt := range []struct {
		name   string
		rates  []int
		failed bool
		within time.Duration
	}{
		{"one is slow", []int{slow, fast}, false, time.Minute},
		{"all but the last are slow", []int{slow, slow, slow, slow, slow, slow, slow, fast}, false, 2 * time.Minute},
		{"a slow line", []int{line, line, line}, false, 3 * time.Minute},
		{"a slow line, the other mirrors are down", []int{line, -1, -1}, false, 3 * time.Minute},
		{"one mirror on a slow line", []int{line}, false, 2 * time.Minute},
		{"all are slow", []int{slow, slow}, true, 4 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := byRate{}
				var urls []string
				for i, rate := range tt.rates {
					host := fmt.Sprintf("m%d", i)
					urls, network[host] = append(urls, "http://"+host), rate
				}
				b, console := bootFrom(t, ca, urls...)
				b.mirrors.client.Transport = network
				b.ticket.NotAfter = time.Now().Add(4 * time.Minute)
				start := time.Now()
				err := b.fetch(t.Context(), release.RootFile, rootSize, func(body io.Reader) error {
					n, err := io.Copy(io.Discard, body)
					if err == nil && n != rootSize {
						t.Errorf("%d bytes", n)
					}
					return err
				})
				if took := time.Since(start); (err != nil) != tt.failed || took > tt.within {
					t.Errorf("%v after %s; console: %s", err, took, console)
				}
			})
		})
	}
}

func TestBackoff(t *testing.T) {
	for round := 1; round <= 100; round++ {
		least, most := backoff(round, 0), backoff(round, 1)
		if least <= 0 || most > longestWait || most != 2*least || round > 1 && most < backoff(round-1, 1) {
			t.Errorf("round %d: from %s to %s", round, least, most)
		}
	}
	if backoff(1, 1) != firstWait || backoff(100, 1) != longestWait {
		t.Errorf("from %s to %s", backoff(1, 1), backoff(100, 1))
	}
}
