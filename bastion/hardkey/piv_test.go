package hardkey

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestPIV(t *testing.T) {
	want := Proof{
		Kind: KindPIV, Issuer: "testcard", Test: true, Touch: true, UserVerification: true,
		PINPolicy: "once", Slot: "9a", Firmware: "5.7.4", FormFactor: "keychain USB-C", Serial: 30041834, Made: now,
	}
	for name, tt := range map[string]struct {
		change func(*card)
		want   func(*Proof)
	}{
		"P-256": {func(*card) {}, func(*Proof) {}},
		"device and issuer say that they sign certificates": {func(c *card) {
			c.root.KeyUsage, c.device.KeyUsage = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, x509.KeyUsageCertSign
		}, func(*Proof) {}},
		"P-384":            {func(c *card) { c.key = newECDSA(t, elliptic.P384()) }, func(*Proof) {}},
		"Ed25519":          {func(c *card) { c.key = newEd25519(t) }, func(*Proof) {}},
		"retired slot":     {func(c *card) { c.slot.Subject.CommonName = slotName + "95" }, func(p *Proof) { p.Slot = "95" }},
		"another slot":     {func(c *card) { c.slot.Subject.CommonName, c.rules.Slots = slotName+"9e", []string{"9e"} }, func(p *Proof) { p.Slot = "9e" }},
		"PIN always":       {func(c *card) { set(c.slot, oidPolicies, 3, 2) }, func(p *Proof) { p.PINPolicy = "always" }},
		"fingerprint":      {func(c *card) { set(c.slot, oidPolicies, 4, 2) }, func(p *Proof) { p.PINPolicy = "match_once" }},
		"fingerprint each": {func(c *card) { set(c.slot, oidPolicies, 5, 2) }, func(p *Proof) { p.PINPolicy = "match_always" }},
		"no PIN where none is asked for": {func(c *card) { set(c.slot, oidPolicies, 1, 2); c.rules.PINPolicies = []string{"never"} },
			func(p *Proof) { p.PINPolicy, p.UserVerification = "never", false }},
		"verify_required":     {func(c *card) { c.rules.VerifyRequired = true }, func(*Proof) {}},
		"firmware's floor":    {func(c *card) { c.rules.MinFirmware = "5.7.4" }, func(*Proof) {}},
		"newer firmware":      {func(c *card) { set(c.slot, oidFirmware, 6, 0, 0) }, func(p *Proof) { p.Firmware = "6.0.0" }},
		"older where allowed": {func(c *card) { set(c.slot, oidFirmware, 5, 4, 3); c.rules.MinFirmware = "5.4.0" }, func(p *Proof) { p.Firmware = "5.4.3" }},
		"listed serial":       {func(c *card) { c.rules.SerialsAllow, c.rules.SerialsDeny = []uint32{1, 30041834}, []uint32{1} }, func(*Proof) {}},
		"greatest serial":     {func(c *card) { set(c.slot, oidSerial, 2, 5, 0, 255, 255, 255, 255) }, func(p *Proof) { p.Serial = 1<<32 - 1 }},
		"FIPS":                {func(c *card) { set(c.slot, oidFormFactor, 0x81) }, func(p *Proof) { p.FormFactor = "keychain USB-A, FIPS" }},
		"security key":        {func(c *card) { set(c.slot, oidFormFactor, 0x4f) }, func(p *Proof) { p.FormFactor = "unknown (0x4f), Security Key" }},
		"device certificate without basic constraints, as some of 2018":   {func(c *card) { c.device.BasicConstraintsValid, c.device.IsCA = false, false }, func(*Proof) {}},
		"issuer that may sign nothing below a device, as one of Yubico's": {func(c *card) { c.root.MaxPathLenZero = true }, func(*Proof) {}},
		"certificates of the card's own day":                              {func(c *card) { c.now = c.slot.NotBefore }, func(*Proof) {}},
		"an old challenge":                                                {func(c *card) { c.challenge.Made = now.AddDate(-3, 0, 0) }, func(p *Proof) { p.Made = now.AddDate(-3, 0, 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCard(t)
			tt.change(c)
			want := want
			tt.want(&want)
			got, rejection := c.verify(t)
			if rejection != nil {
				t.Fatalf("got %s: %v", rejection.Reason, rejection)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Each thing that can be wrong has its reason, when all the rest is right.
func TestPIVRefuses(t *testing.T) {
	other := newECDSA(t, elliptic.P256())
	for name, tt := range map[string]struct {
		change func(*card)
		reason string
		text   string
	}{
		"unknown kind":       {func(c *card) { c.shown = func(s *Shown) { s.Kind = "tpm" } }, Kind, `"tpm"`},
		"no kind":            {func(c *card) { c.shown = func(s *Shown) { s.Kind = "" } }, Missing, "imported"},
		"no attestation":     {func(c *card) { c.shown = func(s *Shown) { s.Attestation = nil } }, Missing, "imported"},
		"one certificate":    {func(c *card) { c.shown = func(s *Shown) { s.Attestation = s.Attestation[:1] } }, Malformed, "attestation: 1 certificates"},
		"three certificates": {func(c *card) { c.shown = func(s *Shown) { s.Attestation = append(s.Attestation, s.Attestation[1]) } }, Malformed, "attestation: 3"},
		"not base64":         {func(c *card) { c.shown = func(s *Shown) { s.Attestation[0] = "%" } }, Malformed, "attestation[0]: not base64"},
		"base64 in two lines": {func(c *card) {
			c.shown = func(s *Shown) { s.Attestation[1] = s.Attestation[1][:8] + "\n" + s.Attestation[1][8:] }
		}, Malformed, "attestation[1]: base64 in more"},
		"empty certificate":    {func(c *card) { c.shown = func(s *Shown) { s.Attestation[1] = "" } }, Malformed, "attestation[1]: empty"},
		"long certificate":     {func(c *card) { c.shown = func(s *Shown) { s.Attestation[1] = strings.Repeat("A", 8<<10) } }, Malformed, "attestation[1]: longer"},
		"no certificate":       {func(c *card) { c.shown = func(s *Shown) { s.Attestation[0] = "AAAA" } }, Malformed, "attestation[0]: "},
		"certificate and more": {func(c *card) { c.shown = func(s *Shown) { s.Attestation[0] = encoded(append(c.made.slot.Raw, 0)) } }, Malformed, "attestation[0]: "},
		"certificates swapped": {func(c *card) {
			c.shown = func(s *Shown) { s.Attestation[0], s.Attestation[1] = s.Attestation[1], s.Attestation[0] }
		}, Chain, "nobody whom the fleet knows"},

		"a type that software holds": {func(c *card) { c.public = "ssh-rsa AAAA" }, KeyType, `"ssh-rsa"`},
		"P-521":                      {func(c *card) { c.key = newECDSA(t, elliptic.P521()) }, KeyType, "nistp521"},
		"FIDO2's type":               {func(c *card) { c.public = "sk-ssh-ed25519@openssh.com AAAA" }, KeyType, "sk-ssh-ed25519"},
		"not a key":                  {func(c *card) { c.public = "ssh-ed25519 AAAA" }, Malformed, "public: "},
		"key without base64":         {func(c *card) { c.public = "ssh-ed25519" }, Malformed, "public: "},
		"key with a comment":         {func(c *card) { c.public = lineOf(t, c.key) + " anna@laptop" }, Malformed, "public: not of the form"},
		"key in two lines":           {func(c *card) { c.public = lineOf(t, c.key)[:30] + "\n" + lineOf(t, c.key)[30:] }, Malformed, "public: "},
		"key and a newline":          {func(c *card) { c.public = lineOf(t, c.key) + "\n" }, Malformed, "public: "},
		"key with loose padding": {func(c *card) {
			line := lineOf(t, c.key) // ends in "x=", of which two bits are of no use
			c.public = line[:len(line)-2] + string(line[len(line)-2]+1) + "="
		}, Malformed, "public: not of the form"},
		"certificate with loose padding": {func(c *card) { c.shown = func(s *Shown) { s.Attestation[0] = "AB==" } }, Malformed, "attestation[0]: not base64"},
		"long key":                       {func(c *card) { c.public = "ssh-ed25519 " + strings.Repeat("A", maxPublic) }, Malformed, "public: longer"},
		"key of another type": {func(c *card) {
			c.public = strings.Replace(lineOf(t, c.key), "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", 1)
		}, Malformed, "public: says ecdsa-sha2-nistp384"},

		"another fleet":      {func(c *card) { c.fleet = "prod" }, ChallengeDiffers, `fleet "lab", not of "prod"`},
		"another person":     {func(c *card) { c.name = "bert" }, ChallengeDiffers, `for "anna", not for "bert"`},
		"no challenge":       {func(c *card) { c.shown = func(s *Shown) { s.Challenge = "" } }, ChallengeDiffers, "cannot be read"},
		"challenge and more": {func(c *card) { c.shown = func(s *Shown) { s.Challenge += "\n" } }, ChallengeDiffers, "cannot be read"},

		"a device's key of P-224": {func(c *card) { c.deviceKey = newECDSA(t, elliptic.P224()) }, Chain, "not made by the card"},
		"unknown root":            {func(c *card) { c.applet = "" }, Chain, `it names "Test root, software"`},
		"another applet's":        {func(c *card) { c.applet = KindFIDO2 }, OtherApplet, `"testcard", which does not certify`},
		"test root in earnest":    {func(c *card) { c.rules.Test = false }, TestIssuer, "software"},
		"root of the name alone": {func(c *card) {
			c.shown = func(s *Shown) {
				forged := issue(t, c.root, nil, other.Public(), other)
				s.Attestation[1] = encoded(issue(t, c.device, forged, c.deviceKey.Public(), other).Raw)
			}
		}, Chain, "nobody whom the fleet knows"},
		"root's signature, and another's name": {func(c *card) {
			c.shown = func(s *Shown) {
				renamed := issue(t, template("Another authority", true), nil, c.rootKey.Public(), c.rootKey)
				s.Attestation[1] = encoded(issue(t, c.device, renamed, c.deviceKey.Public(), c.rootKey).Raw)
			}
		}, Chain, `it names "Another authority"`},
		"the issuer itself as device": {func(c *card) {
			c.slotSigner = c.rootKey
			c.shown = func(s *Shown) {
				s.Attestation = []string{encoded(issue(t, c.slot, c.made.root, c.key.Public(), c.rootKey).Raw), encoded(c.made.root.Raw)}
			}
		}, Chain, "the issuer \"testcard\" itself"},
		"an issuer in between": {func(c *card) {
			c.shown = func(s *Shown) {
				between := issue(t, template("Another authority", true), c.made.root, other.Public(), c.rootKey)
				s.Attestation[1] = encoded(issue(t, c.device, between, c.deviceKey.Public(), other).Raw)
			}
		}, Chain, `it names "Another authority"`},
		"an attested key as device": { // it signs what it is told to, as any PIV key does
			func(c *card) {
				c.shown = func(s *Shown) {
					forged := issue(t, c.slot, c.made.slot, other.Public(), c.key)
					s.Attestation = []string{encoded(forged.Raw), encoded(c.made.slot.Raw)}
					s.Signature = answerOf(t, other, c.challenge)
				}
				c.public = lineOf(t, other)
			}, Chain, "nobody whom the fleet knows"},
		"a device certificate that is none":       {func(c *card) { c.device.IsCA = false }, Chain, "not one with which a card attests"},
		"device signed with SHA-1":                {func(c *card) { c.shown = func(s *Shown) { s.Attestation[1] = sha1Signed(t, c) } }, Chain, "nobody whom the fleet knows"},
		"a device certificate for something else": {func(c *card) { c.device.KeyUsage = x509.KeyUsageDigitalSignature }, Chain, "was not made by the card"},
		"an issuer for something else":            {func(c *card) { c.root.KeyUsage = x509.KeyUsageCRLSign }, Chain, "nobody whom the fleet knows"},
		"slot certificate with what nobody understands": {func(c *card) {
			c.slot.ExtraExtensions = append(c.slot.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, Malformed, "attestation[0]: the certificate has extension 1.2.3"},
		"device certificate with what nobody understands": {func(c *card) {
			c.device.ExtraExtensions = append(c.device.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, Malformed, "attestation[1]: the certificate has extension 1.2.3"},
		"another card's slot": {func(c *card) {
			c.shown = func(s *Shown) { s.Attestation[0] = encoded(issue(t, c.slot, c.made.device, c.key.Public(), other).Raw) }
		}, Chain, "was not made by the card"},
		"imported: self-signed certificate": {func(c *card) {
			c.slot = template("anna", false)
			c.slotParent, c.slotSigner = c.slot, c.key
		}, Imported, "an ordinary one"},
		"imported: somebody's certificate with the card's words": {func(c *card) {
			set(c.slot, oidPolicies)
			c.slotSigner = other
		}, Imported, "an ordinary one"},
		"imported: a company's certificate": {func(c *card) {
			c.slot = template("anna@example.com", false, extensionOf(oidPolicies, 2, 2))
			c.slotParent, c.slotSigner = template("Example CA", true), other
		}, Imported, `"anna@example.com", by "Example CA"`},

		"slot certificate ended":        {func(c *card) { c.slot.NotAfter = now.Add(-time.Second) }, Expired, "YubiKey PIV Attestation 9a"},
		"slot certificate to come":      {func(c *card) { c.slot.NotBefore = now.Add(time.Second) }, Expired, "YubiKey PIV Attestation 9a"},
		"device certificate ended":      {func(c *card) { c.device.NotAfter = now.Add(-time.Second) }, Expired, "Test card"},
		"device certificate to come":    {func(c *card) { c.device.NotBefore = now.Add(time.Second) }, Expired, "Test card"},
		"issuer ended":                  {func(c *card) { c.root.NotAfter = now.Add(-time.Second) }, Expired, "Test root"},
		"key swapped after attestation": {func(c *card) { c.public, c.answer = lineOf(t, other), answerOf(t, other, c.challenge) }, KeyDiffers, "another key"},
		"key swapped for one of another kind": {func(c *card) {
			k := newEd25519(t)
			c.public, c.answer = lineOf(t, k), answerOf(t, k, c.challenge)
		}, KeyDiffers, "another key"},
		"attested key of another kind": {func(c *card) {
			k := newECDSA(t, elliptic.P256())
			c.key, c.public, c.answer = newECDSA(t, elliptic.P384()), lineOf(t, k), answerOf(t, k, c.challenge)
		}, KeyDiffers, "another key"},

		"no answer":                     {func(c *card) { c.shown = func(s *Shown) { s.Signature = "" } }, Malformed, "signature: empty"},
		"answer that is none":           {func(c *card) { c.answer = "AAAA" }, Malformed, "signature: "},
		"long answer":                   {func(c *card) { c.answer = strings.Repeat("A", 8<<10) }, Malformed, "signature: longer"},
		"another key's answer":          {func(c *card) { c.answer = answerOf(t, other, c.challenge) }, Signature, "another key answered"},
		"answer to another challenge":   {func(c *card) { c.answer = answerOf(t, c.key, NewChallenge("lab", "anna", [NonceBytes]byte{9}, now)) }, Signature, "not good"},
		"answer in another's namespace": {func(c *card) { c.answer = signatureOf(t, c.key, strings.Repeat("x", 1500), c.challenge.Signed()) }, Signature, "not good"},
		"answer without the newline":    {func(c *card) { c.answer = signatureOf(t, c.key, Namespace, []byte(c.challenge.String())) }, Signature, "not good"},
		"answer for another purpose":    {func(c *card) { c.answer = signatureOf(t, c.key, "git", c.challenge.Signed()) }, Signature, "namespace"},

		"slot's name and more":     {func(c *card) { c.slot.Subject.CommonName += "x" }, Slot, "names no slot"},
		"slot's name in capitals":  {func(c *card) { c.slot.Subject.CommonName = slotName + "9A" }, Slot, "names no slot"},
		"slot's name among others": {func(c *card) { c.slot.Subject.Organization = []string{"x"} }, Slot, "names no slot"},
		"slot f9":                  {func(c *card) { c.slot.Subject.CommonName = slotName + "f9" }, Slot, "names no slot"},
		"slot not listed":          {func(c *card) { c.slot.Subject.CommonName = slotName + "9c" }, Slot, "slot 9c do not count"},
		"slot not in the policy":   {func(c *card) { c.rules.Slots = []string{"82"} }, Slot, "those in 82 do"},
		"a subject of nonsense":    {func(c *card) { c.slot.Subject.CommonName = "\x1b[2J" }, Slot, "names no slot"},

		"touch never":    {func(c *card) { set(c.slot, oidPolicies, 2, 1) }, TouchNever, "without a touch"},
		"touch cached":   {func(c *card) { set(c.slot, oidPolicies, 2, 3) }, TouchCached, "15 seconds"},
		"touch unknown":  {func(c *card) { set(c.slot, oidPolicies, 2, 4) }, Malformed, "touch policy 0x04"},
		"touch zero":     {func(c *card) { set(c.slot, oidPolicies, 2, 0) }, Malformed, "touch policy 0x00"},
		"PIN never":      {func(c *card) { set(c.slot, oidPolicies, 1, 2) }, PINPolicy, "never does not count"},
		"PIN unknown":    {func(c *card) { set(c.slot, oidPolicies, 6, 2) }, PINPolicy, "unknown (0x06)"},
		"PIN zero":       {func(c *card) { set(c.slot, oidPolicies, 0, 2) }, PINPolicy, "unknown (0x00)"},
		"PIN not listed": {func(c *card) { c.rules.PINPolicies = []string{"always"} }, PINPolicy, "once does not count; always does"},
		"PIN never though listed, where verification is asked for": {func(c *card) {
			set(c.slot, oidPolicies, 1, 2)
			c.rules.PINPolicies, c.rules.VerifyRequired = []string{"never", "once"}, true
		}, PINPolicy, "asks for user verification"},

		"old firmware":              {func(c *card) { set(c.slot, oidFirmware, 5, 6, 9) }, Firmware, "firmware 5.6.9"},
		"older firmware":            {func(c *card) { set(c.slot, oidFirmware, 4, 9, 9) }, Firmware, "firmware 4.9.9"},
		"firmware under the policy": {func(c *card) { c.rules.MinFirmware = "5.7.5" }, Firmware, "5.7.5 or later"},
		"device of old firmware": { // whose device key may be known: it says of its keys what it likes
			func(c *card) { set(c.device, oidFirmware, 4, 3, 4) }, Firmware, "the device certificate is of a card with firmware 4.3.4"},
		"serial denied":     {func(c *card) { c.rules.SerialsDeny = []uint32{30041834} }, SerialDenied, "30041834"},
		"serial on both":    {func(c *card) { c.rules.SerialsDeny, c.rules.SerialsAllow = []uint32{30041834}, []uint32{30041834} }, SerialDenied, "30041834"},
		"serial not listed": {func(c *card) { c.rules.SerialsAllow = []uint32{1} }, SerialNotListed, "30041834"},

		"no firmware":                {func(c *card) { set(c.slot, oidFirmware) }, ExtensionMissing, "firmware (extension 1.3.6.1.4.1.41482.3.3)"},
		"no device's firmware":       {func(c *card) { set(c.device, oidFirmware) }, ExtensionMissing, "\"Test card, software\" does not tell the firmware"},
		"device's firmware too long": {func(c *card) { set(c.device, oidFirmware, 5, 7, 4, 0) }, Malformed, "attestation[1]: the certificate's firmware"},
		"slot's firmware too long":   {func(c *card) { set(c.slot, oidFirmware, 5, 7, 4, 0) }, Malformed, "attestation[0]: the certificate's firmware"},
		"no serial":                  {func(c *card) { set(c.slot, oidSerial) }, ExtensionMissing, "serial number"},
		"no policies":                {func(c *card) { set(c.slot, oidPolicies) }, ExtensionMissing, "PIN and touch policies"},
		"no form factor":             {func(c *card) { set(c.slot, oidFormFactor) }, ExtensionMissing, "form factor"},
		"short firmware":             {func(c *card) { set(c.slot, oidFirmware, 5, 7) }, Malformed, "has 2 bytes, not 3"},
		"wrapped firmware":           {func(c *card) { set(c.slot, oidFirmware, 4, 3, 5, 7, 4) }, Malformed, "has 5 bytes, not 3"},
		"long device firmware":       {func(c *card) { set(c.device, oidFirmware, 5, 7, 4, 0) }, Malformed, "has 4 bytes, not 3"},
		"long policies":              {func(c *card) { set(c.slot, oidPolicies, 2, 2, 2) }, Malformed, "has 3 bytes, not 2"},
		"long form factor":           {func(c *card) { set(c.slot, oidFormFactor, 3, 3) }, Malformed, "has 2 bytes, not 1"},
		"serial of no INTEGER":       {func(c *card) { set(c.slot, oidSerial, 4, 4, 1, 2, 3, 4) }, Malformed, "attestation[0]: the certificate's serial number"},
		"serial raw":                 {func(c *card) { set(c.slot, oidSerial, 1, 2, 3, 4) }, Malformed, "serial number"},
		"serial zero":                {func(c *card) { set(c.slot, oidSerial, 2, 1, 0) }, Malformed, "serial number"},
		"serial below zero":          {func(c *card) { set(c.slot, oidSerial, 2, 1, 0xff) }, Malformed, "serial number"},
		"serial too great":           {func(c *card) { set(c.slot, oidSerial, 2, 5, 1, 0, 0, 0, 0) }, Malformed, "serial number"},
		"serial not minimal":         {func(c *card) { set(c.slot, oidSerial, 2, 2, 0, 7) }, Malformed, "serial number"},
		"serial and more":            {func(c *card) { set(c.slot, oidSerial, 2, 1, 7, 0) }, Malformed, "serial number"},

		"rules that cannot be read": {func(c *card) { c.rules.MinFirmware = "5.7" }, BadRules, "min_firmware"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCard(t)
			tt.change(c)
			proof, rejection := c.verify(t)
			wants(t, rejection, tt.reason, tt.text)
			if proof != (Proof{}) {
				t.Errorf("got the proof %+v beside a rejection", proof)
			}
		})
	}
}

// sha1Signed is the card's device certificate, signed by its issuer over SHA-1.
func sha1Signed(t *testing.T, c *card) string {
	t.Helper()
	var tbs, certificate asn1.RawValue
	if _, err := asn1.Unmarshal(c.made.device.RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	oid := asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1} // ecdsa-with-SHA1
	algorithm, err := asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: oid})
	if err != nil {
		t.Fatal(err)
	}
	better, err := asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(strings.Replace(string(tbs.Bytes), string(better), string(algorithm), 1))
	signed, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: body})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha1.Sum(signed)
	signature, err := c.rootKey.Sign(rand.Reader, digest[:], crypto.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	bits, err := asn1.Marshal(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)})
	if err != nil {
		t.Fatal(err)
	}
	certificate = asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(append(signed, algorithm...), bits...)}
	der, err := asn1.Marshal(certificate)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if cert.SignatureAlgorithm != x509.ECDSAWithSHA1 || c.made.root.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
		t.Fatal("the certificate is not one that the issuer signed over SHA-1")
	}
	return encoded(der)
}

// An issuer or a device with a short RSA key signs nothing.
func TestShortRSA(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	c := newCard(t)
	c.deviceKey = short
	_, rejection := c.verify(t)
	wants(t, rejection, Chain, "was not made by the card")

	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c = newCard(t)
	c.deviceKey, c.rootKey = long, long
	if _, rejection = c.verify(t); rejection != nil {
		t.Errorf("RSA of 2048 bits: %v", rejection)
	}
}

// Every bit of what is shown matters: nothing with one changed is accepted as another proof than before.
func TestPIVEveryBit(t *testing.T) {
	c := newCard(t)
	shown := c.make(t)
	if _, rejection := Verify(c.fleet, c.name, c.public, shown, c.rules, now); rejection != nil {
		t.Fatal(rejection)
	}
	for part := range 3 {
		text := &shown.Signature
		if part < 2 {
			text = &shown.Attestation[part]
		}
		was := *text
		raw, err := base64.StdEncoding.DecodeString(was)
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			raw[i] ^= 1 << (i % 8)
			*text = encoded(raw)
			if got, rejection := Verify(c.fleet, c.name, c.public, shown, c.rules, now); rejection == nil {
				t.Errorf("part %d, byte %d changed: accepted as %+v", part, i, got)
			}
			raw[i] ^= 1 << (i % 8)
		}
		*text = was
	}
}

// The fixture's serial number is the INTEGER that cards write.
func TestSerialsAreNumbers(t *testing.T) {
	value, err := asn1.Marshal(big.NewInt(30041834))
	if err != nil {
		t.Fatal(err)
	}
	if got := []byte{2, 4, 1, 0xca, 0x66, 0xea}; string(value) != string(got) {
		t.Errorf("the fixture's serial is %x, want %x", got, value)
	}
}
