package omaha

import (
	"context"
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/grant"
	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

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

func fleet() inventory.Fleet {
	return inventory.Fleet{
		Servers: []inventory.Server{
			{Name: "box-1", Role: inventory.RoleHost, Updates: "omaha", UpdateID: "4f1e0c9e9b5e4c0d8f0a7d1b2c3d4e5f", Address: netip.MustParsePrefix("192.0.2.1/24")},
			{Name: "box-2", Role: inventory.RoleHost, Updates: "fleetlock", UpdateID: "other", Address: netip.MustParsePrefix("192.0.2.1/24")},
		},
		Updates: []inventory.Update{{App: "e96281a6-d1af-4bde-9a0a-97b76e56dc57", Track: "stable", Version: "4230.2.1", URL: "https://mirror.lab.test/4230.2.1/?a=\"&b", Package: "flatcar_production_update.gz",
			Size: 480, SHA1: "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", SHA256: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}},
	}
}

// recorded is a message in testdata: of the form that update_engine sends.
func recorded(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// post asks, and parses the answer strictly.
func post(t *testing.T, s *Service, from, body string) (int, string, response) {
	t.Helper()
	r := httptest.NewRequest("POST", Path, strings.NewReader(body))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	var out response
	if w.Code == 200 {
		if err := xml.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if out.Protocol != "3.0" || len(out.Apps) != 1 {
			t.Errorf("got %+v", out)
		}
	}
	return w.Code, w.Body.String(), out
}

func TestOmaha(t *testing.T) {
	yes := grant.Answer{Granted: true, Reason: plan.Asked, Until: time.Now()}
	no := grant.Answer{Reason: plan.Capped, Why: "box-3"}
	old := recorded(t, "check.xml")
	for _, tt := range []struct {
		name, body, from string
		desk             desk
		code             int
		check            string // its status
		asked            string
		counted          string
	}{
		{"granted", old, "192.0.2.1:9", desk{answer: yes}, 200, "ok", "ask box-1 omaha", "granted"},
		{"held", old, "192.0.2.1:9", desk{answer: no}, 200, "noupdate", "ask box-1 omaha", "held"},
		{"has it", strings.Replace(old, `version="4152.2.0"`, `version="4230.2.1"`, 1), "192.0.2.1:9", desk{answer: yes}, 200, "noupdate", "back box-1", "current"},
		{"a newer one goes back", strings.Replace(old, `version="4152.2.0"`, `version="4300.0.0"`, 1), "192.0.2.1:9", desk{answer: yes}, 200, "ok", "ask box-1 omaha", "granted"},
		{"the app's id without braces", strings.NewReplacer("{E9", "e9", "57}", "57").Replace(old), "192.0.2.1:9", desk{answer: yes}, 200, "ok", "ask box-1 omaha", "granted"},
		{"another track", strings.Replace(old, `track="stable"`, `track="beta"`, 1), "192.0.2.1:9", desk{answer: yes}, 200, "", "", "refused"},
		{"another app", strings.Replace(old, "{E96281A6", "{F96281A6", 1), "192.0.2.1:9", desk{answer: yes}, 200, "", "", "refused"},
		{"restarted", recorded(t, "restarted.xml"), "192.0.2.1:9", desk{answer: yes}, 200, "noupdate", "back box-1, back box-1", "released, current"},
		{"failed", recorded(t, "failed.xml"), "192.0.2.1:9", desk{answer: yes}, 200, "", "back box-1", "released"},
		{"written, restarts next", strings.Replace(recorded(t, "failed.xml"), `eventresult="0"`, `eventresult="1"`, 1), "192.0.2.1:9", desk{answer: yes}, 200, "", "", ""},
		{"a download began", recorded(t, "download.xml"), "192.0.2.1:9", desk{}, 200, "", "", ""},
		{"a ping", recorded(t, "ping.xml"), "192.0.2.1:9", desk{}, 200, "", "", ""},
		{"from elsewhere", old, "192.0.2.2:9", desk{answer: yes}, 403, "", "", "refused"},
		{"an unknown machine", strings.ReplaceAll(old, "4f1e", "5f1e"), "192.0.2.1:9", desk{answer: yes}, 403, "", "", "refused"},
		{"a host that asks by FleetLock", strings.ReplaceAll(old, "4f1e0c9e9b5e4c0d8f0a7d1b2c3d4e5f", "other"), "192.0.2.1:9", desk{answer: yes}, 403, "", "", "refused"},
		{"the store is away", old, "192.0.2.1:9", desk{err: errors.New("secret path")}, 503, "", "ask box-1 omaha", "failed"},
		{"no XML", "{}", "192.0.2.1:9", desk{answer: yes}, 400, "", "", "refused"},
	} {
		var counted []string
		s := &Service{Desk: &tt.desk, Fleet: fleet, Asked: func(a string) { counted = append(counted, a) }, Log: slog.New(slog.DiscardHandler)}
		code, text, out := post(t, s, tt.from, tt.body)
		if code != tt.code || strings.Contains(text, "secret") {
			t.Errorf("%s: got %d %s, want %d", tt.name, code, text, tt.code)
		}
		if got := strings.Join(tt.desk.asked, ", "); got != tt.asked {
			t.Errorf("%s: the desk was asked %q, want %q", tt.name, got, tt.asked)
		}
		if got := strings.Join(counted, ", "); got != tt.counted {
			t.Errorf("%s: counted %q, want %q", tt.name, got, tt.counted)
		}
		if code != 200 {
			continue
		}
		a := out.Apps[0]
		status := ""
		if a.Check != nil {
			status = a.Check.Status
		}
		if status != tt.check || (tt.counted == "refused") != (a.Status == statusUnknownApp) {
			t.Errorf("%s: got %s %q, want %q", tt.name, a.Status, status, tt.check)
		}
		if strings.Contains(tt.body, "<event") != (len(a.Events) > 0) || a.Status == statusOK && strings.Contains(tt.body, "<ping") != (a.Ping != nil) {
			t.Errorf("%s: events or pings are not answered: %s", tt.name, text)
		}
		if tt.check != "ok" {
			continue
		}
		u := fleet().Updates[0]
		if a.Check.URLs.URLs[0].CodeBase != u.URL || a.Check.Manifest.Version != u.Version || a.Check.Manifest.Packages[0] != (pack{u.SHA1, u.Package, u.Size, true}) ||
			a.Check.Manifest.Actions[0].Event != "postinstall" || a.Check.Manifest.Actions[0].SHA256 != u.SHA256 {
			t.Errorf("%s: got %s", tt.name, text)
		}
	}
	s := &Service{Desk: &desk{}, Fleet: fleet, Asked: func(string) {}, Log: slog.New(slog.DiscardHandler)}
	for path, want := range map[string]int{Path: 405, strings.TrimSuffix(Path, "/"): 405, Path + "x": 404, "/": 404} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("GET %s: got %d, want %d", path, w.Code, want)
		}
	}
}

// TestWaitsAreSaidOnce: a host asks every few minutes, and the log says once why it waits.
func TestWaitsAreSaidOnce(t *testing.T) {
	var log strings.Builder
	d := &desk{answer: grant.Answer{Reason: plan.Capped, Why: "box-3"}}
	s := &Service{Desk: d, Fleet: fleet, Asked: func(string) {}, Log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, reason := range []plan.Reason{plan.Capped, plan.Capped, plan.Closed, plan.Closed} {
		d.answer.Reason = reason
		post(t, s, "192.0.2.1:9", recorded(t, "check.xml"))
	}
	if n := strings.Count(log.String(), "waits for its update"); n != 2 {
		t.Errorf("said %d times, want 2:\n%s", n, log.String())
	}
}

func TestParseRefuses(t *testing.T) {
	app := `<app appid="a" version="1" track="stable" machineid="m"><updatecheck></updatecheck></app>`
	whole := `<?xml version="1.0" encoding="UTF-8"?><request protocol="3.0">` + app + `</request>`
	if _, err := Parse([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, body, want string }{
		{"empty", "", "not one whole document"},
		{"too long", whole + strings.Repeat(" ", MaxBody), "longer than"},
		{"not UTF-8", strings.Replace(whole, "stable", "\xff", 1), "not UTF-8"},
		{"a document type", `<!DOCTYPE r [<!ENTITY a "b">]>` + whole[38:], "a document type"},
		{"an entity", strings.Replace(whole, "stable", "&a;", 1), "no XML"},
		{"an instruction", strings.Replace(whole, "<request", "<?a b?><request", 1), "a processing instruction"},
		{"two documents", whole + whole[38:], "not one whole document"},
		{"half a document", whole[:len(whole)-10], "not one whole document"},
		{"text", strings.Replace(whole, "<app", "text<app", 1), "text between"},
		{"deep", `<request protocol="3.0">` + strings.Repeat("<a>", maxDepth) + strings.Repeat("</a>", maxDepth) + `</request>`, "deeper than"},
		{"many", `<request protocol="3.0">` + strings.Repeat("<a></a>", maxNodes) + `</request>`, "parts"},
		{"a long attribute", strings.Replace(whole, "stable", strings.Repeat("a", maxText+1), 1), "is longer than"},
		{"an attribute twice", strings.Replace(whole, `track="stable"`, `track="stable" track="beta"`, 1), "twice"},
		{"another root", strings.ReplaceAll(whole, "request", "response"), "no request"},
		{"another protocol", strings.Replace(whole, "3.0", "2.0", 1), "protocol"},
		{"no apps", `<request protocol="3.0"></request>`, "0 apps"},
		{"many apps", `<request protocol="3.0">` + strings.Repeat(app, maxApps+1) + `</request>`, "apps"},
		{"no version", strings.Replace(whole, `version="1" `, "", 1), "without appid or version"},
		{"many events", strings.Replace(whole, "<updatecheck>", strings.Repeat(`<event eventtype="3" eventresult="2"></event>`, maxEvents+1)+"<updatecheck>", 1), "events"},
		{"an event that is no number", strings.Replace(whole, "<updatecheck>", `<event eventtype="x"></event><updatecheck>`, 1), "no request"},
	} {
		if _, err := Parse([]byte(tt.body)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"check.xml", "restarted.xml", "failed.xml", "download.xml", "ping.xml"} {
		f.Add([]byte(recorded(f, name)))
	}
	f.Add([]byte(`<!DOCTYPE a><request protocol="3.0"><app appid="a" version="1"/></request>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Parse(body)
		if err != nil {
			return
		}
		if len(r.Apps) == 0 || len(r.Apps) > maxApps || r.Protocol != protocolVersion {
			t.Errorf("%q: got %+v", body, r)
		}
		for _, a := range r.Apps {
			if a.ID == "" || a.Version == "" || len(a.Track) > maxText || len(a.Events) > maxEvents {
				t.Errorf("%q: got %+v", body, a)
			}
		}
	})
}
