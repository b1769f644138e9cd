package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/trust"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

type fixture struct {
	trust      *trust.Trust
	anna, bert ssh.Signer
	fleet      inventory.Fleet
	policy     policies.Policy
}

func newKey(t testing.TB) (ssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, trust.FormatKey(s.PublicKey())
}

func load(t testing.TB) fixture {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var x fixture
	var err error
	if x.fleet, err = inventory.Parse("fleet.toml", read("../../inventory/testdata/fleet.toml")); err != nil {
		t.Fatal(err)
	}
	if x.policy, err = policies.Parse("policy.toml", read("../testdata/policy.toml"), x.fleet); err != nil {
		t.Fatal(err)
	}
	var annaKey, bertKey string
	x.anna, annaKey = newKey(t)
	x.bert, bertKey = newKey(t)
	_, ticket := newKey(t)
	_, list := newKey(t)
	x.trust = &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2,
		Approvers:  []trust.Person{{Name: "anna", Keys: []string{annaKey}}, {Name: "bert", Keys: []string{bertKey}}},
		TicketKeys: []string{ticket}, ListKeys: []string{list}}
	return x
}

func (x fixture) make(t testing.TB) []byte {
	t.Helper()
	data, err := Make(x.fleet, x.policy, now)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (x fixture) sign(t testing.TB, namespace string, data []byte, by ...ssh.Signer) []byte {
	t.Helper()
	var all []byte
	for _, s := range by {
		block, err := sshsig.Sign(s, namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, block...)
	}
	return all
}

func TestOpen(t *testing.T) {
	x := load(t)
	data := x.make(t)
	b, err := Open(x.trust, data, x.sign(t, Namespace, data, x.bert, x.anna), now, 7)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(b.Policy, x.policy) {
		t.Errorf("policy: got %+v, want %+v", b.Policy, x.policy)
	}
	if !reflect.DeepEqual(b.Inventory, x.fleet) {
		t.Errorf("inventory: got %+v, want %+v", b.Inventory, x.fleet)
	}
	if b.Version != 7 || b.Fleet != "lab" || !b.Made.Equal(now) || !b.Expires.Equal(x.policy.Expires) {
		t.Errorf("got %+v", b)
	}
	if again, err := canonical.Marshal(b); err != nil || !bytes.Equal(again, data) {
		t.Errorf("marshalled again: got %s, %v", again, err)
	}
}

// TestNoPartOpens: what was copied in part, or beside the signatures of another, is never taken for a bundle.
func TestNoPartOpens(t *testing.T) {
	x := load(t)
	data := x.make(t)
	sigs := x.sign(t, Namespace, data, x.bert, x.anna)
	for n := len(data) - 1; n >= 0; n -= 29 {
		if _, err := Open(x.trust, data[:n], sigs, now, 1); err == nil {
			t.Fatalf("the first %d of %d bytes open", n, len(data))
		}
	}
	for n := len(bytes.TrimSpace(sigs)) - 1; n >= 0; n -= 29 {
		if _, err := Open(x.trust, data, sigs[:n], now, 1); err == nil {
			t.Fatalf("the first %d of %d bytes of the signatures do", n, len(sigs))
		}
	}
	x.policy.Version++
	if _, err := Open(x.trust, x.make(t), sigs, now, 1); err == nil {
		t.Error("a new bundle opens beside the signatures of the old one")
	}
}

func TestOpenRefuses(t *testing.T) {
	x := load(t)
	good := x.make(t)
	other := *x.trust
	other.Fleet = "real"
	real := *x.trust
	real.Test = false
	// edit returns the good bundle with one change, in canonical form.
	edit := func(change func(*Bundle)) []byte {
		b, err := Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		data, err := canonical.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	tests := []struct {
		name string
		data []byte // signed by both, unless sigs is set
		sigs []byte
		tr   *trust.Trust
		now  time.Time
		min  uint64
		want string
	}{
		{"no signature", good, []byte("\n"), x.trust, now, 0, Unsigned},
		{"one signature", good, x.sign(t, Namespace, good, x.anna), x.trust, now, 0, Unsigned},
		{"one person twice", good, x.sign(t, Namespace, good, x.anna, x.anna), x.trust, now, 0, Unsigned},
		{"signed for something else", good, x.sign(t, "mayfly-release", good, x.anna, x.bert), x.trust, now, 0, Unsigned},
		{"changed after signing", append(bytes.Clone(good), ' '), x.sign(t, Namespace, good, x.anna, x.bert), x.trust, now, 0, Unsigned},
		{"no trust", good, nil, nil, now, 0, Unsigned},
		{"zero trust", good, nil, new(trust.Trust), now, 0, Unsigned},
		{"malformed and unsigned", []byte("{"), []byte("\n"), x.trust, now, 0, Unsigned},
		{"malformed", []byte("{"), nil, x.trust, now, 0, Malformed},
		{"empty", nil, nil, x.trust, now, 0, Malformed},
		{"trailing data", append(bytes.Clone(good), "{}\n"...), nil, x.trust, now, 0, Malformed},
		{"not canonical", append([]byte(" "), good...), nil, x.trust, now, 0, Malformed},
		{"unknown field", bytes.Replace(good, []byte(`"kind"`), []byte(`"x": 1, "kind"`), 1), nil, x.trust, now, 0, Malformed},
		{"field twice", bytes.Replace(good, []byte(`"version": 7`), []byte(`"version": 6, "version": 7`), 1), nil, x.trust, now, 0, Malformed},
		{"huge", make([]byte, MaxSize+1), []byte("\n"), x.trust, now, 0, Malformed},
		{"kind", edit(func(b *Bundle) { b.Kind = "mayfly-policy/2" }), nil, x.trust, now, 0, Malformed},
		{"version differs", edit(func(b *Bundle) { b.Version = 8 }), nil, x.trust, now, 0, Malformed},
		{"expiry differs", edit(func(b *Bundle) { b.Expires = b.Expires.Add(time.Hour) }), nil, x.trust, now, 0, Malformed},
		{"fleet differs", edit(func(b *Bundle) { b.Inventory.Name = "other" }), nil, x.trust, now, 0, Malformed},
		{"no time", edit(func(b *Bundle) { b.Made = time.Time{} }), nil, x.trust, now, 0, Malformed},
		{"bad inventory", edit(func(b *Bundle) { b.Inventory.Servers[0].Capacity = 0 }), nil, x.trust, now, 0, Malformed},
		{"bad floor", edit(func(b *Bundle) { b.Inventory.Regions[0].Floor.Mbps = 1001 }), nil, x.trust, now, 0, Malformed},
		{"bad policy", edit(func(b *Bundle) { b.Policy.SSH.Allow = nil }), nil, x.trust, now, 0, Malformed},
		{"policy that does not fit", edit(func(b *Bundle) { b.Policy.Grants[0].Servers[0] = "se-9" }), nil, x.trust, now, 0, Malformed},
		{"test roots in a real fleet", edit(func(b *Bundle) { b.Inventory.Test = false }), nil, x.trust, now, 0, Malformed},
		{"test fleet under a real trust policy", good, nil, &real, now, 0, TestFleet},
		{"real fleet under a test trust policy", edit(func(b *Bundle) {
			b.Inventory.Test = false
			b.Policy.Hardware.TestRoots, b.Policy.Engineers, b.Policy.Grants = []string{}, []policies.Engineer{}, []policies.Grant{}
		}), nil, x.trust, now, 0, TestFleet},
		{"another fleet", good, nil, &other, now, 0, OtherFleet},
		{"older", good, nil, x.trust, now, 8, Older},
		{"expired", good, nil, x.trust, x.policy.Expires, 0, Expired},
	}
	for _, tt := range tests {
		sigs := tt.sigs
		if sigs == nil {
			sigs = x.sign(t, Namespace, tt.data, x.anna, x.bert)
		}
		b, err := Open(tt.tr, tt.data, sigs, tt.now, tt.min)
		var refusal *Refusal
		if b != nil || !errors.As(err, &refusal) || refusal.Reason != tt.want || !refusal.Refused() {
			t.Errorf("%s: got %v, %v, want %s", tt.name, b != nil, err, tt.want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), tt.want+": ") {
			t.Errorf("%s: got %q, want it to begin with its reason", tt.name, err)
		}
	}
	// Why a bundle is unsigned can be read off.
	_, err := Open(x.trust, good, x.sign(t, Namespace, good, x.anna), now, 0)
	var short *trust.NotApproved
	if !errors.As(err, &short) || len(short.Have) != 1 || short.Have[0] != "anna" {
		t.Errorf("got %v, want it to say that anna signed", err)
	}
}

func TestMakeRefuses(t *testing.T) {
	x := load(t)
	if _, err := Make(x.fleet, x.policy, x.policy.Expires); err == nil {
		t.Error("expired: got nil, want an error")
	}
	if _, err := Make(inventory.Fleet{}, x.policy, now); err == nil {
		t.Error("zero fleet: got nil, want an error")
	}
	if _, err := Make(x.fleet, policies.Policy{}, now); err == nil {
		t.Error("zero policy: got nil, want an error")
	}
	if _, err := Make(x.fleet, x.policy, time.Time{}); err == nil {
		t.Error("no time: got nil, want an error")
	}
	x.policy.Grants[0].Servers = []string{"se-9"}
	if _, err := Make(x.fleet, x.policy, now); err == nil {
		t.Error("unknown server: got nil, want an error")
	}
}

// What Make returns Open takes, also where the policy's expiry was written in another zone.
func TestMakeNormalizes(t *testing.T) {
	x := load(t)
	x.policy.Expires = x.policy.Expires.In(time.FixedZone("", 3600))
	data := x.make(t)
	if _, err := Open(x.trust, data, x.sign(t, Namespace, data, x.anna, x.bert), now, 0); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	x := load(f)
	f.Add(x.make(f))
	f.Add([]byte("{\n  \"kind\": \"mayfly-policy/1\"\n}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := canonical.Marshal(b); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, which marshals to %q, %v", data, again, err)
		}
		if _, err := Open(x.trust, data, nil, now, 0); err == nil {
			t.Error("opened without signatures")
		}
	})
}
