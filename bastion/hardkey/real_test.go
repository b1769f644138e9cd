package hardkey

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// now of all tests, unless they are about time.
var now = time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)

// blocks reads the PEM blocks of a file in testdata.
func blocks(t testing.TB, name string) [][]byte {
	t.Helper()
	rest, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return list
		}
		list = append(list, block.Bytes)
	}
}

// The certificates of real YubiKeys, as their owners published them, are accepted as far as their keys can prove. What is left is the answer
// to a challenge, which only who holds the card can give.
func TestRealYubiKeys(t *testing.T) {
	for _, tt := range []struct {
		file  string
		rules Rules
		want  Proof
		then  string // the reason that is left
		text  string
	}{
		{"yubikey-5.7.4.pem", Rules{Slots: []string{"9c"}},
			Proof{Issuer: "Yubico PIV Attestation B 1", Touch: true, UserVerification: true, PINPolicy: "always", Slot: "9c", Firmware: "5.7.4", FormFactor: "keychain USB-C", Serial: 38906327},
			Signature, "another key answered"},
		{"yubikey-5.7.1.pem", Rules{Slots: []string{"9c"}},
			Proof{Issuer: "Yubico PIV Root CA Serial 263751", Touch: true, UserVerification: true, PINPolicy: "always", Slot: "9c", Firmware: "5.7.1", FormFactor: "keychain USB-C", Serial: 30041834},
			Signature, "another key answered"},
		{"yubikey-5.7.1.pem", Rules{}, Proof{}, Slot, "slot 9c"},
		{"yubikey-5.7.1.pem", Rules{Slots: []string{"9c"}, MinFirmware: "5.7.2"}, Proof{}, Firmware, "5.7.2 or later"},
		{"yubikey-5.4.3.pem", Rules{MinFirmware: "5.4.3"},
			Proof{Issuer: "Yubico PIV Root CA Serial 263751", UserVerification: true, PINPolicy: "once", Slot: "9a", Firmware: "5.4.3", FormFactor: "nano USB-C", Serial: 15732500},
			TouchNever, "Never"},
		{"yubikey-4.3.7.pem", Rules{MinFirmware: "4.3.0"}, Proof{}, OtherApplet, "U2F Root CA"}, // made in 2018, certified by the wrong root
	} {
		t.Run(tt.file+" "+tt.then, func(t *testing.T) {
			shown := Shown{Kind: KindPIV}
			certs := blocks(t, tt.file)
			for _, der := range certs {
				shown.Attestation = append(shown.Attestation, base64.StdEncoding.EncodeToString(der))
			}
			slot, err := x509.ParseCertificate(certs[0])
			if err != nil {
				t.Fatal(err)
			}
			key, err := ssh.NewPublicKey(slot.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			c := challengeFor("lab", "anna")
			shown.Challenge, shown.Signature = c.String(), answerOf(t, newEd25519(t), c)
			_, got := Verify("lab", "anna", line(key), shown, tt.rules, now)
			if got == nil || got.Reason != tt.then || !strings.Contains(got.Text, tt.text) {
				t.Fatalf("got %v, want %s with %q", got, tt.then, tt.text)
			}
			if tt.want.Issuer == "" {
				return
			}
			device, err := x509.ParseCertificate(certs[1])
			if err != nil {
				t.Fatal(err)
			}
			var p Proof
			r, err := tt.rules.compile()
			if err != nil {
				t.Fatal(err)
			}
			by, rejection := r.issuerOf(device, KindPIV)
			if rejection != nil {
				t.Fatal(rejection)
			}
			p.Issuer = by.name
			p.policies(slot, device, r) // its verdict is above
			if p != tt.want {
				t.Errorf("got %+v\nwant %+v", p, tt.want)
			}
		})
	}
}

// A slot certificate and a device certificate of two real YubiKeys do not go together.
func TestRealYubiKeysMixed(t *testing.T) {
	a, b := blocks(t, "yubikey-5.7.4.pem"), blocks(t, "yubikey-5.7.1.pem")
	for _, pair := range [][2][]byte{{a[0], b[1]}, {b[0], a[1]}, {a[1], a[0]}, {a[1], a[1]}, {a[0], a[0]}} {
		slot, err := x509.ParseCertificate(a[0])
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.NewPublicKey(slot.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		c := challengeFor("lab", "anna")
		shown := Shown{Kind: KindPIV, Challenge: c.String(), Signature: answerOf(t, newEd25519(t), c)}
		for _, der := range pair {
			shown.Attestation = append(shown.Attestation, base64.StdEncoding.EncodeToString(der))
		}
		if _, got := Verify("lab", "anna", line(key), shown, Rules{Slots: []string{"9c"}}, now); got == nil || got.Reason != Chain && got.Reason != Imported {
			t.Errorf("got %v, want %s or %s", got, Chain, Imported)
		}
	}
}

// A real FIDO2 authenticator's packed attestation, of a maker that is not built in. It was made for a web page, so no SSH key has it.
func TestRealFIDO2(t *testing.T) {
	parts := blocks(t, "feitian-fido2.pem")
	st, rejection := parseStatement(parts[0])
	if rejection != nil {
		t.Fatal(rejection)
	}
	if st.data.rpIDHash != sha256.Sum256([]byte("localhost")) || st.data.flags != flagPresent|flagVerified|flagAttested {
		t.Errorf("got rpIdHash %x, flags %02x", st.data.rpIDHash, st.data.flags)
	}
	hash := [sha256.Size]byte(parts[1])
	feitian := Issuer{Name: "Feitian", Applet: KindFIDO2, Certificate: base64.StdEncoding.EncodeToString(parts[2])}
	model := "42383245-4437-3343-3846-423445354132"
	rules := func(r Rules) rules {
		c, err := r.compile()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var p Proof
	if rejection := p.attested(st, hash, rules(Rules{AAGUIDs: []string{model}, FIDO2Issuers: []Issuer{feitian}}), now); rejection != nil {
		t.Fatal(rejection)
	}
	if want := (Proof{Issuer: "Feitian", AAGUID: model}); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
	raw, err := st.data.key.raw()
	if err != nil {
		t.Fatal(err)
	}
	k := key{raw: raw, application: "localhost"}
	if got := p.credential(k, st.data, rules(Rules{})); got == nil || got.Reason != RelyingParty {
		t.Errorf("a web page's key: got %v, want %s", got, RelyingParty)
	}
	for name, tt := range map[string]struct {
		rules Rules
		hash  [sha256.Size]byte
		want  string
	}{
		"maker not listed":  {Rules{AAGUIDs: []string{model}}, hash, Chain},
		"model not listed":  {Rules{FIDO2Issuers: []Issuer{feitian}}, hash, AAGUID},
		"another challenge": {Rules{AAGUIDs: []string{model}, FIDO2Issuers: []Issuer{feitian}}, sha256.Sum256(nil), Signature},
	} {
		var p Proof
		if got := p.attested(st, tt.hash, rules(tt.rules), now); got == nil || got.Reason != tt.want {
			t.Errorf("%s: got %v, want %s", name, got, tt.want)
		}
	}
}

// fingerprints of the built-in certificates, SHA-256, as Yubico's readers publish them.
var fingerprints = map[string]string{
	"Yubico PIV Root CA Serial 263751":    "63ece914e54dd87915f34033c85af4c0696ba1512f8add66ced738331207b546",
	"Yubico PIV Attestation A 1":          "6de693f05376f5d8ca29069261e1c8626c75d503bd2edbfd75354cad1f722870",
	"Yubico PIV Attestation B 1":          "2d55b7998f4e42569d6d8fa382b6dc77d1dacf07358b19701163892922b17052",
	"Yubico PIV Attestation B2 1":         "0c90b7d184a36edf50a35f9be935f0c5689bfdcfe5bdd073366cafb49061a440",
	"Yubico U2F Root CA Serial 457200631": "0fa1386f80eb8713263ae5c1d84deb455bdf08aea50ab05503cefee82b092d42",
	"Yubico Attestation Root 1":           "62760c6a6ef91679f454c8902b80fd009825b3f25da90f1fbace2ec6586cd5a8",
	"Yubico Attestation Intermediate A 1": "4698a1d3389c3ec60016c216250f1d0439922832d65142327436376dc2942b55",
	"Yubico Attestation Intermediate B 1": "d4cc3f456fdaf4e7812a21aab1dfe9d8e27d24e2fd2d6f21c9940109f0daa754",

	"Yubico FIDO Root CA Serial 450203556": "35f1a54b353bfb711e6d42adbeb76c0e9dead095018e6a94783ba2192fd6faad",
}

// Each built-in certificate is what it is named for, and chains to a root whose fingerprint is known.
func TestBuiltin(t *testing.T) {
	list := builtin()
	byName := map[string]issuer{}
	for _, is := range list {
		byName[is.name] = is
	}
	if len(list) != 17 || len(byName) != len(list) {
		t.Fatalf("got %d certificates, %d names, want 17", len(list), len(byName))
	}
	for name, want := range fingerprints {
		sum := sha256.Sum256(byName[name].certificate.Raw)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	roots := map[string]bool{
		"Yubico PIV Root CA Serial 263751": true, "Yubico U2F Root CA Serial 457200631": true, "Yubico Attestation Root 1": true,
		"Yubico FIDO Root CA Serial 450203556": true, "Yubico OpenPGP Attestation CA": true,
	}
	for _, is := range list {
		if !is.certificate.IsCA || is.certificate.NotAfter.Before(now.AddDate(15, 0, 0)) || is.test {
			t.Errorf("%s: not a lasting authority", is.name)
		}
		chain := []string{is.name}
		for at := is; !roots[at.name]; {
			parent, ok := byName[at.certificate.Issuer.CommonName]
			if !ok || !signed(parent.certificate, at.certificate) {
				t.Errorf("%s: chain %q ends at no root", is.name, chain)
				break
			}
			at, chain = parent, append(chain, parent.name)
		}
		if last := byName[chain[len(chain)-1]]; !signed(last.certificate, last.certificate) {
			t.Errorf("%s: root %q did not sign itself", is.name, last.name)
		}
		applet := map[bool]string{strings.Contains(is.name, "PIV "): KindPIV, strings.Contains(is.name, "FIDO ") || strings.Contains(is.name, "U2F "): KindFIDO2}[true]
		if applet == "" {
			applet = otherApplet
		}
		if is.applet != applet {
			t.Errorf("%s: counts for %q, want %q", is.name, is.applet, applet)
		}
	}
}
