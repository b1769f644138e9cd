package card

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"mayfly/bastion/hardkey"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const (
	goodPIN = "824613"
	goodPUK = "46813570"
	reader  = "Reader 0"
)

// issuer signs device certificates of fakes.
type issuer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func certificate(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), now.AddDate(-1, 0, 0), now.AddDate(20, 0, 0)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fakeKey is a key in a fake's slot.
type fakeKey struct {
	private crypto.Signer
	info    Info
	cert    []byte
}

// fake is a card in memory. It is its own reader, and one program at a time has it.
type fake struct {
	t        testing.TB
	firmware Version
	serial   uint32
	pin, puk string
	tries    [2]Tries // PIN, PUK
	stored   []byte
	manage   []byte
	keys     map[Slot]*fakeKey
	issuer   issuer
	device   *ecdsa.PrivateKey
	f9       *x509.Certificate

	verified bool
	open     bool
	touched  bool                    // somebody touches it when it asks
	fail     func(call string) error // before a call has its effect
	states   []Reader
	calls    []string
}

var (
	_ Reach = (*fake)(nil)
	_ Token = (*fake)(nil)
)

func newFake(t testing.TB) *fake {
	t.Helper()
	f := &fake{t: t, firmware: Version{5, 7, 4}, serial: 4711, touched: true}
	f.issuer.key = p256(t)
	f.issuer.cert = certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "TEST issuer"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, f.issuer.key.Public(), f.issuer.key)
	f.device = p256(t)
	f.f9 = certificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "TEST device"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		ExtraExtensions: []pkix.Extension{extension(3, f.version())},
	}, f.issuer.cert, f.device.Public(), f.issuer.key)
	f.factory()
	f.states = []Reader{{Name: reader, Present: true, State: "1"}}
	return f
}

func extension(n int, value []byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n}, Value: value}
}

func (f *fake) version() []byte {
	return []byte{byte(f.firmware.Major), byte(f.firmware.Minor), byte(f.firmware.Patch)}
}

// factory makes it what it was when it was sold.
func (f *fake) factory() {
	f.pin, f.puk, f.stored, f.manage = factoryPIN, factoryPUK, nil, factoryManagement
	f.tries = [2]Tries{{Total: 3, Left: 3}, {Total: 3, Left: 3}}
	f.keys = map[Slot]*fakeKey{}
}

// rules have the fake believed.
func (f *fake) rules() hardkey.Rules {
	return hardkey.Rules{Test: true, TestIssuers: []hardkey.Issuer{{Name: "TEST issuer", Applet: hardkey.KindPIV, Certificate: base64.StdEncoding.EncodeToString(f.issuer.cert.Raw)}}}
}

// halfOpen says what a thief could do with it, or "".
func (f *fake) halfOpen() string {
	switch {
	case len(f.keys) == 0:
		return ""
	case f.pin == factoryPIN:
		return "a key, and the factory's PIN"
	case f.puk == factoryPUK:
		return "a key, and the factory's PUK"
	case bytes.Equal(f.manage, factoryManagement):
		return "a key, and the factory's management key"
	}
	return ""
}

func (f *fake) call(format string, args ...any) error {
	name := fmt.Sprintf(format, args...)
	f.calls = append(f.calls, name)
	if !f.open {
		f.t.Errorf("%s: the card is not open", name)
	}
	if f.fail != nil {
		return f.fail(name)
	}
	return nil
}

func (f *fake) Readers(context.Context) ([]Reader, error) { return f.states, nil }

func (f *fake) Open(_ context.Context, name string) (Token, error) {
	if f.open {
		f.t.Error("opened twice")
	}
	f.open, f.verified = true, false
	if err := f.call("open"); err != nil {
		f.open = false
		return nil, err
	}
	return f, nil
}

func (f *fake) Close() error {
	f.open = false
	return nil
}

func (f *fake) Secrets(context.Context, string) (Secrets, error) {
	if f.open {
		f.t.Error("asked for metadata while it is open")
	}
	s := Secrets{Known: true, PIN: f.tries[0], PUK: f.tries[1], Management: bytes.Equal(f.manage, factoryManagement)}
	s.PIN.Factory, s.PUK.Factory = f.pin == factoryPIN, f.puk == factoryPUK
	return s, nil
}

func (f *fake) Firmware() Version { return f.firmware }

func (f *fake) Serial() (uint32, error) { return f.serial, f.call("serial") }

func (f *fake) Tries() (int, error) { return f.tries[0].Left, f.call("tries") }

// check compares a secret, and counts.
func (f *fake) check(which int, is, given string) error {
	t := &f.tries[which]
	switch {
	case t.Left == 0:
		return fault(BlockedPIN, errors.New("it is blocked"))
	case is != given:
		t.Left--
		return &Error{Fault: WrongPIN, Left: t.Left, Err: errors.New("the card did not take it")}
	}
	t.Left = t.Total
	return nil
}

func (f *fake) VerifyPIN(pin string) error {
	if err := f.call("verify"); err != nil {
		return err
	}
	err := f.check(0, f.pin, pin)
	f.verified = err == nil
	return err
}

func (f *fake) SetPIN(old, pin string) error {
	if err := f.call("set pin"); err != nil {
		return err
	}
	if err := f.check(0, f.pin, old); err != nil {
		return err
	}
	f.pin = pin
	return nil
}

func (f *fake) SetPUK(old, puk string) error {
	if err := f.call("set puk"); err != nil {
		return err
	}
	if err := f.check(1, f.puk, old); err != nil {
		return err
	}
	f.puk = puk
	return nil
}

func (f *fake) authenticate(management []byte) error {
	if !bytes.Equal(management, f.manage) {
		return &Error{Fault: Refused, Status: 0x6982, Err: errors.New("wrong management key")}
	}
	return nil
}

func (f *fake) SetTries(management []byte, pin string, pinTries, pukTries int) error {
	if err := errors.Join(f.call("set tries"), f.authenticate(management)); err != nil {
		return err
	}
	if err := f.check(0, f.pin, pin); err != nil {
		return err
	}
	f.pin, f.puk = factoryPIN, factoryPUK
	f.tries = [2]Tries{{Total: pinTries, Left: pinTries}, {Total: pukTries, Left: pukTries}}
	return nil
}

func (f *fake) StoredManagement(pin string) ([]byte, error) {
	if err := errors.Join(f.call("stored management"), f.check(0, f.pin, pin)); err != nil {
		return nil, err
	}
	return bytes.Clone(f.stored), nil
}

func (f *fake) StoreManagement(management []byte, pin string, kept []byte) error {
	if err := errors.Join(f.call("store management"), f.authenticate(management), f.check(0, f.pin, pin)); err != nil {
		return err
	}
	f.stored = bytes.Clone(kept)
	return nil
}

func (f *fake) SetManagement(old, management []byte) error {
	if err := errors.Join(f.call("set management"), f.authenticate(old)); err != nil {
		return err
	}
	f.manage = bytes.Clone(management)
	return nil
}

func (f *fake) Reset() error {
	if err := f.call("reset"); err != nil {
		return err
	}
	f.factory()
	return nil
}

func none(slot Slot) error { return fault(NoKey, fmt.Errorf("slot %s: the card has none", slot)) }

func (f *fake) Info(slot Slot) (Info, error) {
	if err := f.call("info %s", slot); err != nil {
		return Info{}, err
	}
	k, ok := f.keys[slot]
	if !ok {
		return Info{}, none(slot)
	}
	return k.info, nil
}

func (f *fake) Generate(management []byte, slot Slot, a Algorithm) (crypto.PublicKey, error) {
	if err := errors.Join(f.call("generate %s", slot), f.authenticate(management)); err != nil {
		return nil, err
	}
	f.put(slot, a)
	return f.keys[slot].info.Public, nil
}

// put makes a key as Generate does.
func (f *fake) put(slot Slot, a Algorithm) *fakeKey {
	f.t.Helper()
	var private crypto.Signer
	var err error
	switch a {
	case P256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.keys[slot] = &fakeKey{private: private, info: Info{Algorithm: a, PINPolicy: Once, Touch: Always, Origin: Generated, Public: private.Public()}}
	return f.keys[slot]
}

func (f *fake) Certificate(slot Slot) ([]byte, error) {
	if err := f.call("certificate %s", slot); err != nil {
		return nil, err
	}
	if k, ok := f.keys[slot]; ok && k.cert != nil {
		return k.cert, nil
	}
	return nil, none(slot)
}

func (f *fake) SetCertificate(management []byte, slot Slot, der []byte) error {
	if err := errors.Join(f.call("set certificate %s", slot), f.authenticate(management)); err != nil {
		return err
	}
	f.keys[slot].cert = der
	return nil
}

func (f *fake) Attest(slot Slot) ([]byte, error) {
	if err := f.call("attest %s", slot); err != nil {
		return nil, err
	}
	k, ok := f.keys[slot]
	if !ok || k.info.Origin != Generated {
		return nil, none(slot)
	}
	serial, err := asn1.Marshal(int(f.serial))
	if err != nil {
		return nil, err
	}
	policies := []byte{map[string]byte{Never: 1, Once: 2, Always: 3}[k.info.PINPolicy], map[string]byte{Never: 1, Always: 2, Cached: 3}[k.info.Touch]}
	c := certificate(f.t, &x509.Certificate{
		Subject:         pkix.Name{CommonName: "YubiKey PIV Attestation " + slot.String()},
		ExtraExtensions: []pkix.Extension{extension(3, f.version()), extension(7, serial), extension(8, policies), extension(9, []byte{3})},
	}, f.f9, k.info.Public, f.device)
	return c.Raw, nil
}

func (f *fake) DeviceCertificate() ([]byte, error) { return f.f9.Raw, f.call("device certificate") }

func (f *fake) Sign(slot Slot, _ crypto.PublicKey, data []byte, hash crypto.Hash, pin func() (string, error)) ([]byte, error) {
	if err := f.call("sign %s", slot); err != nil {
		return nil, err
	}
	k, ok := f.keys[slot]
	if !ok {
		return nil, none(slot)
	}
	if !f.verified {
		p, err := pin()
		if err != nil {
			return nil, err
		}
		if err := f.check(0, f.pin, p); err != nil {
			return nil, err
		}
		f.verified = true
	}
	if k.info.Touch != Never && !f.touched {
		return nil, fault(NoTouch, errors.New("the key was not touched in time"))
	}
	return k.private.Sign(rand.Reader, data, hash)
}

// scripted is a person who has made up their mind.
type scripted struct {
	pin, newPIN, puk string
	disagree         error
	said             []string
	asked            []Ask
	agreed           string
}

func (p *scripted) Secret(_ context.Context, ask Ask) (string, error) {
	p.asked = append(p.asked, ask)
	switch {
	case ask.Kind == "PUK":
		return p.puk, nil
	case ask.New:
		return p.newPIN, nil
	}
	return p.pin, nil
}

func (p *scripted) Agree(_ context.Context, text string) error {
	p.agreed = text
	return p.disagree
}

func (p *scripted) Say(text string) { p.said = append(p.said, text) }
