package server

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/hint"
	"mayfly/tunnel/wire"
)

const goodConfig = `{"name":"se-1","fqdn":"se-1.fleet.test","listen":"0.0.0.0:51820","register":":7443","network":"10.64.1.0/24",
"certificate":"/c","key":"/k","private_key":"/w","control":"/s","management":["10.77.0.0/24"],"outside":"eth0"}`

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig([]byte(goodConfig))
	if err != nil || c.Address().String() != "10.64.1.1" {
		t.Fatalf("got %+v, %v", c, err)
	}
	for _, x := range []struct{ old, new, want string }{
		{`"name":"se-1",`, ``, "no name"},
		{`:51820`, `:0`, "no listen"},
		{`0.0.0.0:51820`, `192.0.2.1:51820`, "every address"},
		{`10.64.1.0/24`, `10.64.1.1/24`, "host bits"},
		{`10.64.1.0/24`, `2001:db8::/64`, "an IPv4 network"},
		{`10.64.1.0/24`, `10.64.1.0/30`, "/16 to /29"},
		{`10.64.1.0/24`, `10.64.0.0/15`, "/16 to /29"},
		{`10.64.1.0/24`, `198.18.0.0/24`, "private network"},
		{`["10.77.0.0/24"]`, `[]`, "no management"},
		{`["10.77.0.0/24"]`, `["10.64.0.0/16"]`, "overlaps"},
		{`"outside":"eth0"`, `"outside":"eth0","extra":1`, "unknown field"},
		{`"outside":"eth0"`, `"outside":"eth0","name":"x"`, "twice"},
	} {
		_, err := ParseConfig([]byte(strings.Replace(goodConfig, x.old, x.new, 1)))
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: got %v, want %q", x.new, err, x.want)
		}
	}
}

func TestLoadConfigHints(t *testing.T) {
	for _, text := range []string{"", "{", goodConfig + "{}", strings.Replace(goodConfig, `"name":"se-1",`, ``, 1), strings.Replace(goodConfig, `10.64.1.0/24`, `10.0.0.0/8`, 1)} {
		path := filepath.Join(t.TempDir(), "server.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(path); err == nil || hint.Of(err) == "" || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: got %v, hint %q, want an error with the path and a hint", text, err, hint.Of(err))
		}
	}
}

func testServer() *Server {
	peers, _ := table("10.64.1.0/24")
	return &Server{
		config: Config{Name: "se-1"}, log: slog.New(slog.DiscardHandler), peers: peers, drain: newDrain(), sources: newSources(MaxConnections, MaxConnectionsPerSource),
	}
}

func TestControl(t *testing.T) {
	s := testServer()
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/status", "", 200, `"draining":false`},
		{"POST", "/status", "", 405, "wrong_method"},
		{"GET", "/drain", "", 405, "wrong_method"},
		{"POST", "/drain", "", 400, "malformed"},
		{"POST", "/drain", `{"limit_ns":-1}`, 400, "malformed"},
		{"POST", "/drain", `{"limit_ns":999999999999999999}`, 400, "malformed"},
		{"POST", "/drain", `{"limit_ns":600000000001}`, 400, "malformed"}, // policies.MaxDrain and one
		{"POST", "/drain", `{"limit_ns":1,"x":2}`, 400, "malformed"},
		{"POST", "/drain", strings.Repeat(" ", wire.MaxBody+1), 413, "too_large"},
		{"GET", "/other", "", 404, "not_found"},
		{"GET", "/status", "", 200, `"draining":false`}, // none of them began a drain
		{"POST", "/drain", `{"limit_ns":60000000000}`, 200, `"draining":true,"drained":false`},
	} {
		w := httptest.NewRecorder()
		s.control().ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %.40s: got %d %s, want %d %s", c.method, c.path, c.body, w.Code, w.Body, c.code, c.want)
		}
	}
}

func TestInsideIsForPeersAlone(t *testing.T) {
	s := testServer()
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", wire.PathNotice, "", "not_yours"},
		{"POST", wire.PathNotice, "", "wrong_method"},
		{"POST", wire.PathRelease, "{", "malformed"},
		{"POST", wire.PathRelease, `{"public_key":"x"}`, "bad_key"},
		{"POST", wire.PathRelease, `{"public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB="}`, "bad_key"},
		{"POST", wire.PathRelease, `{"public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`, "not_yours"},
		{"POST", wire.PathRegister, `{}`, "not_found"},
	} {
		w := httptest.NewRecorder()
		s.inside().ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %s: got %s, want %s", c.method, c.path, c.body, w.Body, c.want)
		}
	}
}

// FuzzBodies sends any body to every endpoint: no panic, and never a success that was not earned.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{`{"limit_ns":1}`, `{"public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`, `{}`, `[`, `null`, "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := testServer()
		for _, c := range []struct {
			h    http.Handler
			path string
		}{{s.outside(), wire.PathRegister}, {s.inside(), wire.PathRelease}, {s.control(), PathDrain}} {
			w := httptest.NewRecorder()
			c.h.ServeHTTP(w, httptest.NewRequest("POST", c.path, bytes.NewReader(body)))
			if w.Code == http.StatusOK && c.path == wire.PathRelease {
				t.Errorf("%s %q: %d %s", c.path, body, w.Code, w.Body)
			}
			if draining, _, _ := s.drain.state(); w.Code == http.StatusOK && c.path == PathDrain && !draining {
				t.Errorf("an order that began nothing: %q", body)
			}
		}
	})
}
