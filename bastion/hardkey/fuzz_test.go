package hardkey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"slices"
	"testing"
	"unicode"
)

// checkRejection holds what is true of every rejection, whatever was shown.
func checkRejection(t *testing.T, p Proof, r *Rejection) {
	t.Helper()
	switch {
	case p != (Proof{}):
		t.Errorf("got the proof %+v beside a rejection", p)
	case !slices.Contains(Reasons(), r.Reason):
		t.Errorf("got a reason of no list: %s", r.Reason)
	case r.Text == "" || r.Mend == "" || len(r.Text) > 1<<10:
		t.Errorf("got sentence %q, mend %q", r.Text, r.Mend)
	}
	for _, c := range r.Text {
		if !unicode.IsPrint(c) {
			t.Errorf("the sentence is not printable: %q", r.Text)
		}
	}
}

// FuzzPIVAttestation: whatever is shown for a key, only what its card made is accepted, and nothing breaks.
func FuzzPIVAttestation(f *testing.F) {
	c := newCard(f)
	c.key, c.deviceKey, c.rootKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), fixed(f, "device"), fixed(f, "root")
	shown := c.make(f)
	var good [3][]byte
	for i, text := range append(slices.Clone(shown.Attestation), shown.Signature) {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		good[i] = raw
	}
	f.Add(good[0], good[1], good[2])
	f.Add(good[1], good[0], good[2])
	f.Add(good[0], c.made.root.Raw, good[2])
	for _, name := range []string{"yubikey-5.7.4.pem", "yubikey-5.7.1.pem", "yubikey-5.4.3.pem", "yubikey-4.3.7.pem"} {
		certs := blocks(f, name)
		f.Add(certs[0], certs[1], good[2])
	}
	f.Fuzz(func(t *testing.T, slot, device, signature []byte) {
		shown := Shown{Kind: KindPIV, Challenge: shown.Challenge, Attestation: []string{encoded(slot), encoded(device)}, Signature: encoded(signature)}
		p, r := Verify(c.fleet, c.name, c.public, shown, c.rules, now)
		if r != nil {
			checkRejection(t, p, r)
		} else if !bytes.Equal(slot, good[0]) || !bytes.Equal(device, good[1]) {
			t.Errorf("accepted, and no card made it: %+v", p)
		}
		if r := shown.Check(c.public); r != nil {
			checkRejection(t, Proof{}, r)
		}
	})
}

// FuzzFIDO2Attestation: the same for the file that ssh-keygen writes.
func FuzzFIDO2Attestation(f *testing.F) {
	a := newAuthenticator(f)
	a.key, a.attestKey, a.rootKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), fixed(f, "device"), fixed(f, "root")
	shown := a.make(f)
	good, err := base64.StdEncoding.DecodeString(shown.Attestation[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(blocks(f, "feitian-fido2.pem")[0])
	f.Add(bytes.Replace(good, []byte(attestMagic), []byte(attestOld), 1))
	f.Add(good[:len(good)-9])
	f.Fuzz(func(t *testing.T, blob []byte) {
		shown := Shown{Kind: KindFIDO2, Challenge: shown.Challenge, Attestation: []string{encoded(blob)}}
		p, r := Verify(a.fleet, a.name, a.public, shown, a.rules, now)
		if r != nil {
			checkRejection(t, p, r)
		} else if !bytes.Equal(blob, good) {
			t.Errorf("accepted, and no authenticator made it: %+v", p)
		}
	})
}

// FuzzAuthenticatorData: what is accepted has one form only.
func FuzzAuthenticatorData(f *testing.F) {
	a := newAuthenticator(f)
	f.Add(a.authData(f))
	a.flags, a.extensions = flagPresent|flagAttested, nil
	f.Add(a.authData(f))
	st, rejection := parseStatement(blocks(f, "feitian-fido2.pem")[0])
	if rejection != nil {
		f.Fatal(rejection)
	}
	f.Add(st.raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseAuthData(data)
		if err != nil {
			return
		}
		if raw, err := d.key.raw(); err == nil && len(raw) != coordinate && len(raw) != 2*coordinate+1 {
			t.Errorf("got a key of %d bytes", len(raw))
		}
		if d.credProtect < 0 || d.credProtect > protectRequired || d.flags&flagAttested == 0 {
			t.Errorf("got %+v", d)
		}
		cose, err := canonical.Marshal(d.key)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(data, cose) {
			t.Errorf("the key %x is not in the data as it is written", cose)
		}
	})
}

// FuzzChallenge: what is accepted is written as it was read.
func FuzzChallenge(f *testing.F) {
	f.Add("mayfly-challenge/1 lab anna ab000000000000000000000000000001 2026-11-20T15:00:00Z")
	f.Add("mayfly-challenge/1 a b 00000000000000000000000000000000 0000-01-01T00:00:00Z")
	f.Add("mayfly-challenge/1 lab anna ab000000000000000000000000000001 2026-11-20T15:00:00+00:00")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := ParseChallenge(line)
		if err == nil && c.String() != line {
			t.Errorf("got %q for %q", c, line)
		}
		if err != nil && c != (Challenge{}) {
			t.Errorf("got %+v beside %v", c, err)
		}
	})
}
