//go:build pcsc

package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/go-piv/piv-go/v2/piv"

	"mayfly/bastion/card"
)

// token is a card that piv-go has open.
type token struct {
	yk     *piv.YubiKey
	ctx    context.Context // of the use that it was opened for: each thing that the card is asked ends with it
	reader string
	left   error // why a call was left behind: nothing more can be asked
	closed sync.Once
	err    error
}

var _ card.Token = (*token)(nil)

// Open has the card for itself at once, or fails.
func (pcsc) Open(ctx context.Context, reader string) (card.Token, error) {
	opening := use{doing: "opening the card in " + reader, limit: limitAsk, grace: limitGrace}
	yk, _, err := bounded(ctx, opening, func() (*piv.YubiKey, error) { return piv.Open(reader) }, func(yk *piv.YubiKey) { yk.Close() })
	if err != nil {
		if s := card.StatusOf(err); card.FaultOf(err) == card.NoKey || s == 0x6a81 || s == 0x6d00 {
			return nil, card.NewError(card.NoPIV, "the card in %s has no PIV, or it is switched off", reader)
		}
		return nil, err
	}
	return &token{yk: yk, ctx: ctx, reader: reader}, nil
}

// Close gives the card back, also where the person ended the use: a card whose program dies is reset, which takes its time. What a
// call was left behind on is closed by the end of the process.
func (t *token) Close() error {
	t.closed.Do(func() {
		if t.err = t.left; t.left == nil {
			_, _, t.err = bounded(context.WithoutCancel(t.ctx), use{doing: "closing the card in " + t.reader, limit: limitClose}, func() (struct{}, error) { return struct{}{}, t.yk.Close() }, nil)
		}
	})
	return t.err
}

// asked is what a card answers.
func asked[T any](t *token, u use, do func() (T, error)) (value T, err error) {
	if t.left != nil {
		return value, t.left
	}
	value, left, err := bounded(t.ctx, u, do, nil)
	if left {
		t.left = err
	}
	return value, err
}

// get asks the card for something.
func get[T any](t *token, doing string, do func() (T, error)) (T, error) {
	return asked(t, use{doing: doing, limit: limitAsk, grace: limitGrace}, do)
}

// ask has the card do something.
func (t *token) ask(doing string, do func() error) error {
	_, err := get(t, doing, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// status is the status word of a card's answer, or 0.
func status(err error) uint16 {
	var s interface{ Status() uint16 }
	if errors.As(err, &s) {
		return s.Status()
	}
	return 0
}

// pcscTexts are piv-go's texts of PC/SC's codes, which it gives no other access to; TestTextsOfPIVGo holds them to the library.
var pcscTexts = map[string]card.Fault{
	"the Smart card resource manager is not running":                                            card.NoService,
	"the Smart card resource manager has shut down":                                             card.NoService,
	"access was denied because of a security violation":                                         card.Denied,
	"the smart card cannot be accessed because of other connections outstanding":                card.Busy,
	"the operation requires a Smart Card, but no Smart Card is currently in the device":         card.Removed,
	"the specified reader name is not recognized":                                               card.Removed,
	"an attempt was made to end a non-existent transaction":                                     card.Removed, // a command that the card was pulled from
	"the specified reader is not currently available for use":                                   card.Removed,
	"power has been removed from the smart card, so that further communication is not possible": card.Removed,
	"the smart card has been reset, so any shared state information is invalid":                 card.Removed,
	"the smart card has been removed, so further communication is not possible":                 card.Removed,
	"scard response too short: 0":                                                               card.Removed, // from under a command
	"the supplied handle was invalid":                                                           card.Removed,
	"the smart card is not responding to a reset":                                               card.Garbage,
	"the reader or smart card is not ready to accept commands":                                  card.Garbage,
	"a communications error with the smart card has been detected. More..":                      card.Garbage,
}

const settingPUK = "setting the PUK"

// secretOf names the secret that a thing takes.
func secretOf(doing string) string {
	if doing == settingPUK {
		return "PUK"
	}
	return "PIN"
}

// faulty says what an error of piv-go means.
func faulty(doing string, err error) error {
	if err == nil || card.FaultOf(err) != "" {
		return err
	}
	var auth piv.AuthErr
	s := status(err)
	switch {
	case s == 0x6983:
		return card.NewError(card.BlockedPIN, "%s: it is blocked", doing)
	case s == 0x63c0:
		return card.NewError(card.BlockedPIN, "%s: the card did not take the %s, and that was the last try: it is blocked", doing, secretOf(doing))
	case errors.As(err, &auth):
		e := card.NewError(card.WrongPIN, "%s: the card did not take the %s", doing, secretOf(doing))
		e.Left = auth.Retries
		return e
	case errors.Is(err, piv.ErrNotFound):
		return card.NewError(card.NoKey, "%s: the card has none", doing)
	case s != 0:
		return &card.Error{Fault: card.Refused, Status: s, Err: fmt.Errorf("%s: the card refused (%04x)", doing, s)}
	}
	text := err.Error()
	for t, f := range pcscTexts {
		if strings.HasSuffix(text, t) {
			return card.NewError(f, "%s: %s", doing, card.Says(f))
		}
	}
	return card.NewError(card.Garbage, "%s: %w", doing, err)
}

func (t *token) Firmware() card.Version {
	v := t.yk.Version()
	return card.Version{Major: v.Major, Minor: v.Minor, Patch: v.Patch}
}

func (t *token) Serial() (uint32, error) { return get(t, "reading the serial number", t.yk.Serial) }

// Tries is also asked while a signature waits for its PIN.
func (t *token) Tries() (int, error) { return get(t, "reading the PIN's tries", t.yk.Retries) }

func (t *token) VerifyPIN(pin string) error {
	return t.ask("checking the PIN", func() error { return t.yk.VerifyPIN(pin) })
}

func (t *token) SetPIN(old, pin string) error {
	return t.ask("setting the PIN", func() error { return t.yk.SetPIN(old, pin) })
}

func (t *token) SetPUK(old, puk string) error {
	return t.ask(settingPUK, func() error { return t.yk.SetPUK(old, puk) })
}

func (t *token) SetTries(management []byte, pin string, pinTries, pukTries int) error {
	management = slices.Clone(management)
	return t.ask("setting the tries", func() error { return t.yk.SetRetries(management, pin, pinTries, pukTries) })
}

func (t *token) StoredManagement(pin string) ([]byte, error) {
	return get(t, "reading the management key", func() ([]byte, error) {
		m, err := t.yk.Metadata(pin)
		if err != nil || m.ManagementKey == nil {
			return nil, err
		}
		return *m.ManagementKey, nil
	})
}

// StoreManagement keeps what else is stored beside it.
func (t *token) StoreManagement(management []byte, pin string, kept []byte) error {
	management, kept = slices.Clone(management), slices.Clone(kept)
	return t.ask("storing the management key", func() error {
		m, err := t.yk.Metadata(pin)
		if err != nil {
			return err
		}
		m.ManagementKey = &kept
		return t.yk.SetMetadata(management, m)
	})
}

func (t *token) SetManagement(old, management []byte) error {
	old, management = slices.Clone(old), slices.Clone(management)
	return t.ask("setting the management key", func() error { return t.yk.SetManagementKey(old, management) })
}

func (t *token) Reset() error {
	_, err := asked(t, use{doing: "resetting PIV", limit: limitTouch, grace: limitGrace}, func() (struct{}, error) { return struct{}{}, t.yk.Reset() })
	return err
}

// slotOf names a slot as the library does.
func slotOf(slot card.Slot) (piv.Slot, error) {
	switch slot {
	case card.SlotAuthentication:
		return piv.SlotAuthentication, nil
	case card.SlotSignature:
		return piv.SlotSignature, nil
	case card.SlotKeyManagement:
		return piv.SlotKeyManagement, nil
	case card.SlotCard:
		return piv.SlotCardAuthentication, nil
	}
	if s, ok := piv.RetiredKeyManagementSlot(uint32(slot)); ok {
		return s, nil
	}
	return piv.Slot{}, fmt.Errorf("there is no slot %s", slot)
}

// at does one thing with a slot.
func at[T any](t *token, slot card.Slot, doing string, do func(piv.Slot) (T, error)) (value T, err error) {
	s, err := slotOf(slot)
	if err != nil {
		return value, err
	}
	return get(t, fmt.Sprintf("%s slot %s", doing, slot), func() (T, error) { return do(s) })
}

var (
	algorithms  = map[card.Algorithm]piv.Algorithm{card.P256: piv.AlgorithmEC256, card.P384: piv.AlgorithmEC384, card.Ed25519: piv.AlgorithmEd25519}
	pinPolicies = map[piv.PINPolicy]string{
		piv.PINPolicyNever: card.Never, piv.PINPolicyOnce: card.Once, piv.PINPolicyAlways: card.Always,
		piv.PINPolicyMatchOnce: card.MatchOnce, piv.PINPolicyMatchAlways: card.MatchAlways,
	}
	touchPolicies = map[piv.TouchPolicy]string{piv.TouchPolicyNever: card.Never, piv.TouchPolicyAlways: card.Always, piv.TouchPolicyCached: card.Cached}
	origins       = map[piv.Origin]string{piv.OriginGenerated: card.Generated, piv.OriginImported: card.Imported}
)

// named looks a value of the library up; what it does not know is "unknown".
func named[K comparable](names map[K]string, key K) string {
	if name, ok := names[key]; ok {
		return name
	}
	return card.Unknown
}

func (t *token) Info(slot card.Slot) (card.Info, error) {
	return at(t, slot, "reading the key in", func(s piv.Slot) (card.Info, error) {
		k, err := t.yk.KeyInfo(s)
		if err != nil {
			return card.Info{}, err
		}
		info := card.Info{
			Algorithm: card.Other, Public: k.PublicKey,
			PINPolicy: named(pinPolicies, k.PINPolicy), Touch: named(touchPolicies, k.TouchPolicy), Origin: named(origins, k.Origin),
		}
		for ours, theirs := range algorithms {
			if theirs == k.Algorithm {
				info.Algorithm = ours
			}
		}
		return info, nil
	})
}

func (t *token) Generate(management []byte, slot card.Slot, algorithm card.Algorithm) (crypto.PublicKey, error) {
	a, ok := algorithms[algorithm]
	if !ok {
		return nil, fmt.Errorf("no card makes a key of type %q", algorithm)
	}
	management = slices.Clone(management) // who asks clears it, and may not wait for the end
	return at(t, slot, "making a key in", func(s piv.Slot) (crypto.PublicKey, error) {
		return t.yk.GenerateKey(management, s, piv.Key{Algorithm: a, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways})
	})
}

// der bounds a certificate.
func der(c *x509.Certificate, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if len(c.Raw) > card.MaxCertificate {
		return nil, fmt.Errorf("a certificate of %d bytes, more than %d", len(c.Raw), card.MaxCertificate)
	}
	return c.Raw, nil
}

func (t *token) Certificate(slot card.Slot) ([]byte, error) {
	return at(t, slot, "reading the certificate in", func(s piv.Slot) ([]byte, error) { return der(t.yk.Certificate(s)) })
}

func (t *token) SetCertificate(management []byte, slot card.Slot, raw []byte) error {
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return fmt.Errorf("the certificate for slot %s: %w", slot, err)
	}
	management = slices.Clone(management)
	_, err = at(t, slot, "writing the certificate in", func(s piv.Slot) (struct{}, error) { return struct{}{}, t.yk.SetCertificate(management, s, c) })
	return err
}

func (t *token) Attest(slot card.Slot) ([]byte, error) {
	return at(t, slot, "attesting the key in", func(s piv.Slot) ([]byte, error) { return der(t.yk.Attest(s)) })
}

func (t *token) DeviceCertificate() ([]byte, error) {
	return get(t, "reading the device certificate", func() ([]byte, error) { return der(t.yk.AttestationCertificate()) })
}

// none is the source of randomness that a card's key does not take.
type none struct{}

func (none) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (t *token) Sign(slot card.Slot, public crypto.PublicKey, data []byte, hash crypto.Hash, pin func() (string, error)) ([]byte, error) {
	asks := make(chan pinAsk)
	auth := piv.KeyAuth{PINPrompt: func() (string, error) {
		ask := make(pinAsk, 1)
		asks <- ask
		a := <-ask
		return a.pin, a.err
	}}
	key, err := at(t, slot, "reading the key in", func(s piv.Slot) (crypto.Signer, error) {
		k, err := t.yk.PrivateKey(s, public, auth)
		if err != nil {
			return nil, err
		}
		signer, ok := k.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a key of type %T signs nothing", public)
		}
		return signer, nil
	})
	if err != nil {
		return nil, err
	}
	var refused error // by the person: piv-go hides what kind of error it is
	signing := use{doing: "signing with slot " + slot.String(), limit: limitTouch, asks: asks, pin: func() (p string, err error) {
		p, refused = pin()
		return p, refused
	}}
	data = slices.Clone(data)
	sig, err := asked(t, signing, func() ([]byte, error) { return key.Sign(none{}, data, hash) })
	if refused != nil {
		return nil, refused
	}
	if s := card.StatusOf(err); s == 0x6982 || s == 0x6985 { // the PIN is in: what is missing is the touch
		return nil, card.NewError(card.NoTouch, "signing with slot %s: the key was not touched in time", slot)
	}
	return sig, err
}
