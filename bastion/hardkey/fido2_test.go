package hardkey

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// protect is the extension data that say credProtect n.
func protect(n byte) []byte { return append(bytes.Clone(credProtect3[:13]), n) }

func TestFIDO2(t *testing.T) {
	want := Proof{
		Kind: KindFIDO2, Issuer: "testkey", Test: true, Touch: true, UserVerification: true,
		AAGUID: "6d617966-6c79-2073-6f66-747761726521", Application: "ssh:", Made: now,
	}
	for name, tt := range map[string]struct {
		change func(*authenticator)
		want   func(*Proof)
	}{
		"Ed25519":               {func(*authenticator) {}, func(*Proof) {}},
		"P-256":                 {func(a *authenticator) { a.key = newECDSA(t, elliptic.P256()) }, func(*Proof) {}},
		"application with name": {func(a *authenticator) { a.application = "ssh:lab" }, func(p *Proof) { p.Application = "ssh:lab" }},
		"application of all there may be": {func(a *authenticator) {
			a.application = "ssh:!#$%&()*+-./09:;<=>?@AZ[]^_az{|}~" + strings.Repeat("x", 27)
		},
			func(p *Proof) { p.Application = "ssh:!#$%&()*+-./09:;<=>?@AZ[]^_az{|}~" + strings.Repeat("x", 27) }},
		"verification asked for": {func(a *authenticator) { a.rules.VerifyRequired = true }, func(*Proof) {}},
		"verified but not always": {func(a *authenticator) { a.extensions, a.flags = nil, flagPresent|flagVerified|flagAttested },
			func(p *Proof) { p.UserVerification = false }},
		"verified where a list names it": {func(a *authenticator) { a.extensions = protect(2) }, func(p *Proof) { p.UserVerification = false }},
		"optional verification":          {func(a *authenticator) { a.extensions = protect(1) }, func(p *Proof) { p.UserVerification = false }},
		"not verified when made":         {func(a *authenticator) { a.flags &^= flagVerified }, func(*Proof) {}},
		"more extensions": {func(a *authenticator) {
			a.extensions = append(append([]byte{0xa2}, credProtect3[1:]...), append([]byte{0x6b}, "hmac-secret\xf5"...)...)
		}, func(*Proof) {}},
		"other extensions alone": {func(a *authenticator) { a.extensions = append([]byte{0xa1, 0x6b}, "hmac-secret\xf5"...) },
			func(p *Proof) { p.UserVerification = false }},
		"no credential ID":        {func(a *authenticator) { a.credential = nil }, func(*Proof) {}},
		"long credential":         {func(a *authenticator) { a.credential = make([]byte, maxCredential) }, func(*Proof) {}},
		"a maker's of the policy": {func(a *authenticator) { a.maker, a.rules.Test = true, false }, func(p *Proof) { p.Test = false }},
		"several models": {func(a *authenticator) {
			a.rules.AAGUIDs = append([]string{"00000000-0000-0000-0000-000000000001"}, a.rules.AAGUIDs...)
		}, func(*Proof) {}},
		"certificate's first day": {func(a *authenticator) { a.now = a.leaf.NotBefore }, func(*Proof) {}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthenticator(t)
			tt.change(a)
			want := want
			tt.want(&want)
			got, rejection := a.verify(t)
			if rejection != nil {
				t.Fatalf("got %s: %v", rejection.Reason, rejection)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestFIDO2Refuses(t *testing.T) {
	other := newECDSA(t, elliptic.P256())
	unknown := [aaguidSize]byte{1}
	for name, tt := range map[string]struct {
		change func(*authenticator)
		reason string
		text   string
	}{
		"no attestation":           {func(a *authenticator) { a.shown = func(s *Shown) { s.Attestation = nil } }, Missing, "imported"},
		"two parts":                {func(a *authenticator) { a.shown = func(s *Shown) { s.Attestation = append(s.Attestation, "AAAA") } }, Malformed, "attestation: 2 parts"},
		"a signature":              {func(a *authenticator) { a.shown = func(s *Shown) { s.Signature = "AAAA" } }, Malformed, "signature: FIDO2 evidence has none"},
		"not base64":               {func(a *authenticator) { a.shown = func(s *Shown) { s.Attestation[0] = "%" } }, Malformed, "attestation[0]: not base64"},
		"too long":                 {func(a *authenticator) { a.shown = func(s *Shown) { s.Attestation[0] = strings.Repeat("A", 16<<10) } }, Malformed, "attestation[0]: longer"},
		"not ssh-keygen's":         {func(a *authenticator) { a.shown = func(s *Shown) { s.Attestation[0] = "AAAA" } }, Malformed, "not what ssh-keygen"},
		"cut":                      {func(a *authenticator) { a.shown = func(s *Shown) { s.Attestation[0] = cut(t, s.Attestation[0], -1) } }, Malformed, "not what ssh-keygen"},
		"and more":                 {func(a *authenticator) { a.shown = func(s *Shown) { s.Attestation[0] = cut(t, s.Attestation[0], 1) } }, Malformed, "not what ssh-keygen"},
		"OpenSSH 8.2's form":       {func(a *authenticator) { a.magic = attestOld }, Malformed, "lacks what the authenticator signed"},
		"another form":             {func(a *authenticator) { a.magic = "ssh-sk-attest-v02" }, Malformed, "ssh-sk-attest-v02"},
		"reserved flags":           {func(a *authenticator) { a.reserved = 1 }, Malformed, "flags 1"},
		"reserved text":            {func(a *authenticator) { a.text = "x" }, Malformed, `"x"`},
		"a PIV key's type":         {func(a *authenticator) { a.public = "ssh-ed25519 AAAA" }, KeyType, "sk-ssh-ed25519@openssh.com, sk-ecdsa"},
		"another fleet":            {func(a *authenticator) { a.fleet = "prod" }, ChallengeDiffers, `fleet "lab"`},
		"another person":           {func(a *authenticator) { a.name = "bert" }, ChallengeDiffers, `for "anna"`},
		"self attestation":         {func(a *authenticator) { a.certificate = []byte{} }, Missing, "self attestation"},
		"certificate that is none": {func(a *authenticator) { a.certificate = []byte("x") }, Malformed, "attestation[0]: x509"},
		"certificate with what nobody understands": {func(a *authenticator) {
			a.leaf.ExtraExtensions = append(a.leaf.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, Malformed, "attestation[0]: the certificate has extension 1.2.3"},
		"long certificate": {func(a *authenticator) { a.certificate = make([]byte, maxCertificate+1) }, Malformed, "a certificate longer"},

		"unknown maker":        {func(a *authenticator) { a.applet = "" }, Chain, `it names "Test root, software"`},
		"PIV's issuer":         {func(a *authenticator) { a.applet = KindPIV }, OtherApplet, "does not certify devices of fido2"},
		"test root in earnest": {func(a *authenticator) { a.rules.Test = false }, TestIssuer, "software"},
		"the issuer itself": {func(a *authenticator) {
			a.attestKey = a.rootKey
			a.leaf = template("Test root, software", true)
			a.root = a.leaf
			a.certificate = issue(t, a.leaf, nil, a.rootKey.Public(), a.rootKey).Raw
		}, Chain, `the issuer "testkey" itself`},
		"an authority's certificate": {func(a *authenticator) { a.leaf.IsCA = true }, OtherApplet, "not one with which"},
		"no unit":                    {func(a *authenticator) { a.leaf.Subject.OrganizationalUnit = nil }, OtherApplet, "not one with which"},
		"another unit":               {func(a *authenticator) { a.leaf.Subject.OrganizationalUnit = []string{"TLS"} }, OtherApplet, "not one with which"},
		"two units":                  {func(a *authenticator) { a.leaf.Subject.OrganizationalUnit = []string{attestationUnit, "TLS"} }, OtherApplet, "not one with which"},
		"two units, ours first": {func(a *authenticator) {
			a.leaf.Subject.OrganizationalUnit = []string{attestationUnit, attestationUnit + " and TLS"}
		}, OtherApplet, "not one with which"},
		"P-384 certificate":   {func(a *authenticator) { a.attestKey = newECDSA(t, elliptic.P384()) }, OtherApplet, "not one with which"},
		"Ed25519 certificate": {func(a *authenticator) { a.attestKey, a.signature = newEd25519(t), []byte{1} }, OtherApplet, "not one with which"},
		"certificate ended":   {func(a *authenticator) { a.leaf.NotAfter = now.Add(-time.Second) }, Expired, "Test authenticator"},
		"certificate to come": {func(a *authenticator) { a.leaf.NotBefore = now.Add(time.Second) }, Expired, "Test authenticator"},
		"issuer ended":        {func(a *authenticator) { a.root.NotAfter = now.Add(-time.Second) }, Expired, "Test root"},

		"another challenge signed":  {func(a *authenticator) { a.signed = []byte("x\n") }, Signature, "does not match"},
		"challenge without newline": {func(a *authenticator) { a.signed = []byte(a.challenge.String()) }, Signature, "does not match"},
		"challenge swapped":         {func(a *authenticator) { a.signed = a.challenge.Signed(); a.challenge.Nonce = strings.Repeat("0", 32) }, Signature, "does not match"},
		"no signature":              {func(a *authenticator) { a.signature = []byte{} }, Signature, "does not match"},
		"signature of another": {func(a *authenticator) {
			a.certificate = issue(t, a.leaf, a.root, other.Public(), a.rootKey).Raw
			a.root.PublicKey = nil
		}, Signature, "does not match"},
		"no model in the certificate": {func(a *authenticator) { a.leaf.ExtraExtensions = nil }, ExtensionMissing, "1.3.6.1.4.1.45724.1.1.4"},
		"model raw in the certificate": {func(a *authenticator) {
			a.leaf.ExtraExtensions = []pkix.Extension{{Id: oidAAGUID, Value: testModel[:]}}
		}, Malformed, "1.3.6.1.4.1.45724.1.1.4"},
		"short model":    {func(a *authenticator) { a.leaf.ExtraExtensions[0].Value = append([]byte{4, 15}, testModel[:15]...) }, Malformed, "16 bytes"},
		"model and more": {func(a *authenticator) { a.leaf.ExtraExtensions[0].Value = append(a.leaf.ExtraExtensions[0].Value, 0) }, Malformed, "16 bytes"},
		"another model's certificate": {func(a *authenticator) {
			a.model = unknown
			a.rules.AAGUIDs = append(a.rules.AAGUIDs, formatAAGUID(unknown[:]))
		}, AAGUID, "its certificate is for 6d617966"},
		"model not listed": {func(a *authenticator) { a.rules.AAGUIDs = []string{"00000000-0000-0000-0000-000000000001"} }, AAGUID, "not on the fleet's list"},
		"no list":          {func(a *authenticator) { a.rules.AAGUIDs = nil }, AAGUID, "not on the fleet's list"},

		"another key":                {func(a *authenticator) { a.public = publicOf(t, a, newAuthenticator(t).key) }, KeyDiffers, "another key"},
		"another kind of key":        {func(a *authenticator) { a.public = publicOf(t, a, other) }, KeyDiffers, "another key"},
		"a web page's key":           {func(a *authenticator) { a.application = "https://example.com" }, RelyingParty, "must begin with"},
		"application in capitals":    {func(a *authenticator) { a.application = "SSH:" }, RelyingParty, "must begin with"},
		"application without colon":  {func(a *authenticator) { a.application = "sshx" }, RelyingParty, "must begin with"},
		"application with space":     {func(a *authenticator) { a.application = "ssh: x" }, RelyingParty, "printable ASCII"},
		"application with comma":     {func(a *authenticator) { a.application = "ssh:,touch" }, RelyingParty, "printable ASCII"},
		"application with quotes":    {func(a *authenticator) { a.application = `ssh:"` }, RelyingParty, "printable ASCII"},
		"application with quote":     {func(a *authenticator) { a.application = "ssh:'" }, RelyingParty, "printable ASCII"},
		"application with backquote": {func(a *authenticator) { a.application = "ssh:`" }, RelyingParty, "printable ASCII"},
		"application with escape":    {func(a *authenticator) { a.application = "ssh:\x1b[2J" }, RelyingParty, `\x1b`},
		"application with newline":   {func(a *authenticator) { a.application = "ssh:x\n" }, RelyingParty, "printable ASCII"},
		"application with backslash": {func(a *authenticator) { a.application = `ssh:\x1b` }, RelyingParty, "printable ASCII"},
		"application with tab":       {func(a *authenticator) { a.application = "ssh:\tx" }, RelyingParty, "printable ASCII"},
		"application with DEL":       {func(a *authenticator) { a.application = "ssh:\x7f" }, RelyingParty, "printable ASCII"},
		"application from right":     {func(a *authenticator) { a.application = "ssh:\u202egnp" }, RelyingParty, "printable ASCII"},
		"application of no text":     {func(a *authenticator) { a.application = "ssh:\xff\xfe" }, RelyingParty, "printable ASCII"},
		"long application":           {func(a *authenticator) { a.application = "ssh:" + strings.Repeat("x", 61) }, RelyingParty, "at most 60"},
		"no application":             {func(a *authenticator) { a.application, a.rpID = "", "ssh:" }, RelyingParty, "must begin with"},
		"made for another":           {func(a *authenticator) { a.rpID = "https://example.com" }, RelyingParty, `something else than "ssh:"`},
		"made for another of ours":   {func(a *authenticator) { a.application, a.rpID = "ssh:lab", "ssh:" }, RelyingParty, `something else than "ssh:lab"`},
		"not touched":                {func(a *authenticator) { a.flags &^= flagPresent }, Flags, "without a touch"},
		"synchronised":               {func(a *authenticator) { a.flags |= flagBackupEligible }, Synced, "copied off"},
		"backed up":                  {func(a *authenticator) { a.flags |= flagBackedUp }, Synced, "copied off"},
		"reserved flag 1":            {func(a *authenticator) { a.flags |= 0x02 }, Flags, "nobody knows"},
		"reserved flag 5":            {func(a *authenticator) { a.flags |= 0x20 }, Flags, "nobody knows"},
		"no credProtect where asked": {func(a *authenticator) {
			a.rules.VerifyRequired, a.extensions, a.flags = true, nil, a.flags&^flagExtensions
		}, CredProtect, "credProtect 0"},
		"weaker credProtect where asked": {func(a *authenticator) { a.rules.VerifyRequired, a.extensions = true, protect(2) }, CredProtect, "credProtect 2"},

		"no key in the data":        {func(a *authenticator) { a.flags &^= flagAttested }, Malformed, "holds no new key"},
		"short data":                {func(a *authenticator) { a.wrapped = append([]byte{0x58, headSize - 1}, make([]byte, headSize-1)...) }, Malformed, "fewer than"},
		"data not wrapped":          {func(a *authenticator) { a.wrapped = a.authData(t) }, Malformed, "not one byte string"},
		"data wrapped and more":     {func(a *authenticator) { a.wrapped = append(wrapped(t, a), 0) }, Malformed, "not one byte string"},
		"data in a text":            {func(a *authenticator) { a.wrapped = []byte{0x61, 'x'} }, Malformed, "not one byte string"},
		"data of indefinite length": {func(a *authenticator) { a.wrapped = append(append([]byte{0x5f}, wrapped(t, a)...), 0xff) }, Malformed, "not one byte string"},
		"data of longer length": {func(a *authenticator) {
			data := a.authData(t)
			a.wrapped = append([]byte{0x5a, 0, 0, 0, byte(len(data))}, data...)
		}, Malformed, "not one byte string"},
		"tagged data":                {func(a *authenticator) { a.wrapped = append([]byte{0xd8, 24}, wrapped(t, a)...) }, Malformed, "not one byte string"},
		"credential too long":        {func(a *authenticator) { a.credential = make([]byte, maxCredential+1) }, Malformed, "credential ID of 1024"},
		"credential over the end":    {func(a *authenticator) { a.cose, a.extensions, a.wrapped = []byte{}, []byte{}, overlong(t, a) }, Malformed, "credential ID of"},
		"bytes after the end":        {func(a *authenticator) { a.trailing = []byte{0} }, Malformed, "1 bytes after"},
		"extensions without flag":    {func(a *authenticator) { a.flags &^= flagExtensions }, Malformed, "bytes after"},
		"flag without extensions":    {func(a *authenticator) { a.extensions = nil }, Malformed, "the extensions"},
		"extensions that are no map": {func(a *authenticator) { a.extensions = []byte{0x80} }, Malformed, "the extensions"},
		"credProtect twice": {func(a *authenticator) {
			a.extensions = append(append([]byte{0xa2}, credProtect3[1:]...), protect(1)[1:]...)
		}, Malformed, "the extensions"},
		"credProtect zero":    {func(a *authenticator) { a.extensions = protect(0) }, Malformed, "credProtect 0"},
		"credProtect four":    {func(a *authenticator) { a.extensions = protect(4) }, Malformed, "credProtect 4"},
		"credProtect of text": {func(a *authenticator) { a.extensions = append(bytes.Clone(credProtect3[:13]), 0x61, 'x') }, Malformed, "credProtect"},
		"credProtect longer":  {func(a *authenticator) { a.extensions = append(bytes.Clone(credProtect3[:13]), 0x18, 3) }, Malformed, "credProtect"},
		"an extension with many in a list": {func(a *authenticator) {
			a.extensions = slices.Concat([]byte{0xa2, 0x61, 'z'}, []byte{0x91}, make([]byte, 17), credProtect3[1:])
		}, Malformed, "the extension"},
		"an extension with many pairs": {func(a *authenticator) {
			a.extensions = slices.Concat([]byte{0xa2, 0x61, 'z'}, []byte{0xb1}, pairs(17), credProtect3[1:])
		}, Malformed, "the extension"},
		"a deep extension": {func(a *authenticator) {
			a.extensions = slices.Concat([]byte{0xa2, 0x61, 'z'}, []byte{0x81, 0x81, 0x81, 0x81, 0x81, 0x00}, credProtect3[1:])
		}, Malformed, "the extension"},
		"duplicate within an extension": {func(a *authenticator) {
			a.extensions = slices.Concat([]byte{0xa2, 0x61, 'z', 0xa2, 1, 1, 1, 2}, credProtect3[1:])
		}, Malformed, `the extension "z"`},
		"longer number within an extension": {func(a *authenticator) {
			a.extensions = slices.Concat([]byte{0xa2, 0x61, 'z', 0x18, 1}, credProtect3[1:])
		}, Malformed, `the extension "z"`},
		"indefinite length within an extension": {func(a *authenticator) {
			a.extensions = slices.Concat([]byte{0xa2, 0x61, 'z', 0x9f, 0xff}, credProtect3[1:])
		}, Malformed, "the extensions"},
		"tag within an extension": {func(a *authenticator) {
			a.extensions = slices.Concat([]byte{0xa2, 0x61, 'z', 0xc1, 1}, credProtect3[1:])
		}, Malformed, "the extensions"},
		"no key": {func(a *authenticator) { a.cose = []byte{} }, Malformed, "the key"},
		"key with more": {func(a *authenticator) {
			cose := a.coseKey(t)
			a.cose = append(append([]byte{cose[0] + 1}, cose[1:]...), 0x23, 1)
		}, Malformed, "the key"},
		"Ed25519 with a second coordinate": {func(a *authenticator) {
			cose := a.coseKey(t)
			a.cose = slices.Concat([]byte{cose[0] + 1}, cose[1:], []byte{0x22, 0x58, 32}, make([]byte, 32))
		}, Malformed, "neither Ed25519 nor P-256"},
		"key of Ed448":        {func(a *authenticator) { a.cose = bytes.Replace(a.coseKey(t), []byte{0x20, 6}, []byte{0x20, 7}, 1) }, Malformed, "neither Ed25519 nor P-256"},
		"key of no algorithm": {func(a *authenticator) { a.cose = bytes.Replace(a.coseKey(t), []byte{3, 0x27}, []byte{3, 0x26}, 1) }, Malformed, "neither Ed25519 nor P-256"},
		"key out of order": {func(a *authenticator) {
			cose := a.coseKey(t) // 1, 3, -1, -2
			a.cose = append(append(append([]byte{cose[0]}, cose[3:5]...), cose[1:3]...), cose[5:]...)
		}, Malformed, "canonical"},
		"short key": {func(a *authenticator) {
			cose := a.coseKey(t)
			cose = bytes.Replace(cose, []byte{0x21, 0x58, 32}, []byte{0x21, 0x58, 31}, 1)
			a.cose = cose[:len(cose)-1]
		}, Malformed, "neither Ed25519 nor P-256"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthenticator(t)
			tt.change(a)
			proof, rejection := a.verify(t)
			wants(t, rejection, tt.reason, tt.text)
			if proof != (Proof{}) {
				t.Errorf("got the proof %+v beside a rejection", proof)
			}
		})
	}
}

func wrapped(t *testing.T, a *authenticator) []byte {
	t.Helper()
	data, err := canonical.Marshal(a.authData(t))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// overlong is authenticator data whose credential ID claims a byte more than there is.
func overlong(t *testing.T, a *authenticator) []byte {
	t.Helper()
	data := a.authData(t)
	data[headSize-1] = byte(len(data) - headSize + 1)
	out, err := canonical.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func publicOf(t *testing.T, a *authenticator, key crypto.Signer) string {
	t.Helper()
	b := *a
	b.key = key
	return line(b.sshKey(t))
}

// cut takes bytes off base64, or adds zeros.
func cut(t *testing.T, text string, n int) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if n < 0 {
		return encoded(raw[:len(raw)+n])
	}
	return encoded(append(raw, make([]byte, n)...))
}

// Every bit of what is shown matters.
func TestFIDO2EveryBit(t *testing.T) {
	a := newAuthenticator(t)
	shown := a.make(t)
	if _, rejection := Verify(a.fleet, a.name, a.public, shown, a.rules, now); rejection != nil {
		t.Fatal(rejection)
	}
	raw, err := base64.StdEncoding.DecodeString(shown.Attestation[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] ^= 1 << (i % 8)
		shown.Attestation[0] = encoded(raw)
		if got, rejection := Verify(a.fleet, a.name, a.public, shown, a.rules, now); rejection == nil {
			t.Errorf("byte %d changed: accepted as %+v", i, got)
		}
		raw[i] ^= 1 << (i % 8)
	}
	public, err := base64.StdEncoding.DecodeString(strings.Fields(a.public)[1])
	if err != nil {
		t.Fatal(err)
	}
	shown.Attestation[0] = encoded(raw)
	for i := range public {
		public[i] ^= 1 << (i % 8)
		if got, rejection := Verify(a.fleet, a.name, ssh.KeyAlgoSKED25519+" "+encoded(public), shown, a.rules, now); rejection == nil {
			t.Errorf("key's byte %d changed: accepted as %+v", i, got)
		}
		public[i] ^= 1 << (i % 8)
	}
}

// pairs of a CBOR map, numbered.
func pairs(n byte) (list []byte) {
	for i := range n {
		list = append(list, i, 0)
	}
	return list
}

// The model is what the authenticator says, for FIDO2 evidence that can be read and for no other.
func TestModel(t *testing.T) {
	var shown Shown
	a := newAuthenticator(t)
	a.shown = func(s *Shown) { shown = *s }
	if _, rejection := a.verify(t); rejection != nil {
		t.Fatal(rejection)
	}
	if got := shown.Model(); got != formatAAGUID(testModel[:]) {
		t.Errorf("got %q", got)
	}
	for name, change := range map[string]func(*Shown){
		"another kind":      func(s *Shown) { s.Kind = KindPIV },
		"no kind":           func(s *Shown) { s.Kind = "" },
		"no attestation":    func(s *Shown) { s.Attestation = nil },
		"nonsense":          func(s *Shown) { s.Attestation = []string{"AAAA"} },
		"a signature by it": func(s *Shown) { s.Signature = "AAAA" },
	} {
		s := shown
		change(&s)
		if got := s.Model(); got != "" {
			t.Errorf("%s: got %q, want none", name, got)
		}
	}
}
