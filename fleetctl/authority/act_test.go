package authority

import (
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
	"mayfly/testenv/softkey"
)

const logName = "mayfly/lab/orders"

// fleet is one whose engineers anna and bert have two keys each.
type fleet struct {
	t    *testing.T
	b    *bundle.Bundle
	keys map[string]*softkey.Key
	dir  string
	now  time.Time
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, keys: map[string]*softkey.Key{}, dir: filepath.Join(t.TempDir(), "orders"), now: time.Now().UTC().Truncate(time.Second)}
	f.b = &bundle.Bundle{Fleet: "lab", Version: 3, Inventory: inventory.Fleet{Name: "lab", Test: true}, Policy: policies.Policy{Hardware: policies.Hardware{TestRoots: []string{"soft"}}}}
	for _, name := range []string{"anna", "bert"} {
		e := policies.Engineer{Name: name}
		for _, which := range []string{"", "-2"} {
			k, err := softkey.New(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			f.keys[name+which] = k
			e.Keys = append(e.Keys, policies.Key{Public: k.Authorized(), Evidence: "test:soft"})
		}
		f.b.Policy.Engineers = append(f.b.Policy.Engineers, e)
	}
	f.b.Policy.Operators = []policies.Operator{{Engineers: []string{"anna", "bert"}, Actions: policies.Actions}}
	return f
}

// signed is a request that these keys have signed.
func (f *fleet) signed(fleet string, o request.Order, made time.Time, by ...string) *request.Signed {
	f.t.Helper()
	data, err := request.New(fleet, o, "it burns", made, time.Hour).Marshal()
	if err != nil {
		f.t.Fatal(err)
	}
	s := &request.Signed{Data: data}
	for _, name := range by {
		sig, err := sshsig.Sign(f.keys[name].Signer(softkey.Always), request.Namespace, data)
		if err != nil {
			f.t.Fatal(err)
		}
		s.Signatures = append(s.Signatures, sig...)
	}
	return s
}

func (f *fleet) rotation(mode string, servers ...request.Server) request.Order {
	return request.Rotate(request.Rotation{Mode: mode, Servers: servers, Release: 7, Digest: strings.Repeat("0a", 32), Policy: 3})
}

// refusals are the codes on record.
func (f *fleet) refusals() (codes []string) {
	f.t.Helper()
	err := filepath.WalkDir(filepath.Join(f.dir, logDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".jsonl") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			var entry struct {
				Event  string  `json:"event"`
				Record Refused `json:"record"`
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				return err
			}
			if entry.Event == EventRefused {
				codes = append(codes, entry.Record.Code)
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return codes
}

// TestAct: what people signed is done once, as they signed it; an emergency never by one of them; every refusal is on record.
func TestAct(t *testing.T) {
	se1, se2 := request.Server{Name: "se-1", Epoch: 4}, request.Server{Name: "se-2", Epoch: 7}
	for _, tt := range []struct {
		name  string
		order func(*fleet) (signed, asked request.Order)
		fleet string
		made  time.Duration
		by    []string
		none  bool
		want  string
	}{
		{name: "an emergency by two", by: []string{"anna", "bert"}},
		{name: "an emergency by one", by: []string{"anna"}, want: request.TooFew},
		{name: "an emergency by one person's two keys", by: []string{"anna", "anna-2"}, want: request.TooFew},
		{name: "an emergency by one who signs twice", by: []string{"bert", "bert"}, want: request.TooFew},
		{name: "an emergency by nobody", want: request.Unsigned},
		{name: "an emergency without a request", none: true, want: request.Missing},
		{name: "an expired one", by: []string{"anna", "bert"}, made: -2 * time.Hour, want: request.Expired},
		{name: "one from the future", by: []string{"anna", "bert"}, made: 2 * time.Hour, want: request.Early},
		{name: "another fleet's", fleet: "prod", by: []string{"anna", "bert"}, want: request.OtherFleet},
		{name: "other servers", by: []string{"anna", "bert"}, want: request.Other, order: func(f *fleet) (signed, asked request.Order) {
			return f.rotation(request.ModeEmergency, se1), f.rotation(request.ModeEmergency, se2)
		}},
		{name: "more servers", by: []string{"anna", "bert"}, want: request.Other, order: func(f *fleet) (signed, asked request.Order) {
			return f.rotation(request.ModeEmergency, se1), f.rotation(request.ModeEmergency, se1, se2)
		}},
		{name: "every server", by: []string{"anna", "bert"}, want: request.Other, order: func(f *fleet) (signed, asked request.Order) {
			return f.rotation(request.ModeEmergency, se1), f.rotation(request.ModeEmergency)
		}},
		{name: "a later life of the server", by: []string{"anna", "bert"}, want: request.Other, order: func(f *fleet) (signed, asked request.Order) {
			return f.rotation(request.ModeEmergency, se1), f.rotation(request.ModeEmergency, request.Server{Name: "se-1", Epoch: 5})
		}},
		{name: "another mode, which one signs", by: []string{"anna"}, want: request.Other, order: func(f *fleet) (signed, asked request.Order) {
			return f.rotation(request.ModeRepave), f.rotation(request.ModeEmergency)
		}},
		{name: "another release", by: []string{"anna"}, want: request.Other, order: func(f *fleet) (signed, asked request.Order) {
			return request.ImageUse(7, strings.Repeat("0a", 32)), request.ImageUse(8, strings.Repeat("0a", 32))
		}},
		{name: "other bytes of the release", by: []string{"anna"}, want: request.Other, order: func(f *fleet) (signed, asked request.Order) {
			return request.ImageUse(7, strings.Repeat("0a", 32)), request.ImageUse(7, strings.Repeat("0b", 32))
		}},
		{name: "a repave by one", by: []string{"anna"}, order: func(f *fleet) (signed, asked request.Order) {
			return f.rotation(request.ModeRepave), f.rotation(request.ModeRepave)
		}},
		{name: "a restore by one", by: []string{"anna", "anna-2"}, want: request.TooFew, order: func(f *fleet) (signed, asked request.Order) {
			return request.Restore(strings.Repeat("0a", 32)), request.Restore(strings.Repeat("0a", 32))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t)
			signed, asked := f.rotation(request.ModeEmergency), f.rotation(request.ModeEmergency)
			if tt.order != nil {
				signed, asked = tt.order(f)
			}
			fleet := "lab"
			if tt.fleet != "" {
				fleet = tt.fleet
			}
			s := f.signed(fleet, signed, f.now.Add(tt.made), tt.by...)
			if tt.none {
				s = nil
			}
			if err := os.MkdirAll(f.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			d, err := Act(t.Context(), f.dir, logName, nil, f.b, asked, s, f.now)
			if got := reason(err); got != tt.want || d.Allowed != (tt.want == "") {
				t.Fatalf("got %q, allowed %t, want %q", got, d.Allowed, tt.want)
			}
			if got := f.refusals(); tt.want == "" && len(got) != 0 || tt.want != "" && (len(got) != 1 || got[0] != tt.want) {
				t.Errorf("on record as refused: %q, want %q", got, tt.want)
			}
			if tt.want != "" {
				return
			}
			if d, err := Act(t.Context(), f.dir, logName, nil, f.b, asked, s, f.now); reason(err) != request.Used || d.Allowed {
				t.Errorf("again: got %v, allowed %t", err, d.Allowed)
			}
			if got := f.refusals(); len(got) != 1 || got[0] != request.Used {
				t.Errorf("again, on record: %q", got)
			}
			key, err := audit.ReadVerifier(filepath.Join(f.dir, logDir, audit.KeyName+".pub"))
			if err != nil {
				t.Fatal(err)
			}
			if r, err := audit.Verify(filepath.Join(f.dir, logDir), audit.Trusted{Log: key}); err != nil || r.Size < 1 {
				t.Errorf("the log: %+v, %v", r, err)
			}
		})
	}
}

// TestActElsewhere: a request counts once for all controllers that share a store, whatever each remembers by itself.
func TestActElsewhere(t *testing.T) {
	f := newFleet(t)
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o := f.rotation(request.ModeRepave)
	signed := f.signed("lab", o, f.now, "anna")
	for i, want := range []string{"", request.Used} {
		dir := filepath.Join(t.TempDir(), "orders") // another controller's
		d, err := Act(t.Context(), dir, logName, s, f.b, o, signed, f.now)
		if reason(err) != want || d.Allowed != (want == "") {
			t.Errorf("controller %d: got %v, allowed %t, want %q", i+1, err, d.Allowed, want)
		}
	}
}

// TestActWithout: a test fleet without [[operator]] goes on without a request, on record so; any other fleet does nothing.
func TestActWithout(t *testing.T) {
	f := newFleet(t)
	f.b.Policy.Operators = nil
	if d, err := Act(t.Context(), f.dir, logName, nil, f.b, request.Pause(), nil, f.now); err != nil || !d.Allowed || d.Request != nil {
		t.Errorf("a test fleet: got %+v, %v", d, err)
	}
	f.b.Inventory.Test = false
	if d, err := Act(t.Context(), f.dir, logName, nil, f.b, request.Pause(), nil, f.now); reason(err) != request.NoOperators || d.Allowed {
		t.Errorf("another fleet: got %+v, %v", d, err)
	}
}

// TestZeroOrders: the zero value does nothing.
func TestZeroOrders(t *testing.T) {
	f := newFleet(t)
	if err := (Orders{}).Begin(f.b, request.Pause(), request.Decision{Allowed: true}, nil, f.now); reason(err) != request.NotAllowed {
		t.Errorf("got %v", err)
	}
}
