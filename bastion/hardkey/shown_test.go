package hardkey

import "testing"

// Check names the field that cannot be read, and asks for no proof.
func TestShownRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change        func(public *string, s *Shown)
		piv, fido2    string // the fields to blame; "": none
		reason, other string // PIV's and FIDO2's
	}{
		"as it should be":     {func(*string, *Shown) {}, "", "", "", ""},
		"another's challenge": {func(_ *string, s *Shown) { s.Challenge = challengeFor("prod", "bert").String() }, "", "", "", ""},
		"no kind":             {func(_ *string, s *Shown) { s.Kind = "" }, "attestation", "attestation", Missing, Missing},
		"another kind":        {func(_ *string, s *Shown) { s.Kind = "tpm" }, "evidence", "evidence", Kind, Kind},
		"no key":              {func(p *string, _ *Shown) { *p = "" }, "public", "public", KeyType, KeyType},
		"a cut key":           {func(p *string, _ *Shown) { *p = (*p)[:60] }, "public", "public", Malformed, Malformed},
		"no challenge":        {func(_ *string, s *Shown) { s.Challenge = "" }, "challenge", "challenge", Malformed, Malformed},
		"nothing attested":    {func(_ *string, s *Shown) { s.Attestation = nil }, "attestation", "attestation", Missing, Missing},
		"nonsense attested":   {func(_ *string, s *Shown) { s.Attestation[0] = "AAAA" }, "attestation[0]", "attestation[0]", Malformed, Malformed},
		"too much attested":   {func(_ *string, s *Shown) { s.Attestation = append(s.Attestation, "AAAA", "AAAA") }, "attestation", "attestation", Malformed, Malformed},
		"a broken signature":  {func(_ *string, s *Shown) { s.Signature = "AAAA" }, "signature", "signature", Malformed, Malformed},
		"no signature":        {func(_ *string, s *Shown) { s.Signature = "" }, "signature", "", Malformed, ""},
	} {
		c, a := newCard(t), newAuthenticator(t)
		piv, fido2 := c.make(t), a.make(t)
		tt.change(&c.public, &piv)
		tt.change(&a.public, &fido2)
		for _, of := range []struct {
			got           *Rejection
			field, reason string
		}{{piv.Check(c.public), tt.piv, tt.reason}, {fido2.Check(a.public), tt.fido2, tt.other}} {
			switch {
			case of.field == "" && of.got != nil:
				t.Errorf("%s: got %s: %v", name, of.got.Reason, of.got)
			case of.field != "" && (of.got == nil || of.got.Field != of.field || of.got.Reason != of.reason):
				t.Errorf("%s: got %+v, want %s of field %s", name, of.got, of.reason, of.field)
			}
		}
	}
	c := newCard(t)
	shown := c.make(t)
	shown.Attestation[1] = "AAAA"
	if got := shown.Check(c.public); got == nil || got.Field != "attestation[1]" {
		t.Errorf("a broken device certificate: got %+v", got)
	}
}
