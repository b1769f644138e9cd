package checkin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func goodList() List {
	return List{Kind: Kind, Fleet: "test", Issued: now, Expires: now.Add(2 * time.Minute), Servers: []Server{
		{Name: "se-1", Region: "se", Address: netip.MustParseAddr("10.77.0.11"), Register: 7443},
		{Name: "nl-1", Region: "nl", Address: netip.MustParseAddr("2001:db8::1"), Register: 7443, Draining: true},
	}}
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, key ssh.Signer, namespace string, data []byte) Signed {
	t.Helper()
	sig, err := sshsig.Sign(key, namespace, data)
	if err != nil {
		t.Fatal(err)
	}
	return Signed{List: data, Signature: sig}
}

func marshal(t testing.TB, l List) []byte {
	t.Helper()
	data, err := l.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func reason(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

func TestOpen(t *testing.T) {
	key, stranger := newSigner(t), newSigner(t)
	config := ClientConfig{Fleet: "test", ListKeys: []string{trust.FormatKey(key.PublicKey())}}
	good := marshal(t, goodList())
	altered := func(change func(*List)) []byte {
		l := goodList()
		change(&l)
		return marshal(t, l)
	}
	sealed := func(data []byte) Signed { return sign(t, key, Namespace, data) }
	for _, c := range []struct {
		name string
		s    Signed
		now  time.Time
		seen time.Time
		want string
	}{
		{"good", sealed(good), now, time.Time{}, ""},
		{"the same again", sealed(good), now, now, ""},
		{"a signer's clock a little ahead", sealed(good), now.Add(-MaxAhead), time.Time{}, ""},
		{"by a stranger", sign(t, stranger, Namespace, good), now, time.Time{}, Unsigned},
		{"for another purpose", sign(t, key, "mayfly-ticket", good), now, time.Time{}, Unsigned},
		{"no signature", Signed{List: good}, now, time.Time{}, Unsigned},
		{"signature of another list", Signed{List: altered(func(l *List) { l.Servers = nil }), Signature: sealed(good).Signature}, now, time.Time{}, Unsigned},
		{"nothing", Signed{}, now, time.Time{}, Unsigned},
		{"expired", sealed(good), now.Add(2 * time.Minute), time.Time{}, Expired},
		{"from the future", sealed(good), now.Add(-MaxAhead - time.Second), time.Time{}, NotYet},
		{"older than one seen", sealed(good), now, now.Add(time.Second), Older},
		{"another fleet", sealed(altered(func(l *List) { l.Fleet = "other" })), now, time.Time{}, OtherFleet},
		{"signed rubbish", sealed([]byte("rubbish")), now, time.Time{}, Malformed},
		{"oversize", Signed{List: make([]byte, MaxList+1)}, now, time.Time{}, TooLarge},
	} {
		l, err := Open(config, c.s, c.now, c.seen)
		if got := reason(err); got != c.want || (err == nil) != (c.want == "") || (err == nil) != (l != nil) {
			t.Errorf("%s: got %q (%v), want %q", c.name, got, err, c.want)
		}
	}
	if _, err := Open(ClientConfig{Fleet: "test"}, sealed(good), now, time.Time{}); reason(err) != Unsigned {
		t.Errorf("without keys: got %v", err)
	}
}

func TestParse(t *testing.T) {
	l, err := Parse(marshal(t, goodList()))
	if err != nil || len(l.Servers) != 2 || !l.Issued.Equal(now) {
		t.Fatalf("got %+v, %v", l, err)
	}
	for name, change := range map[string]func(*List){
		"kind":               func(l *List) { l.Kind = "mayfly-list/2" },
		"fleet":              func(l *List) { l.Fleet = "Te st" },
		"no time":            func(l *List) { l.Issued = time.Time{} },
		"ends before":        func(l *List) { l.Expires = l.Issued },
		"valid too long":     func(l *List) { l.Expires = l.Issued.Add(MaxLife + 1) },
		"twice":              func(l *List) { l.Servers[1].Name = "se-1" },
		"name":               func(l *List) { l.Servers[0].Name = "se-1.evil" },
		"long name":          func(l *List) { l.Servers[0].Name = strings.Repeat("a", 64) },
		"hyphen":             func(l *List) { l.Servers[0].Name = "-se" },
		"region":             func(l *List) { l.Servers[0].Region = "" },
		"no address":         func(l *List) { l.Servers[0].Address = netip.Addr{} },
		"address of nobody":  func(l *List) { l.Servers[0].Address = netip.IPv4Unspecified() },
		"address of all":     func(l *List) { l.Servers[0].Address = netip.MustParseAddr("224.0.0.1") },
		"address of oneself": func(l *List) { l.Servers[0].Address = netip.MustParseAddr("127.0.0.1") },
		"mapped address":     func(l *List) { l.Servers[0].Address = netip.MustParseAddr("::ffff:10.77.0.11") },
		"zone":               func(l *List) { l.Servers[0].Address = netip.MustParseAddr("fe80::1%eth0") },
		"no port":            func(l *List) { l.Servers[0].Register = 0 },
		"too many":           func(l *List) { l.Servers = make([]Server, MaxServers+1) },
	} {
		l := goodList()
		change(&l)
		if _, err := Parse(marshal(t, l)); reason(err) != Malformed {
			t.Errorf("%s: got %v, want %s", name, err, Malformed)
		}
	}
	good := string(marshal(t, goodList()))
	for name, data := range map[string]string{
		"empty": "", "other white space": strings.Replace(good, "  ", " ", 1), "unknown field": strings.Replace(good, `"kind"`, "\"x\": 1,\n  \"kind\"", 1),
		"other case": strings.Replace(good, `"kind"`, `"Kind"`, 1), "trailing": good + "{}", "no newline": strings.TrimSpace(good),
	} {
		if _, err := Parse([]byte(data)); reason(err) != Malformed {
			t.Errorf("%s: got %v, want %s", name, err, Malformed)
		}
	}
}

// FuzzParse: what is taken marshals to the same bytes.
func FuzzParse(f *testing.F) {
	f.Add(marshal(f, goodList()))
	empty := goodList()
	empty.Servers = nil
	f.Add(marshal(f, empty))
	f.Add([]byte(`{"kind":"mayfly-list/1"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		if again := marshal(t, *l); !bytes.Equal(again, data) {
			t.Errorf("got %q, want %q", again, data)
		}
	})
}

// FuzzSigned: an answer of check-in never panics, and is never believed without the signature.
func FuzzSigned(f *testing.F) {
	key := newSigner(f)
	config := ClientConfig{Fleet: "test", ListKeys: []string{trust.FormatKey(key.PublicKey())}}
	other, err := json.Marshal(sign(f, newSigner(f), Namespace, marshal(f, goodList())))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(other)
	f.Add([]byte(`{"list":"","signature":""}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSigned(data)
		if err != nil {
			return
		}
		if l, err := Open(config, s, now, time.Time{}); err == nil {
			t.Errorf("believed %+v", l)
		}
	})
}

func TestFetchAndHandler(t *testing.T) {
	caPEM, caKey, err := pki.NewCA("test CA", time.Now(), "fleet.test")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(caPEM, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, csrFor, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := csrFor("checkin.fleet.test")
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := ca.Issue(csr, "checkin.fleet.test", nil, true, false, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "list.json")
	srv := httptest.NewUnstartedServer(Handler(path))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()

	key := newSigner(t)
	c := Client{Config: ClientConfig{
		Fleet: "test", Domain: "fleet.test", CA: string(caPEM), Checkin: srv.Listener.Addr().String(), Name: "checkin.fleet.test",
		ListKeys: []string{trust.FormatKey(key.PublicKey())},
	}}
	publish := func(issued time.Time) {
		t.Helper()
		l := goodList()
		l.Issued, l.Expires = issued, issued.Add(2*time.Minute)
		body, err := json.Marshal(sign(t, key, Namespace, marshal(t, l)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Fetch(t.Context(), now); reason(err) != Unreachable || err.(*Refusal).Refused() {
		t.Errorf("without a list: got %v", err)
	}
	publish(now)
	if l, err := c.Fetch(t.Context(), now); err != nil || len(l.Servers) != 2 {
		t.Errorf("got %+v, %v", l, err)
	}
	publish(now.Add(-time.Second))
	if _, err := c.Fetch(t.Context(), now); reason(err) != Older {
		t.Errorf("an older list: got %v", err)
	}
	if _, err := Fetch(t.Context(), c.Config, now); err != nil {
		t.Errorf("for one who has seen none it is good: got %v", err)
	}
	publish(now.Add(time.Second))
	if _, err := c.Fetch(t.Context(), now); err != nil {
		t.Errorf("a newer list: got %v", err)
	}
	wrong := c.Config
	wrong.Name = "controller.fleet.test"
	if _, err := Fetch(t.Context(), wrong, now); reason(err) != Untrusted {
		t.Errorf("another name: got %v", err)
	}
	for _, r := range []struct {
		method, path string
		code         int
	}{{"POST", PathServers, 405}, {"GET", "/", 404}, {"GET", PathServers + "/../../list.json", 404}, {"GET", PathServers, 200}} {
		w := httptest.NewRecorder()
		req := httptest.NewRequest(r.method, "http://x/", nil)
		req.URL.Path = r.path
		Handler(path).ServeHTTP(w, req)
		if w.Code != r.code && (r.code != 404 || w.Code != http.StatusTemporaryRedirect) {
			t.Errorf("%s %s: got %d, want %d", r.method, r.path, w.Code, r.code)
		}
	}
}

func TestParseConfig(t *testing.T) {
	const good = "{\n  \"fleet\": \"test\",\n  \"domain\": \"fleet.test\",\n  \"ca\": \"x\",\n  \"checkin\": \"10.77.0.1:7445\",\n  \"name\": \"n\",\n  \"list_keys\": [\n    \"k\"\n  ]\n}\n"
	if _, err := ParseConfig([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"fleet": "test"`, `"fleet": "Test"`, "fleet"},
		{`"domain": "fleet.test"`, `"domain": ""`, "no domain"},
		{`"ca": "x"`, `"ca": ""`, "no ca"},
		{`10.77.0.1:7445`, `example.com`, "IP:PORT"},
		{`"name": "n"`, `"name": ""`, "no name"},
		{"[\n    \"k\"\n  ]", "[]", "no list_keys"},
		{`"name": "n"`, `"nome": "n"`, "line 6: json: unknown field"},
		{"]\n}\n", "]\n}\n{}", "canonical"},
		{`"name": "n"`, `"name":"n"`, "canonical"},
		{`"name": "n"`, `"Name": "n"`, "canonical"},
		{`"name": "n"`, "\"name\": \"m\",\n  \"name\": \"n\"", "canonical"}, // the last one would win
		{`"fleet": "test"`, `"fleet": 7`, "line 2: json: cannot unmarshal"},
	} {
		_, err := ParseConfig([]byte(strings.Replace(good, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.new, err, c.want)
		}
	}
}
