package policies

import (
	"fmt"
	"strings"
	"testing"

	"mayfly/bastion/hardkey"
	"mayfly/testenv/softcard"
)

// The bounds of [hardware] and of what stands beside a key, one by one, where all the rest is right.
func TestHardwareBounds(t *testing.T) {
	good := enrol(t, card(t, softcard.Plan{}), "lab", "anna")
	many := func(n int, form string) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf(form, i))
		}
		return list
	}
	serials := func(n int) (list []uint32) {
		for i := range n {
			list = append(list, uint32(i+1))
		}
		return list
	}
	shown := func(change func(*Key)) func(*Policy) {
		return func(p *Policy) { change(&p.Engineers[0].Keys[0]) }
	}
	issuerNamed := func(name string) func(*Policy) {
		return func(p *Policy) { p.Hardware.TestIssuers[0].Name = name }
	}
	software := func(change func(*Key)) func(*Policy) {
		return func(p *Policy) {
			k := &p.Engineers[0].Keys[0]
			*k = parsed(t).Engineers[0].Keys[0]
			change(k)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Policy)
		want   string // "": it may be so
	}{
		{"as it is", func(*Policy) {}, ""},
		{"a software key as it is", software(func(*Key) {}), ""},
		{"test root with a challenge", software(func(k *Key) { k.Challenge = "x" }), "beside it"},
		{"test root with an attestation", software(func(k *Key) { k.Attestation = []string{"x"} }), "beside it"},
		{"test root with a signature", software(func(k *Key) { k.Signature = "x" }), "beside it"},
		{"four attestations", shown(func(k *Key) { k.Attestation = many(4, "A%d") }), ""},
		{"five attestations", shown(func(k *Key) { k.Attestation = many(5, "A%d") }), "at most 4"},
		{"the longest attestation", shown(func(k *Key) { k.Attestation = []string{strings.Repeat("A", 8192)} }), ""},
		{"a longer attestation", shown(func(k *Key) { k.Attestation = []string{strings.Repeat("A", 8193)} }), "at most 8192 characters"},
		{"a longer challenge", shown(func(k *Key) { k.Challenge = strings.Repeat("A", 8193) }), "at most 8192 characters"},
		{"a longer signature", shown(func(k *Key) { k.Signature = strings.Repeat("A", 8193) }), "at most 8192 characters"},
		{"an attestation with a newline", shown(func(k *Key) { k.Attestation = []string{"A\n"} }), "printable ASCII"},
		{"a challenge with an escape", shown(func(k *Key) { k.Challenge += "\x1b" }), "printable ASCII"},
		{"a signature with DEL", shown(func(k *Key) { k.Signature += "\x7f" }), "printable ASCII"},
		{"a signature that turns a line round", shown(func(k *Key) { k.Signature += "\u202e" }), "printable ASCII"},
		{"an issuer that writes on a terminal", issuerNamed("TEST\x1b[2J"), "is no name"},
		{"an issuer in two lines", issuerNamed("TEST\nby Yubico"), "is no name"},
		{"an issuer with a comma", issuerNamed("TEST, touch always"), "is no name"},
		{"an issuer without a name", issuerNamed(""), "is no name"},
		{"an issuer with a long name", issuerNamed(strings.Repeat("x", 64)), "is no name"},
		{"a long certificate", func(p *Policy) { p.Hardware.TestIssuers[0].Certificate = strings.Repeat("A", 8193) }, "hardware.test_issuer[0].certificate"},
		{"seventeen issuers", func(p *Policy) { p.Hardware.TestIssuers = make([]hardkey.Issuer, 17) }, "17 issuers: at most 16"},
		{"too many serial numbers", func(p *Policy) { p.Hardware.SerialsDeny = serials(4097) }, "at most 4096"},
		{"many serial numbers", func(p *Policy) { p.Hardware.SerialsDeny = serials(4096) }, ""},
		{"too many models", func(p *Policy) { p.Hardware.AAGUIDs = many(257, "d8522d9f-575b-4866-88a9-%012x") }, "at most 256"},
		{"too many test roots", func(p *Policy) { p.Hardware.TestRoots = many(maxRoots+1, "root-%d") }, "test roots: at most"},
	} {
		p := withCards(t)
		p.Engineers[0].Keys = []Key{good}
		tt.change(&p)
		if err := Check(p, lab(t)); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A key that software can hold lets nobody in beside evidence that is not a card's, in a policy that nobody checked either.
func TestSoftwareKeyIsNotAccepted(t *testing.T) {
	p := parsed(t)
	evidence := p.Engineers[0].Keys[0].Evidence
	if v := p.Accept("anna", p.Engineers[0].Keys[0]); !v.Allow {
		t.Fatalf("got %+v", v)
	}
	if v := p.Accept("anna", Key{Public: nistKey, Evidence: evidence}); v.Allow || v.Reason != KeyNotHardware {
		t.Errorf("got %+v, want %s", v, KeyNotHardware)
	}
}
