package request

import (
	"bytes"
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/statement"
	"mayfly/testenv/softkey"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

const (
	hostKey     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2XsgPmw0M66SYeBBHYzHUTHKu+/S+6c9wk0FFSSTOP"
	fingerprint = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

var orders = []Order{Drain("se-1", 30*time.Minute), Certify("gate", hostKey), CARotate(NewCA), CARotate(fingerprint), CARetire(fingerprint),
	CAHurry(fingerprint, time.Hour), CAHurry(fingerprint, 0), CACompromised(fingerprint),
	Rotate(Rotation{Mode: ModeRepave, Release: 7, Digest: hash, Policy: 3}),
	Rotate(Rotation{Mode: ModeSingle, Servers: []Server{{"se-1-b", 2}, {"se-1", 4}, {"se-2", 0}}, Release: 7, Digest: hash, Policy: 3}),
	Rotate(Rotation{Mode: ModeEmergency, Servers: []Server{{"se-1", 4}}, Release: 7, Digest: hash, Policy: 3}),
	Rotate(Rotation{Mode: ModeEmergency, Release: 7, Digest: hash, Policy: 3}),
	Pause(), Resume(), Cancel(12), ImageUse(7, hash), ImageBad(7, hash), Restore(hash), Page("anna", hash, 12*time.Hour), Secret("se-1-bmc")}

var hash = strings.Repeat("0a", 32)

func good() Request { return New("lab", Drain("se-1", 30*time.Minute), "disk full", now, time.Hour) }

// TestCheck spoils one field at a time; the error names it.
func TestCheck(t *testing.T) {
	for _, o := range orders {
		r := New("lab", o, "disk full", now, MaxLife)
		data, err := r.Marshal()
		if err != nil {
			t.Errorf("%s: %v", o, err)
			continue
		}
		if again, err := Parse(data); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%s: read back as %+v, %v", o, again, err)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Request)
		want   string
	}{
		{"kind", func(r *Request) { r.Kind = "mayfly-request/2" }, "kind is"},
		{"no fleet", func(r *Request) { r.Fleet = "" }, "fleet is"},
		{"long fleet", func(r *Request) { r.Fleet = strings.Repeat("a", 256) }, "fleet is"},
		{"no action", func(r *Request) { r.Action = "" }, "action is"},
		{"unknown action", func(r *Request) { r.Action = "reboot" }, "action is"},
		{"no subject", func(r *Request) { r.Subject = "" }, "subject is"},
		{"path as subject", func(r *Request) { r.Subject = "../se-1" }, "subject is"},
		{"a new server", func(r *Request) { r.Subject = "se-1\n" }, "subject is"},
		{"CA as a name", func(r *Request) { r.Order = CARetire("se-1") }, "subject is"},
		{"a new CA retired", func(r *Request) { r.Order = CARetire(NewCA) }, "subject is"},
		{"a new CA compromised", func(r *Request) { r.Order = CACompromised(NewCA) }, "subject is"},
		{"no arguments", func(r *Request) { r.Arguments = nil }, "arguments of drain"},
		{"one argument more", func(r *Request) { r.Arguments = map[string]string{ArgFor: "1h0m0s", "x": ""} }, "arguments of drain"},
		{"another's argument", func(r *Request) { r.Arguments = map[string]string{ArgOverlap: "1h0m0s"} }, "arguments of drain"},
		{"both of two", func(r *Request) {
			r.Order = Order{policies.ActionCAOverride, fingerprint, map[string]string{ArgOverlap: "0s", ArgCompromised: "true"}}
		}, "arguments of ca-override"},
		{"for nothing", func(r *Request) { r.Arguments[ArgFor] = "0s" }, "arguments: for"},
		{"for less", func(r *Request) { r.Arguments[ArgFor] = "-1s" }, "arguments: for"},
		{"for another spelling", func(r *Request) { r.Arguments[ArgFor] = "60m" }, "arguments: for"},
		{"for parts of a second", func(r *Request) { r.Arguments[ArgFor] = "1.5s" }, "arguments: for"},
		{"negative overlap", func(r *Request) { r.Order = CAHurry(fingerprint, -time.Second) }, "arguments: overlap"},
		{"compromised, or not", func(r *Request) {
			r.Order = Order{policies.ActionCAOverride, fingerprint, map[string]string{ArgCompromised: "false"}}
		}, "arguments: compromised"},
		{"host key with a comment", func(r *Request) { r.Order = Certify("gate", hostKey+" x") }, "arguments: host_key"},
		{"host key with options", func(r *Request) { r.Order = Certify("gate", "restrict "+hostKey) }, "arguments: host_key"},
		{"a mode that there is not", func(r *Request) { r.Order = Rotate(Rotation{Mode: "all", Release: 7, Digest: hash, Policy: 3}) }, "subject is"},
		{"an emergency that one person signs", func(r *Request) {
			r.Order = Rotate(Rotation{Mode: ModeEmergency, Release: 7, Digest: hash, Policy: 3})
			r.Action = policies.ActionRotate
		}, "subject is"},
		{"single, of nobody", func(r *Request) { r.Order = Rotate(Rotation{Mode: ModeSingle, Release: 7, Digest: hash, Policy: 3}) }, "arguments of rotate"},
		{"lost, of nobody", func(r *Request) { r.Order = Rotate(Rotation{Mode: ModeLost, Release: 7, Digest: hash, Policy: 3}) }, "arguments of rotate"},
		{"no release", func(r *Request) { r.Order = Rotate(Rotation{Mode: ModeRepave, Digest: hash, Policy: 3}) }, "arguments: release"},
		{"no digest", func(r *Request) { r.Order = Rotate(Rotation{Mode: ModeRepave, Release: 7, Policy: 3}) }, "arguments: digest"},
		{"no policy", func(r *Request) { r.Order = Rotate(Rotation{Mode: ModeRepave, Release: 7, Digest: hash}) }, "arguments: policy"},
		{"a server twice", func(r *Request) {
			r.Order = Rotate(Rotation{Mode: ModeSingle, Servers: []Server{{"se-1", 4}, {"se-1", 5}}, Release: 7, Digest: hash, Policy: 3})
		}, "arguments: servers"},
		{"servers in another order", func(r *Request) {
			r.Order = Rotate(Rotation{Mode: ModeSingle, Servers: []Server{{"se-1", 4}, {"se-2", 5}}, Release: 7, Digest: hash, Policy: 3})
			r.Arguments[ArgServers] = "se-2/5 se-1/4"
		}, "arguments: servers"},
		{"a server's path", func(r *Request) {
			r.Order = Rotate(Rotation{Mode: ModeSingle, Servers: []Server{{"../se-1", 0}}, Release: 7, Digest: hash, Policy: 3})
		}, "arguments: servers"},
		{"epoch zero", func(r *Request) {
			r.Order = Rotate(Rotation{Mode: ModeSingle, Servers: []Server{{"se-1", 4}}, Release: 7, Digest: hash, Policy: 3})
			r.Arguments[ArgServers] = "se-1/0"
		}, "arguments: servers"},
		{"a pause of something", func(r *Request) { r.Order = Pause(); r.Subject = "se-1" }, "subject is"},
		{"a cancel of nothing", func(r *Request) { r.Order = Cancel(0) }, "arguments: run"},
		{"a pause with a run", func(r *Request) { r.Order = Cancel(3); r.Subject = SubjectPause }, "arguments of pause"},
		{"version with a sign", func(r *Request) { r.Order = ImageUse(7, hash); r.Arguments[ArgRelease] = "+7" }, "arguments: release"},
		{"short digest", func(r *Request) { r.Order = ImageBad(7, hash[1:]) }, "arguments: digest"},
		{"no backup", func(r *Request) { r.Order = Restore("") }, "arguments: backup"},
		{"a page for nothing", func(r *Request) { r.Order = Page("anna", hash, 0) }, "arguments: for"},
		{"a page without a key", func(r *Request) { r.Order = Page("anna", "", time.Hour) }, "arguments: key"},
		{"a secret's path", func(r *Request) { r.Order = Secret("../x") }, "subject is"},
		{"no host key", func(r *Request) { r.Order = Certify("gate", "") }, "arguments: host_key"},
		{"no reason", func(r *Request) { r.Reason = " " }, "reason is missing"},
		{"two lines", func(r *Request) { r.Reason = "a\nb" }, "reason is not one line"},
		{"long reason", func(r *Request) { r.Reason = strings.Repeat("a", statement.MaxReason+1) }, "reason is not one line"},
		{"nonce", func(r *Request) { r.Nonce = "../" + r.Nonce[3:] }, "nonce is"},
		{"no nonce", func(r *Request) { r.Nonce = "" }, "nonce is"},
		{"local time", func(r *Request) { r.Made = r.Made.In(time.FixedZone("x", 3600)) }, "made is no time"},
		{"no end", func(r *Request) { r.Expires = time.Time{} }, "expires is no time"},
		{"parts of a second", func(r *Request) { r.Expires = r.Expires.Add(1) }, "expires is no time"},
		{"ends before it begins", func(r *Request) { r.Expires = r.Made }, "expires: in force"},
		{"too long", func(r *Request) { r.Expires = r.Made.Add(MaxLife + time.Second) }, "expires: in force"},
	} {
		r := good()
		tt.change(&r)
		if _, err := r.Marshal(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if a, b := good(), good(); a.Nonce == b.Nonce {
		t.Error("two requests have one nonce")
	}
}

// world is a policy with four engineers; dora's evidence is not accepted, and anna has two keys.
type world struct {
	p    policies.Policy
	f    inventory.Fleet
	keys map[string]*softkey.Key
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{f: inventory.Fleet{Name: "lab", Test: true}, keys: map[string]*softkey.Key{}}
	w.p = policies.Policy{Hardware: policies.Hardware{TestRoots: []string{"soft"}}}
	for _, name := range []string{"anna", "bert", "cleo", "dora"} {
		e := policies.Engineer{Name: name}
		for _, which := range []string{"", "-2"} {
			k, err := softkey.New(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			w.keys[name+which] = k
			evidence := "test:soft"
			if name == "dora" {
				evidence = "test:other"
			}
			e.Keys = append(e.Keys, policies.Key{Public: k.Authorized(), Evidence: evidence})
		}
		w.p.Engineers = append(w.p.Engineers, e)
	}
	stranger, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.keys["stranger"] = stranger
	w.p.Operators = []policies.Operator{
		{Engineers: []string{"anna", "bert", "dora"}, Actions: []string{policies.ActionDrain}},
		{Engineers: []string{"anna", "bert", "cleo"}, Actions: []string{policies.ActionCAOverride}},
		{Engineers: []string{"bert", "cleo"}, Actions: []string{policies.ActionCertify}, People: 2},
		{Engineers: []string{"anna"}, Actions: []string{policies.ActionCertify}},
	}
	return w
}

func (w world) sign(t testing.TB, namespace string, data []byte, names ...string) []byte {
	t.Helper()
	var sigs []byte
	for _, name := range names {
		block, err := sshsig.Sign(w.keys[name].Signer(softkey.Always), namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, block...)
	}
	return sigs
}

func TestDecide(t *testing.T) {
	w := newWorld(t)
	drain, override, certify := orders[0], orders[5], orders[1]
	seen := map[string]bool{}
	for _, tt := range []struct {
		name   string
		order  Order
		by     []string
		change func(*world, *Request, *Signed) // of the policy; after signing
		asked  Order
		at     time.Duration
		want   string // reason, "" for none
		people string
	}{
		{name: "one of two", order: drain, by: []string{"bert"}, people: "bert"},
		{name: "another", order: drain, by: []string{"anna-2"}, people: "anna"},
		{name: "more than asked", order: drain, by: []string{"anna", "bert", "cleo"}, people: "anna, bert"},
		{name: "a stranger beside", order: drain, by: []string{"stranger", "bert", "dora"}, people: "bert"},
		{name: "something broken beside", order: drain, by: []string{"bert"}, people: "bert", change: func(w *world, r *Request, s *Signed) {
			s.Signatures = append([]byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"), s.Signatures...)
		}},
		{name: "two for an override", order: override, by: []string{"anna", "cleo"}, people: "anna, cleo"},
		{name: "by the other table", order: certify, by: []string{"anna"}, people: "anna"},
		{name: "two of the first table", order: certify, by: []string{"bert", "cleo"}, people: "bert, cleo"},
		{name: "the last second", order: drain, by: []string{"bert"}, at: time.Hour - time.Second, people: "bert"},
		{name: "a clock a minute behind", order: drain, by: []string{"bert"}, at: -time.Minute, people: "bert"},

		{name: "one for an override", order: override, by: []string{"anna"}, want: TooFew},
		{name: "one with two keys", order: override, by: []string{"anna", "anna-2"}, want: TooFew},
		{name: "one twice", order: override, by: []string{"anna", "anna"}, want: TooFew},
		{name: "one and a stranger", order: override, by: []string{"anna", "stranger"}, want: TooFew},
		{name: "one and one whose evidence is refused", order: override, by: []string{"anna", "dora"}, want: TooFew},
		{name: "one of the table of two", order: certify, by: []string{"bert"}, want: TooFew},
		{name: "not an operator of this", order: drain, by: []string{"cleo"}, want: NotAllowed},
		{name: "nobody's action", order: orders[2], by: []string{"anna", "bert"}, want: NotAllowed},
		{name: "a stranger", order: drain, by: []string{"stranger"}, want: KeyRefused},
		{name: "evidence refused", order: drain, by: []string{"dora"}, want: KeyRefused},
		{name: "a key revoked", order: drain, by: []string{"bert"}, want: KeyRefused, change: func(w *world, r *Request, s *Signed) {
			w.p.Hardware.Revoked = []string{policies.Fingerprint(w.keys["bert"].Authorized())}
		}},
		{name: "without the PIN that is asked for", order: drain, by: []string{"bert"}, want: KeyRefused, change: func(w *world, r *Request, s *Signed) {
			w.p.SSH.VerifyRequired = true
			w.p.Engineers[1].Keys[0].Evidence = "test:soft+uv"
		}},
		{name: "unsigned", order: drain, want: Unsigned},
		{name: "rubbish for a signature", order: drain, want: Unsigned, change: func(w *world, r *Request, s *Signed) { s.Signatures = []byte("hello") }},
		{name: "too many signatures", order: drain, by: slices.Repeat([]string{"bert"}, maxSignatures+1), want: Unsigned},
		{name: "changed after it was signed", order: drain, by: []string{"bert"}, want: Unsigned, change: func(w *world, r *Request, s *Signed) {
			s.Data = bytes.Replace(s.Data, []byte("disk full"), []byte("disk fine"), 1)
		}},
		{name: "signed for something else", order: drain, want: Unsigned, change: func(w *world, r *Request, s *Signed) {
			s.Signatures = w.sign(t, "mayfly-approval", s.Data, "bert")
		}},
		{name: "another server", order: drain, by: []string{"bert"}, asked: Drain("se-2", 30*time.Minute), want: Other},
		{name: "for longer", order: drain, by: []string{"bert"}, asked: Drain("se-1", time.Hour), want: Other},
		{name: "another action", order: drain, by: []string{"anna"}, asked: certify, want: Other},
		{name: "expired", order: drain, by: []string{"bert"}, at: time.Hour, want: Expired},
		{name: "early", order: drain, by: []string{"bert"}, at: -time.Minute - time.Second, want: Early},
		{name: "another fleet", order: drain, by: []string{"bert"}, want: OtherFleet, change: func(w *world, r *Request, s *Signed) { w.f.Name = "other" }},
		{name: "another form", order: drain, by: []string{"bert"}, want: Malformed, change: func(w *world, r *Request, s *Signed) { s.Data = append(s.Data, ' ') }},
		{name: "none", order: drain, want: Missing, change: func(w *world, r *Request, s *Signed) { *s = Signed{} }},
		{name: "no operators in a real fleet", order: drain, by: []string{"bert"}, want: NoOperators, change: func(w *world, r *Request, s *Signed) {
			w.p.Operators, w.f.Test = nil, false
		}},
		{name: "none and no operators in a real fleet", order: drain, want: NoOperators, change: func(w *world, r *Request, s *Signed) {
			w.p.Operators, w.f.Test, *s = nil, false, Signed{}
		}},
		{name: "no operators in a test fleet", order: drain, by: []string{"bert"}, want: NoOperators, change: func(w *world, r *Request, s *Signed) { w.p.Operators = nil }},
		{name: "none and no operators in a test fleet", order: drain, change: func(w *world, r *Request, s *Signed) { w.p.Operators, *s = nil, Signed{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := w
			w.p.Engineers = slices.Clone(w.p.Engineers)
			w.p.Engineers[1].Keys = slices.Clone(w.p.Engineers[1].Keys)
			r := New("lab", tt.order, "disk full", now, time.Hour)
			data, err := r.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			s := &Signed{data, w.sign(t, Namespace, data, tt.by...)}
			if tt.change != nil {
				tt.change(&w, &r, s)
			}
			if s.Data == nil {
				s = nil
			}
			asked := tt.order
			if tt.asked.Action != "" {
				asked = tt.asked
			}
			d, err := Decide(w.p, w.f, asked, s, now.Add(tt.at))
			var refused *Refusal
			switch {
			case tt.want == "" && (err != nil || !d.Allowed || Names(d.People) != tt.people || (d.Request == nil) != (s == nil)):
				t.Errorf("got %+v, %v", d, err)
			case tt.want != "" && (!errors.As(err, &refused) || refused.Reason != tt.want || !refused.Refused() || d.Allowed || d.Request != nil):
				t.Errorf("got %+v, %v, want %s", d, err, tt.want)
			}
			for _, x := range d.People {
				if x.Evidence != "test:soft" || !strings.HasPrefix(x.Key, "SHA256:") {
					t.Errorf("on record: %+v", x)
				}
			}
			seen[tt.want] = true
		})
	}
	seen[Used], seen[TooMany] = true, true // whoever acts says them: fleetctl/authority
	for _, reason := range Reasons {
		if !seen[reason] {
			t.Errorf("no case refuses with %s", reason)
		}
	}
	if d, err := Decide(policies.Policy{}, inventory.Fleet{}, drain, nil, now); err == nil || d.Allowed {
		t.Error("the zero policy allows")
	}
}

// TestRequestIsDocumented: docs/formats/request.md has every field, action, argument and reason code, and no others.
func TestRequestIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats/request.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	column := func(head string, n int) []string {
		_, table, found := strings.Cut(page, head)
		if !found {
			t.Fatalf("no table %q", head)
		}
		table, _, _ = strings.Cut(table, "\n\n")
		var list []string
		for line := range strings.Lines(table) {
			if cells := strings.Split(line, "|"); len(cells) > n && !strings.HasPrefix(cells[1], "---") {
				for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[n], -1) {
					list = append(list, m[1])
				}
			}
		}
		return list
	}
	var fields []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Request]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			fields = append(fields, name)
		}
	}
	if got := column("| field | meaning |\n", 1); !slices.Equal(got, fields) {
		t.Errorf("fields: got %q, want %q", got, fields)
	}
	if got := column("| action | subject |", 1); !slices.Equal(got, policies.Actions) {
		t.Errorf("actions: got %q, want %q", got, policies.Actions)
	}
	arguments := map[string]bool{}
	for _, o := range orders {
		for name := range o.Arguments {
			arguments[name] = true
		}
	}
	named := column("| action | subject |", 3)
	for name := range maps.Keys(arguments) {
		if !slices.Contains(named, name) {
			t.Errorf("argument %s is not in the table", name)
		}
	}
	if got := column("| code | meaning |\n", 1); !slices.Equal(got, Reasons) {
		t.Errorf("codes: got %q, want %q", got, Reasons)
	}
}

// FuzzRequest: whatever is read is written back as the same bytes, and nothing that nobody signed is allowed.
func FuzzRequest(f *testing.F) {
	w := newWorld(f)
	for _, o := range orders {
		data, err := New("lab", o, "disk full", now, time.Hour).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, []byte(nil))
		f.Add(data, w.sign(f, Namespace, data, "stranger"))
	}
	f.Add([]byte(`{"kind":"mayfly-request/1"}`), []byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"))
	f.Add([]byte("null"), []byte("x"))
	f.Fuzz(func(t *testing.T, data, sigs []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := r.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %q, %v from %q", again, err, data)
		}
		if d, err := Decide(w.p, w.f, r.Order, &Signed{data, sigs}, now); err == nil {
			t.Errorf("allowed %+v", d)
		}
	})
}
