package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// shows is the page for somebody who was let in.
func shows(in Input) http.Handler {
	v := Build(in, noon)
	return Handler(Config{
		Gather:  func(context.Context) (View, error) { return v, nil },
		BootURL: "http://192.0.2.1:8080/",
		Proof: func(server string) ([]byte, error) {
			if e, ok := in.Entries[server]; ok && e.Proven {
				return []byte("c2sp.org/tlog-proof@v1\n"), nil
			}
			return nil, errors.New("none")
		},
	})
}

func get(t testing.TB, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// parsed is a page as a tree.
func parsed(t testing.TB, h http.Handler, path string) *html.Node {
	t.Helper()
	res := get(t, h, http.MethodGet, path)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: got %s", path, res.Status)
	}
	root, err := html.Parse(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// all are the elements of a name, in order.
func all(n *html.Node, name string) (found []*html.Node) {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == name {
			found = append(found, d)
		}
	}
	return found
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func byID(n *html.Node, id string) *html.Node {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && attr(d, "id") == id {
			return d
		}
	}
	return nil
}

// Every page is one whole document: a heading of each level in order, unique ids, no style or script of its own, nothing from elsewhere.
func TestPages(t *testing.T) {
	for name, in := range map[string]Input{"busy": fleet(3000), "calm": small(), "empty": {}} {
		h := shows(in)
		for _, p := range pages {
			root := parsed(t, h, p.Path)
			where := name + " " + p.Path
			if n := len(all(root, "h1")); n != 1 {
				t.Errorf("%s: %d first headings", where, n)
			}
			if len(all(root, "main")) != 1 || attr(all(root, "html")[0], "lang") != "en" {
				t.Errorf("%s: no main, or no language", where)
			}
			ids := map[string]bool{}
			for d := range root.Descendants() {
				if d.Type != html.ElementNode {
					continue
				}
				if id := attr(d, "id"); id != "" && ids[id] {
					t.Errorf("%s: id %s is there twice", where, id)
				} else {
					ids[id] = true
				}
				for _, a := range d.Attr {
					if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
						t.Errorf("%s: <%s %s>: the policy does not let it work", where, d.Data, a.Key)
					}
					if (a.Key == "href" || a.Key == "src" || a.Key == "action") && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#") && !strings.HasPrefix(a.Val, "?") {
						t.Errorf("%s: <%s %s=%q> is elsewhere", where, d.Data, a.Key, a.Val)
					}
				}
				if d.Data == "style" || d.Data == "script" && d.FirstChild != nil {
					t.Errorf("%s: inline <%s>", where, d.Data)
				}
			}
			current := ""
			for _, a := range all(root, "a") {
				if attr(a, "aria-current") == "page" {
					current += attr(a, "href")
				}
			}
			if current != p.Path {
				t.Errorf("%s: the current page is %q", where, current)
			}
		}
	}
}

// What somebody looks for is on the page, in words.
func TestPagesSay(t *testing.T) {
	h := shows(fleet(3000))
	for _, tt := range []struct{ path, id, want string }{
		{"/", "part-mood", "Danger."},
		{"/", "part-alerts", "nrt serves"},
		{"/", "part-regions", "under floor"},
		{"/", "part-regions", "ams"},
		{"/", "part-floors", "vpn"},
		{"/", "part-train", "Release 118 takes the place of 117: stage 4 of 6, 10%"},
		{"/", "part-train", "it is between 0.1 % and 1.6 %, and at most 2 % is allowed"},
		{"/plan", "part-now", "its deadline comes near"},
		{"/plan", "part-waiting", "held by the floor"},
		{"/plan", "part-controllers", "control-1/40/a0"},
		{"/plan", "part-run", "912"},
		{"/releases", "part-releases", "bad, for good"},
		{"/releases", "part-releases", "anna"},
		{"/releases", "part-releases", "9 of 40 attempts failed"},
		{"/quarantine", "part-quarantine", "First cause: boot: fetch_failed: no mirror answered"},
		{"/quarantine", "part-quarantine", "kernel panic <b>not syncing</b>"},
		{"/ledger", "part-ledger", "witness-eu, witness-us; 2 needed"},
		{"/ledger", "part-ledger", "fleetctl ledger verify --ledger http://192.0.2.1:8080/ledger/ --trust trust.json"},
		{"/servers?state=quarantined", "part-servers", "quarantined"},
		{"/servers?q=nobody", "part-servers", "No server is like that."},
	} {
		part := byID(parsed(t, h, tt.path), tt.id)
		if part == nil {
			t.Errorf("%s: no %s", tt.path, tt.id)
		} else if got := text(part); !strings.Contains(got, tt.want) {
			t.Errorf("%s %s: got %.400q, want %q in it", tt.path, tt.id, got, tt.want)
		}
	}
}

// What a server says on its console is text, whatever it is.
func TestHostileConsole(t *testing.T) {
	root := parsed(t, shows(fleet(3000)), "/quarantine")
	if n := len(all(root, "script")); n != 1 || attr(all(root, "script")[0], "src") != "/assets/page.js" {
		t.Errorf("%d scripts", n)
	}
	said := text(byID(root, "part-quarantine"))
	for _, want := range []string{`<script>document.title='taken'</script>`, `\u001b[2J`, `\u202egnp.exe`, `\u0000 kernel panic`} {
		if !strings.Contains(said, want) {
			t.Errorf("the console does not show %q", want)
		}
	}
}

func TestServersPaged(t *testing.T) {
	h := shows(fleet(3000))
	root := parsed(t, h, "/servers?size=50&page=3&sort=name")
	rows := all(all(root, "tbody")[0], "tr")
	if len(rows) != 50 {
		t.Fatalf("got %d rows, want 50", len(rows))
	}
	links := map[string]string{}
	for _, a := range all(root, "a") {
		links[attr(a, "rel")] = attr(a, "href")
	}
	if links["prev"] != "?page=2&size=50&sort=name" || links["next"] != "?page=4&size=50&sort=name" {
		t.Errorf("got %q and %q", links["prev"], links["next"])
	}
	proofs := 0
	for _, a := range all(root, "a") {
		if name, ok := strings.CutPrefix(attr(a, "href"), "/proof?server="); ok {
			proofs++
			if res := get(t, h, http.MethodGet, "/proof?server="+name); res.StatusCode != http.StatusOK || !strings.Contains(res.Header.Get("Content-Disposition"), name+".proof") {
				t.Errorf("%s: got %s, %s", name, res.Status, res.Header.Get("Content-Disposition"))
			}
		}
	}
	if proofs < 40 {
		t.Errorf("%d of 50 rows link to a proof", proofs)
	}
}

func TestRefusedRequests(t *testing.T) {
	h := shows(small())
	for _, tt := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"POST", "/", 405, MethodRefused}, {"PUT", "/servers", 405, MethodRefused}, {"DELETE", "/status.json", 405, MethodRefused}, {"OPTIONS", "/", 405, MethodRefused}, {"TRACE", "/", 405, MethodRefused},
		{"GET", "/assets/", 404, PathUnknown}, {"GET", "/assets", 404, PathUnknown}, {"GET", "/assets/page.html", 404, PathUnknown}, {"GET", "/../etc/passwd", 404, PathUnknown}, {"GET", "/Servers", 404, PathUnknown}, {"GET", "//", 404, PathUnknown},
		{"GET", "/?x=1", 400, QueryUnknown}, {"GET", "/events?x", 400, QueryUnknown}, {"GET", "/servers?x=1", 400, QueryUnknown}, {"GET", "/servers?page=0", 400, QueryValue}, {"GET", "/status.json?page=1&page=1", 400, QueryRepeated},
		{"GET", "/proof", 400, QueryMalformed}, {"GET", "/proof?server=../x", 400, QueryMalformed}, {"GET", "/proof?server=nobody", 404, NoProof},
	} {
		res := get(t, h, tt.method, tt.path)
		if res.StatusCode != tt.status || res.Header.Get("X-Reason") != tt.code {
			t.Errorf("%s %s: got %s and %q, want %d and %q", tt.method, tt.path, res.Status, res.Header.Get("X-Reason"), tt.status, tt.code)
		}
		if res.Header.Get("Content-Security-Policy") != contentSecurityPolicy {
			t.Errorf("%s %s: no content security policy", tt.method, tt.path)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader("x"))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 400 || w.Header().Get("X-Reason") != BodyRefused {
		t.Errorf("a body: got %d and %q", w.Code, w.Header().Get("X-Reason"))
	}
	none := Handler(Config{Gather: func(context.Context) (View, error) { return View{}, errors.New("the store does not answer") }})
	for _, path := range []string{"/", "/status.json"} {
		if res := get(t, none, "GET", path); res.StatusCode != 503 || res.Header.Get("X-Reason") != NotReady {
			t.Errorf("%s without a view: got %s and %q", path, res.Status, res.Header.Get("X-Reason"))
		}
	}
}

func TestHeaders(t *testing.T) {
	h := shows(small())
	for _, path := range []string{"/", "/servers", "/status.json", "/assets/page.css"} {
		res := get(t, h, http.MethodGet, path)
		for _, key := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Permissions-Policy", "X-Frame-Options"} {
			if res.Header.Get(key) == "" {
				t.Errorf("%s: no %s", path, key)
			}
		}
		if want := map[bool]string{true: "no-cache", false: "no-store"}[strings.HasPrefix(path, "/assets")]; res.Header.Get("Cache-Control") != want {
			t.Errorf("%s: Cache-Control is %q", path, res.Header.Get("Cache-Control"))
		}
		head := get(t, h, http.MethodHead, path)
		if body, err := io.ReadAll(head.Body); err != nil || len(body) != 0 || head.Header.Get("Content-Length") != res.Header.Get("Content-Length") {
			t.Errorf("HEAD %s: got %d bytes and length %q, want none and %q", path, len(body), head.Header.Get("Content-Length"), res.Header.Get("Content-Length"))
		}
		packed := get(t, h, http.MethodGet, path, "Accept-Encoding", "br, gzip;q=0.5")
		if packed.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s is not compressed", path)
		}
	}
	tag := get(t, h, "GET", "/assets/page.js").Header.Get("ETag")
	if res := get(t, h, "GET", "/assets/page.js", "If-None-Match", tag); tag == "" || res.StatusCode != http.StatusNotModified {
		t.Errorf("tag %q: got %s, want not modified", tag, res.Status)
	}
}

func TestStatusJSON(t *testing.T) {
	in := fleet(3000)
	var got struct {
		View
		Found, Page, Pages int
	}
	if err := json.NewDecoder(get(t, shows(in), "GET", "/status.json?region=arn&size=20&page=2").Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := build(t, in)
	if got.Fleet != "harbour" || got.Totals != want.Totals || len(got.Regions) != len(places) || len(got.Servers) != 20 || got.Page != 2 || got.Found != want.Regions[1].Servers {
		t.Errorf("got %s, %+v, %d regions, %d servers of %d on page %d", got.Fleet, got.Totals, len(got.Regions), len(got.Servers), got.Found, got.Page)
	}
	for _, s := range got.Servers {
		if s.Region != "arn" {
			t.Errorf("%s is in %s", s.Name, s.Region)
		}
	}
}
