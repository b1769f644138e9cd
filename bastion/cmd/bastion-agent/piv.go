//go:build pcsc

package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"mayfly/bastion/card"
)

// How long one thing may take that a card is asked (implementation constants). A card waits 15 s for a touch.
const (
	limitAsk   = 30 * time.Second
	limitTouch = 75 * time.Second
)

// token is a card that piv-go has open.
type token struct {
	yk     *piv.YubiKey
	reader string
	closed sync.Once
	err    error
}

var _ card.Token = (*token)(nil)

// Open has the card for itself at once, or fails.
func (pcsc) Open(_ context.Context, reader string) (card.Token, error) {
	t := &token{reader: reader}
	err := guarded("opening the card in "+reader, limitAsk, func() {}, func(*time.Timer) (err error) {
		t.yk, err = piv.Open(reader)
		return err
	})
	if err != nil {
		if s := card.StatusOf(err); card.FaultOf(err) == card.NoKey || s == 0x6a81 || s == 0x6d00 {
			return nil, card.NewError(card.NoPIV, "the card in %s has no PIV, or it is switched off", reader)
		}
		return nil, err
	}
	return t, nil
}

func (t *token) Close() error {
	t.closed.Do(func() { t.err = t.yk.Close() })
	return t.err
}

// guarded does one thing with a card. A panic of the library about an answer that it did not expect becomes an error, and what takes
// too long (a card that always has more to say) is ended by taking the connection away from under it. do may stop the timer while it
// waits for a person, and must set it again.
func guarded(doing string, limit time.Duration, end func(), do func(timer *time.Timer) error) (err error) {
	var late atomic.Bool
	timer := time.AfterFunc(limit, func() { late.Store(true); end() })
	defer func() {
		timer.Stop()
		if p := recover(); p != nil {
			err = card.NewError(card.Garbage, "%s: the card's answer made no sense: %v", doing, p)
		}
		if late.Load() && err != nil {
			err = card.NewError(card.TooLong, "%s: no end after %s", doing, limit)
		}
	}()
	return faulty(doing, do(timer))
}

func (t *token) ask(doing string, do func() error) error {
	return guarded(doing, limitAsk, t.end, func(*time.Timer) error { return do() })
}

func (t *token) end() { t.Close() }

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
	case errors.As(err, &auth):
		e := card.NewError(card.WrongPIN, "%s: the card did not take it", doing)
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

func (t *token) Serial() (serial uint32, err error) {
	err = t.ask("reading the serial number", func() (err error) { serial, err = t.yk.Serial(); return err })
	return serial, err
}

func (t *token) Tries() (n int, err error) {
	err = t.ask("reading the PIN's tries", func() (err error) { n, err = t.yk.Retries(); return err })
	return n, err
}

func (t *token) VerifyPIN(pin string) error {
	return t.ask("checking the PIN", func() error { return t.yk.VerifyPIN(pin) })
}

func (t *token) SetPIN(old, pin string) error {
	return t.ask("setting the PIN", func() error { return t.yk.SetPIN(old, pin) })
}

func (t *token) SetPUK(old, puk string) error {
	return t.ask("setting the PUK", func() error { return t.yk.SetPUK(old, puk) })
}

func (t *token) SetTries(management []byte, pin string, pinTries, pukTries int) error {
	return t.ask("setting the tries", func() error { return t.yk.SetRetries(management, pin, pinTries, pukTries) })
}

func (t *token) StoredManagement(pin string) (key []byte, err error) {
	err = t.ask("reading the management key", func() error {
		m, err := t.yk.Metadata(pin)
		if err == nil && m.ManagementKey != nil {
			key = *m.ManagementKey
		}
		return err
	})
	return key, err
}

// StoreManagement keeps what else is stored beside it.
func (t *token) StoreManagement(management []byte, pin string, kept []byte) error {
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
	return t.ask("setting the management key", func() error { return t.yk.SetManagementKey(old, management) })
}

func (t *token) Reset() error {
	return guarded("resetting PIV", limitTouch, t.end, func(*time.Timer) error { return t.yk.Reset() })
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
func (t *token) at(slot card.Slot, doing string, do func(piv.Slot) error) error {
	s, err := slotOf(slot)
	if err != nil {
		return err
	}
	return t.ask(fmt.Sprintf("%s slot %s", doing, slot), func() error { return do(s) })
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

func (t *token) Info(slot card.Slot) (info card.Info, err error) {
	err = t.at(slot, "reading the key in", func(s piv.Slot) error {
		k, err := t.yk.KeyInfo(s)
		if err != nil {
			return err
		}
		info = card.Info{
			Algorithm: card.Other, Public: k.PublicKey,
			PINPolicy: named(pinPolicies, k.PINPolicy), Touch: named(touchPolicies, k.TouchPolicy), Origin: named(origins, k.Origin),
		}
		for ours, theirs := range algorithms {
			if theirs == k.Algorithm {
				info.Algorithm = ours
			}
		}
		return nil
	})
	return info, err
}

func (t *token) Generate(management []byte, slot card.Slot, algorithm card.Algorithm) (public crypto.PublicKey, err error) {
	a, ok := algorithms[algorithm]
	if !ok {
		return nil, fmt.Errorf("no card makes a key of type %q", algorithm)
	}
	err = t.at(slot, "making a key in", func(s piv.Slot) (err error) {
		public, err = t.yk.GenerateKey(management, s, piv.Key{Algorithm: a, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways})
		return err
	})
	return public, err
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

func (t *token) Certificate(slot card.Slot) (raw []byte, err error) {
	err = t.at(slot, "reading the certificate in", func(s piv.Slot) (err error) { raw, err = der(t.yk.Certificate(s)); return err })
	return raw, err
}

func (t *token) SetCertificate(management []byte, slot card.Slot, raw []byte) error {
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return fmt.Errorf("the certificate for slot %s: %w", slot, err)
	}
	return t.at(slot, "writing the certificate in", func(s piv.Slot) error { return t.yk.SetCertificate(management, s, c) })
}

func (t *token) Attest(slot card.Slot) (raw []byte, err error) {
	err = t.at(slot, "attesting the key in", func(s piv.Slot) (err error) { raw, err = der(t.yk.Attest(s)); return err })
	return raw, err
}

func (t *token) DeviceCertificate() (raw []byte, err error) {
	err = t.ask("reading the device certificate", func() (err error) { raw, err = der(t.yk.AttestationCertificate()); return err })
	return raw, err
}

// none is the source of randomness that a card's key does not take.
type none struct{}

func (none) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (t *token) Sign(slot card.Slot, public crypto.PublicKey, data []byte, hash crypto.Hash, pin func() (string, error)) (sig []byte, err error) {
	s, err := slotOf(slot)
	if err != nil {
		return nil, err
	}
	var (
		asked   error       // of the person: piv-go hides what kind of error it is
		waiting *time.Timer // of the signature: a person may take their time
	)
	auth := piv.KeyAuth{PINPrompt: func() (string, error) {
		waiting.Stop()
		defer waiting.Reset(limitTouch)
		var p string
		p, asked = pin()
		return p, asked
	}}
	var key crypto.Signer
	if err := t.at(slot, "reading the key in", func(piv.Slot) error {
		k, err := t.yk.PrivateKey(s, public, auth)
		if err != nil {
			return err
		}
		var ok bool
		if key, ok = k.(crypto.Signer); !ok {
			return fmt.Errorf("a key of type %T signs nothing", public)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	err = guarded("signing with slot "+slot.String(), limitTouch, t.end, func(timer *time.Timer) (err error) {
		waiting = timer
		sig, err = key.Sign(none{}, data, hash)
		return err
	})
	if asked != nil {
		return nil, asked
	}
	if s := card.StatusOf(err); s == 0x6982 || s == 0x6985 { // the PIN is in: what is missing is the touch
		return nil, card.NewError(card.NoTouch, "signing with slot %s: the key was not touched in time", slot)
	}
	return sig, err
}
