package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/grant"
	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

// desk answers as it is told, and remembers who asked.
type desk struct {
	answer grant.Answer
	err    error
	asked  []string
}

func (d *desk) Ask(_ context.Context, host, protocol string) (grant.Answer, error) {
	d.asked = append(d.asked, "ask "+host+" "+protocol)
	return d.answer, d.err
}

func (d *desk) Back(_ context.Context, host string) (bool, error) {
	d.asked = append(d.asked, "back "+host)
	return true, d.err
}

func hosts() []inventory.Server {
	return []inventory.Server{
		{Name: "box-1", Updates: "fleetlock", UpdateID: "c988d2509fdf5cdcbed39037c56406fb", Address: netip.MustParsePrefix("192.0.2.1/24")},
		{Name: "box-2", Updates: "omaha", UpdateID: "other", Address: netip.MustParsePrefix("192.0.2.1/24")},
	}
}

// zincati is a body as the protocol's page has it.
const zincati = `{
  "client_params": {
    "group": "default",
    "id": "c988d2509fdf5cdcbed39037c56406fb"
  }
}
`

func TestFleetLock(t *testing.T) {
	yes := grant.Answer{Granted: true, Reason: plan.Asked, Until: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	for _, tt := range []struct {
		name, method, path, header, body, from string
		desk                                   desk
		code                                   int
		kind, value                            string
		asked                                  string
	}{
		{"granted", "POST", PathPreReboot, "true", zincati, "192.0.2.1:9", desk{answer: yes}, 200, "granted", "until 2026-11-20T12:00:00Z", "ask box-1 fleetlock"},
		{"held", "POST", PathPreReboot, "true", zincati, "192.0.2.1:9", desk{answer: grant.Answer{Reason: plan.Capped, Why: "box-3 since noon"}}, 409, "held_cap", "box-3 since noon", "ask box-1 fleetlock"},
		{"the store is away", "POST", PathPreReboot, "true", zincati, "192.0.2.1:9", desk{err: errors.New("secret path")}, 503, "failed", "ask again", "ask box-1 fleetlock"},
		{"steady", "POST", PathSteadyState, "true", zincati, "192.0.2.1:9", desk{}, 200, "released", "", "back box-1"},
		{"steady, the store is away", "POST", PathSteadyState, "true", zincati, "192.0.2.1:9", desk{err: errors.New("secret path")}, 503, "failed", "ask again", "back box-1"},
		{"a field that is not there yet", "POST", PathSteadyState, "true", strings.Replace(zincati, `"group"`, `"new": 1, "group"`, 1), "192.0.2.1:9", desk{}, 200, "released", "", "back box-1"},
		{"IPv4 in IPv6", "POST", PathSteadyState, "true", zincati, "[::ffff:192.0.2.1]:9", desk{}, 200, "released", "", "back box-1"},
		{"by GET", "GET", PathPreReboot, "true", zincati, "192.0.2.1:9", desk{answer: yes}, 405, "method_not_post", "", ""},
		{"no header", "POST", PathPreReboot, "", zincati, "192.0.2.1:9", desk{answer: yes}, 400, "header_missing", "", ""},
		{"another header", "POST", PathPreReboot, "yes", zincati, "192.0.2.1:9", desk{answer: yes}, 400, "header_missing", "", ""},
		{"from elsewhere", "POST", PathPreReboot, "true", zincati, "192.0.2.2:9", desk{answer: yes}, 403, "host_unknown", "", ""},
		{"an unknown id", "POST", PathPreReboot, "true", strings.Replace(zincati, "c988", "d988", 1), "192.0.2.1:9", desk{answer: yes}, 403, "host_unknown", "", ""},
		{"a host that asks by Omaha", "POST", PathPreReboot, "true", strings.Replace(zincati, "c988d2509fdf5cdcbed39037c56406fb", "other", 1), "192.0.2.1:9", desk{answer: yes}, 403, "host_unknown", "", ""},
		{"no JSON", "POST", PathPreReboot, "true", "{", "192.0.2.1:9", desk{answer: yes}, 400, "request_malformed", "", ""},
		{"two values", "POST", PathPreReboot, "true", zincati + zincati, "192.0.2.1:9", desk{answer: yes}, 400, "request_malformed", "", ""},
		{"nothing", "POST", PathPreReboot, "true", "{}", "192.0.2.1:9", desk{answer: yes}, 400, "request_malformed", "client_params is missing", ""},
		{"no id", "POST", PathPreReboot, "true", `{"client_params":{"id":"","group":"default"}}`, "192.0.2.1:9", desk{answer: yes}, 400, "request_malformed", "id", ""},
		{"a group that is none", "POST", PathPreReboot, "true", `{"client_params":{"id":"x","group":"a b"}}`, "192.0.2.1:9", desk{answer: yes}, 400, "request_malformed", "group", ""},
		{"too long", "POST", PathPreReboot, "true", zincati + strings.Repeat(" ", MaxBody), "192.0.2.1:9", desk{answer: yes}, 400, "request_malformed", "longer than", ""},
	} {
		var counted []string
		s := &Service{Desk: &tt.desk, Hosts: hosts, Asked: func(a string) { counted = append(counted, a) }, Log: slog.New(slog.DiscardHandler)}
		r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
		r.RemoteAddr = tt.from
		if tt.header != "" {
			r.Header.Set("fleet-lock-protocol", tt.header)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		var out struct{ Kind, Value string }
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Errorf("%s: %v: %s", tt.name, err, w.Body)
		}
		if w.Code != tt.code || out.Kind != tt.kind || !strings.Contains(out.Value, tt.value) || out.Value == "" || strings.Contains(out.Value, "secret") {
			t.Errorf("%s: got %d %+v, want %d %s %q", tt.name, w.Code, out, tt.code, tt.kind, tt.value)
		}
		if got := strings.Join(tt.desk.asked, ", "); got != tt.asked {
			t.Errorf("%s: the desk was asked %q, want %q", tt.name, got, tt.asked)
		}
		if len(counted) != 1 {
			t.Errorf("%s: counted %q", tt.name, counted)
		}
	}
	s := &Service{Desk: &desk{}, Hosts: hosts, Asked: func(string) {}, Log: slog.New(slog.DiscardHandler)}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/other", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("another path: got %d", w.Code)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{zincati, `{"client_params":{"id":"x","group":"default"}}`, `{"client_params":null}`, `[]`, `{"client_params":{"id":"x","group":"default"},"client_params":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Parse(body)
		if err != nil {
			return
		}
		if r.ID == "" || len(r.ID) > 128 || !group.MatchString(r.Group) {
			t.Errorf("%q: got %+v", body, r)
		}
		data, err := json.Marshal(map[string]Request{"client_params": r})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(data); err != nil || again != r {
			t.Errorf("%q: got %+v, %v, want %+v", data, again, err, r)
		}
	})
}
