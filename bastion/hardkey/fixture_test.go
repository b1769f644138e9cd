package hardkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
)

func challengeFor(fleet, name string) Challenge {
	return NewChallenge(fleet, name, [NonceBytes]byte{1, 2, 3}, now)
}

// line is a public key as a policy has it.
func line(k ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k)), "\n")
}

func lineOf(t testing.TB, key crypto.Signer) string {
	t.Helper()
	k, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return line(k)
}

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fixed is a key that is the same in every process, as fuzzing needs it: its workers are processes.
func fixed(t testing.TB, name string) *ecdsa.PrivateKey {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// answerOf signs a challenge as a PIV key's holder does.
func answerOf(t testing.TB, key any, c Challenge) string {
	t.Helper()
	return signatureOf(t, key, Namespace, c.Signed())
}

func signatureOf(t testing.TB, key any, namespace string, message []byte) string {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	armored, err := sshsig.Sign(signer, namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sshsig.Parse(armored)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig.Blob())
}

func extensionOf(oid asn1.ObjectIdentifier, value ...byte) pkix.Extension {
	return pkix.Extension{Id: oid, Value: value}
}

func template(cn string, ca bool, extensions ...pkix.Extension) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: cn},
		NotBefore: now.AddDate(-5, 0, 0), NotAfter: now.AddDate(25, 0, 0),
		BasicConstraintsValid: ca, IsCA: ca, ExtraExtensions: extensions,
	}
}

// issue makes a certificate; parent nil: self-signed.
func issue(t testing.TB, tmpl, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = tmpl
	}
	named := *parent
	named.PublicKey = nil                                             // who signs may be another than the one named
	der, err := x509.CreateCertificate(nil, tmpl, &named, public, by) // without random numbers, a signature is always the same
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func encoded(der []byte) string { return base64.StdEncoding.EncodeToString(der) }

// card is a PIV key with all that is shown for it. A test changes one thing before or after it is made.
type card struct {
	fleet, name string
	challenge   Challenge
	key         crypto.Signer
	public      string // "": key's
	deviceKey   crypto.Signer
	rootKey     crypto.Signer
	slot        *x509.Certificate // templates
	device      *x509.Certificate
	root        *x509.Certificate
	slotSigner  crypto.Signer     // nil: deviceKey
	slotParent  *x509.Certificate // nil: the device certificate
	answer      string            // "": key's
	rules       Rules
	applet      string // of the test issuer
	now         time.Time
	shown       func(*Shown) // changes what is shown at last

	made struct{ slot, device, root *x509.Certificate }
}

func newCard(t testing.TB) *card {
	c := &card{fleet: "lab", name: "anna", challenge: challengeFor("lab", "anna"), applet: KindPIV, now: now}
	c.key, c.deviceKey, c.rootKey = newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	c.root = template("Test root, software", true)
	c.device = template("Test card, software", true, extensionOf(oidFirmware, 5, 7, 4))
	c.slot = template("YubiKey PIV Attestation 9a", false,
		extensionOf(oidFirmware, 5, 7, 4), extensionOf(oidSerial, 2, 4, 1, 0xca, 0x66, 0xea), extensionOf(oidPolicies, 2, 2), extensionOf(oidFormFactor, 3))
	c.rules = Rules{Test: true}
	return c
}

// set replaces an extension of a template, or removes it when there is no value.
func set(tmpl *x509.Certificate, oid asn1.ObjectIdentifier, value ...byte) {
	var list []pkix.Extension
	for _, e := range tmpl.ExtraExtensions {
		if !e.Id.Equal(oid) {
			list = append(list, e)
		}
	}
	if value != nil {
		list = append(list, extensionOf(oid, value...))
	}
	tmpl.ExtraExtensions = list
}

func (c *card) make(t testing.TB) Shown {
	t.Helper()
	c.made.root = issue(t, c.root, nil, c.rootKey.Public(), c.rootKey)
	c.made.device = issue(t, c.device, c.made.root, c.deviceKey.Public(), c.rootKey)
	if c.slotParent == nil {
		c.slotParent = c.made.device
	}
	if c.slotSigner == nil {
		c.slotSigner = c.deviceKey
	}
	c.made.slot = issue(t, c.slot, c.slotParent, c.key.Public(), c.slotSigner)
	if c.answer == "" {
		c.answer = answerOf(t, c.key, c.challenge)
	}
	if c.public == "" {
		c.public = lineOf(t, c.key)
	}
	if c.applet == KindPIV || c.applet == KindFIDO2 {
		c.rules.TestIssuers = append(c.rules.TestIssuers, Issuer{Name: "testcard", Applet: c.applet, Certificate: encoded(c.made.root.Raw)})
	}
	shown := Shown{Kind: KindPIV, Challenge: c.challenge.String(), Attestation: []string{encoded(c.made.slot.Raw), encoded(c.made.device.Raw)}, Signature: c.answer}
	if c.shown != nil {
		c.shown(&shown)
	}
	return shown
}

func (c *card) verify(t testing.TB) (Proof, *Rejection) {
	t.Helper()
	shown := c.make(t)
	return Verify(c.fleet, c.name, c.public, shown, c.rules, c.now)
}

// testModel of authenticators here.
var testModel = [aaguidSize]byte{0x6d, 0x61, 0x79, 0x66, 0x6c, 0x79, 0x20, 0x73, 0x6f, 0x66, 0x74, 0x77, 0x61, 0x72, 0x65, 0x21}

// authenticator is a FIDO2 key with all that is shown for it.
type authenticator struct {
	fleet, name string
	challenge   Challenge
	key         crypto.Signer
	application string
	rpID        string // "": application
	flags       byte
	model       [aaguidSize]byte
	credential  []byte
	cose        []byte // nil: key's
	extensions  []byte
	trailing    []byte
	wrapped     []byte // nil: the authenticator data in CBOR's byte string
	public      string // "": key's
	attestKey   crypto.Signer
	rootKey     crypto.Signer
	leaf        *x509.Certificate // templates
	root        *x509.Certificate
	certificate []byte // nil: leaf's
	signed      []byte // nil: the challenge
	signature   []byte // nil: attestKey's
	magic       string
	reserved    uint32
	text        string
	rules       Rules
	maker       bool // the issuer is a maker of the policy, not a test's
	applet      string
	now         time.Time
	shown       func(*Shown)
}

var credProtect3 = append([]byte{0xa1, 0x6b}, append([]byte("credProtect"), 3)...)

func newAuthenticator(t testing.TB) *authenticator {
	a := &authenticator{fleet: "lab", name: "anna", challenge: challengeFor("lab", "anna"), application: "ssh:", magic: attestMagic, applet: KindFIDO2, now: now}
	a.key, a.attestKey, a.rootKey = newEd25519(t), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	a.flags, a.model, a.credential, a.extensions = flagPresent|flagVerified|flagAttested|flagExtensions, testModel, []byte("handle"), credProtect3
	a.root = template("Test root, software", true)
	a.leaf = template("Test authenticator, software", false, pkix.Extension{Id: oidAAGUID, Value: append([]byte{4, aaguidSize}, testModel[:]...)})
	a.leaf.Subject.OrganizationalUnit = []string{attestationUnit}
	a.leaf.BasicConstraintsValid = true
	a.rules = Rules{Test: true, AAGUIDs: []string{formatAAGUID(testModel[:])}}
	return a
}

func (a *authenticator) sshKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	var blob []byte
	switch public := a.key.Public().(type) {
	case ed25519.PublicKey:
		blob = ssh.Marshal(skEd25519{ssh.KeyAlgoSKED25519, public, a.application})
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		blob = ssh.Marshal(skECDSA{ssh.KeyAlgoSKECDSA256, "nistp256", point, a.application})
	}
	k, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authenticator) coseKey(t testing.TB) []byte {
	t.Helper()
	var k coseKey
	switch public := a.key.Public().(type) {
	case ed25519.PublicKey:
		k = coseKey{Type: coseOKP, Algorithm: coseEdDSA, Curve: coseEd25519, X: public}
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k = coseKey{Type: coseEC2, Algorithm: coseES256, Curve: coseP256, X: point[1:33], Y: point[33:]}
	}
	data, err := canonical.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (a *authenticator) authData(t testing.TB) []byte {
	if a.rpID == "" {
		a.rpID = a.application
	}
	if a.cose == nil {
		a.cose = a.coseKey(t)
	}
	hash := sha256.Sum256([]byte(a.rpID))
	data := append(hash[:], a.flags, 0, 0, 0, 1)
	data = append(data, a.model[:]...)
	data = binary.BigEndian.AppendUint16(data, uint16(len(a.credential)))
	return bytes.Join([][]byte{data, a.credential, a.cose, a.extensions, a.trailing}, nil)
}

func (a *authenticator) make(t testing.TB) Shown {
	t.Helper()
	root := issue(t, a.root, nil, a.rootKey.Public(), a.rootKey)
	leaf := issue(t, a.leaf, root, a.attestKey.Public(), a.rootKey)
	data := a.authData(t)
	if a.signed == nil {
		a.signed = a.challenge.Signed()
	}
	if a.signature == nil {
		challenge := sha256.Sum256(a.signed)
		digest := sha256.Sum256(append(bytes.Clone(data), challenge[:]...))
		var err error
		if a.signature, err = a.attestKey.Sign(nil, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	if a.wrapped == nil {
		var err error
		if a.wrapped, err = canonical.Marshal(data); err != nil {
			t.Fatal(err)
		}
	}
	if a.certificate == nil {
		a.certificate = leaf.Raw
	}
	if a.public == "" {
		a.public = line(a.sshKey(t))
	}
	is := Issuer{Name: "testkey", Applet: a.applet, Certificate: encoded(root.Raw)}
	switch {
	case a.maker:
		a.rules.FIDO2Issuers = append(a.rules.FIDO2Issuers, is)
	case a.applet != "":
		a.rules.TestIssuers = append(a.rules.TestIssuers, is)
	}
	blob := ssh.Marshal(skAttest{a.magic, a.certificate, a.signature, a.wrapped, a.reserved, a.text})
	shown := Shown{Kind: KindFIDO2, Challenge: a.challenge.String(), Attestation: []string{encoded(blob)}}
	if a.shown != nil {
		a.shown(&shown)
	}
	return shown
}

func (a *authenticator) verify(t testing.TB) (Proof, *Rejection) {
	t.Helper()
	shown := a.make(t)
	return Verify(a.fleet, a.name, a.public, shown, a.rules, a.now)
}

// wants fails where a rejection is not as a test wants it: with its reason, words of its sentence, and a mend.
func wants(t *testing.T, got *Rejection, reason, text string) {
	t.Helper()
	switch {
	case got == nil:
		t.Errorf("got no rejection, want %s", reason)
	case got.Reason != reason || !strings.Contains(got.Text, text):
		t.Errorf("got %s: %s\nwant %s with %q", got.Reason, got.Text, reason, text)
	case got.Mend == "" || got.Text == "":
		t.Errorf("%s: no sentence or no mend: %+v", reason, got)
	}
}
