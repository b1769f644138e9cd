package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed assets/page.html assets/page.css assets/page.js assets/icon.svg
var assets embed.FS

// Page is one of the pages.
type Page struct{ Path, Name string }

// pages are all of them, in the order of the navigation.
var pages = []Page{{"/", "Overview"}, {"/servers", "Servers"}, {"/plan", "Plan"}, {"/releases", "Releases"}, {"/quarantine", "Quarantine"}, {"/ledger", "Ledger"}}

// shown is what a template gets.
type shown struct {
	Page
	Title     string
	Pages     []Page
	Engineer  string
	View      *View
	Made      *time.Time
	Selection Selection
	BootURL   string
}

var kindNames = map[Kind]string{Serves: "serving", Moving: "on its way", Silent: "silent", Held: "held for an engineer", Quarantine: "quarantined", StandsBy: "standing by", NeverBooted: "never booted"}

// reasonNames are the planner's words for people; a word that is not here is shown as it is.
var reasonNames = map[string]string{
	"first_boot": "first boot", "due": "its deadline comes near", "expired": "its deadline has passed", "unknown_age": "age unknown", "in_flight": "on its way", "young": "not due yet",
	"not_in_run": "not in this run", "floor": "held by the floor", "behind": "another of its region goes first", "parallel": "enough are out", "rolled_back": "rolled back", "role_floor": "held by the floor of its role",
	"cap": "too many of its domain are out", "window": "window is closed", "rate": "hourly rate is reached", "own_host": "this controller runs on it", "spare_over": "spare, no longer needed", "standby": "stands by",
}

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"group": group, "mbps": mbps, "span": span, "percent": percent, "share": share,
	"group64":  func(n uint64) string { return group(int(n)) },
	"add":      func(a, b int) int { return a + b },
	"stamp":    func(t *time.Time) string { return t.UTC().Format(time.RFC3339) },
	"clock":    func(t *time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"minute":   func(t *time.Time) string { return t.UTC().Format("01-02 15:04") },
	"kinds":    func() []Kind { return Kinds },
	"kindName": func(k Kind) string { return kindNames[k] },
	"reason": func(r string) string {
		if name, ok := reasonNames[r]; ok {
			return name
		}
		return strings.ReplaceAll(r, "_", " ")
	},
	"short": func(s string) string {
		if len(s) > 16 {
			return s[:16] + "…"
		}
		return s
	},
	"sentence": func(s string) string {
		if s == "" {
			return ""
		}
		return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
	},
	"steps": func(name string, list []Step, held bool) any {
		return struct {
			Name  string
			Steps []Step
			Held  bool
		}{name, list, held}
	},
}).ParseFS(assets, "assets/page.html"))

// asset is a file that is served as it is.
type asset struct {
	kind, tag  string
	data, gzip []byte
}

var assetFiles = func() map[string]asset {
	files := map[string]asset{}
	for name, kind := range map[string]string{"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		data, err := assets.ReadFile("assets/" + name)
		if err != nil {
			panic("web: internal error: " + err.Error())
		}
		sum := sha256.Sum256(data)
		files["/assets/"+name] = asset{kind, `"` + hex.EncodeToString(sum[:12]) + `"`, data, compressed(data)}
	}
	return files
}()

func compressed(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	w.Write(data) // a buffer does not fail
	w.Close()
	return b.Bytes()
}

// Specification: what the page may load and do. No inline style or script, nothing from elsewhere, no frame around it, and no string becomes markup
// in a script.
const contentSecurityPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func harden(h http.Header) {
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Embedder-Policy", "require-corp")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cache-Control", "no-store")
}

// site answers requests. Who asks was decided before.
type site struct {
	feed    *feed
	proof   func(server string) ([]byte, error)
	bootURL string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	harden(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, r, http.StatusMethodNotAllowed, MethodRefused, "This page only shows: it takes GET and HEAD.")
		return
	}
	if r.ContentLength != 0 {
		refuse(w, r, http.StatusBadRequest, BodyRefused, "A request for this page has no body.")
		return
	}
	if a, ok := assetFiles[r.URL.Path]; ok {
		s.asset(w, r, a)
		return
	}
	q, err := s.query(r)
	if err != nil {
		refuse(w, r, http.StatusBadRequest, err.Code, "The address cannot be used: "+err.Text+".")
		return
	}
	switch r.URL.Path {
	case "/events":
		s.feed.serve(w, r)
	case "/status.json":
		s.status(w, r, q)
	case "/proof":
		s.prove(w, r)
	default:
		i := slices.IndexFunc(pages, func(p Page) bool { return p.Path == r.URL.Path })
		if i < 0 {
			refuse(w, r, http.StatusNotFound, PathUnknown, "There is no such page.")
			return
		}
		s.page(w, r, pages[i], q)
	}
}

// Codes of refused requests, beside those of queries. Specification.
const (
	MethodRefused = "page_method"
	BodyRefused   = "page_body"
	PathUnknown   = "page_unknown"
	NotReady      = "page_not_ready" // nothing was gathered yet
	Busy          = "page_busy"      // too many listen to changes
	NoProof       = "page_no_proof"  // the ledger has none of this server's life yet
)

// query reads the query of the paths that have one; all others take none.
func (s *site) query(r *http.Request) (Query, *BadQuery) {
	switch r.URL.Path {
	case "/servers", "/status.json":
		q, err := ParseQuery(r.URL.RawQuery)
		var bad *BadQuery
		errors.As(err, &bad)
		return q, bad
	case "/proof":
		if name, ok := strings.CutPrefix(r.URL.RawQuery, "server="); !ok || len(name) > maxSearch || !searchWord.MatchString(name) {
			return Query{}, &BadQuery{QueryMalformed, "want server=NAME"}
		}
	default:
		if r.URL.RawQuery != "" {
			return Query{}, &BadQuery{QueryUnknown, "this page takes no parameters"}
		}
	}
	return Query{}, nil
}

func (s *site) asset(w http.ResponseWriter, r *http.Request, a asset) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", a.tag)
	if r.Header.Get("If-None-Match") == a.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	send(w, r, http.StatusOK, a.kind, a.data, a.gzip)
}

func (s *site) page(w http.ResponseWriter, r *http.Request, p Page, q Query) {
	v := s.feed.view(r.Context())
	if v == nil {
		w.Header().Set("Retry-After", "2")
		refuse(w, r, http.StatusServiceUnavailable, NotReady, "The fleet's state was not gathered yet.")
		return
	}
	x := shown{Page: p, Title: p.Name, Pages: pages, Engineer: engineerOf(r.Context()), View: v, Made: &v.Made, BootURL: s.bootURL}
	name := "overview"
	if p.Path != "/" {
		name = p.Path[1:]
	}
	if name == "servers" {
		x.Selection = v.Select(q)
	}
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, x); err != nil {
		panic("web: internal error: " + err.Error())
	}
	send(w, r, http.StatusOK, "text/html; charset=utf-8", b.Bytes(), nil)
}

// status is the view as JSON, with the servers of the query alone.
func (s *site) status(w http.ResponseWriter, r *http.Request, q Query) {
	v := s.feed.view(r.Context())
	if v == nil {
		w.Header().Set("Retry-After", "2")
		refuse(w, r, http.StatusServiceUnavailable, NotReady, "The fleet's state was not gathered yet.")
		return
	}
	picked := v.Select(q)
	out := struct {
		View
		Found int `json:"found"` // servers of the query, on all pages
		Page  int `json:"page"`
		Pages int `json:"pages"`
	}{*v, picked.Found, picked.Page, picked.Pages}
	out.Servers = append([]Server{}, picked.Servers...)
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		panic("web: internal error: " + err.Error())
	}
	send(w, r, http.StatusOK, "application/json", append(data, '\n'), nil)
}

// prove sends the proof that the ledger has the beginning of a server's life.
func (s *site) prove(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.RawQuery, "server=")
	var data []byte
	err := errors.New("no ledger")
	if s.proof != nil {
		data, err = s.proof(name)
	}
	if err != nil {
		refuse(w, r, http.StatusNotFound, NoProof, "The ledger has no cosigned entry of this server's life yet.")
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`.proof"`)
	send(w, r, http.StatusOK, "text/plain; charset=utf-8", data, nil)
}

// refuse answers with a reason code.
func refuse(w http.ResponseWriter, r *http.Request, status int, code, text string) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, "refused", struct{ Status, Code, Text string }{http.StatusText(status), code, text}); err != nil {
		panic("web: internal error: " + err.Error())
	}
	w.Header().Set("X-Reason", code)
	send(w, r, status, "text/html; charset=utf-8", b.Bytes(), nil)
}

// send writes a whole answer, compressed if the client takes that.
func send(w http.ResponseWriter, r *http.Request, status int, kind string, data, packed []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Vary", "Accept-Encoding")
	if len(data) > 1400 && takesGzip(r) {
		if packed == nil {
			packed = compressed(data)
		}
		h.Set("Content-Encoding", "gzip")
		data = packed
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(data) // a client that is gone is no error of ours
	}
}

func takesGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		if name, weight, _ := strings.Cut(strings.TrimSpace(part), ";"); name == "gzip" && strings.TrimSpace(weight) != "q=0" {
			return true
		}
	}
	return false
}
