package card

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/policies/enrolment"
)

// trialName is the fleet and the person of the challenge that a key signs in setup: no fleet's.
const trialName = "setup-trial"

// trial is a challenge that proves a new key, and enrols it nowhere.
func trial(now time.Time) hardkey.Challenge {
	var nonce [hardkey.NonceBytes]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		panic("card: internal error: " + err.Error()) // crypto/rand promises not to fail
	}
	return hardkey.NewChallenge(trialName, trialName, nonce, now)
}

// show has a key answer a challenge, with the card's attestation of the key.
func show(t Token, slot Slot, public crypto.PublicKey, challenge hardkey.Challenge, pin func() (string, error)) (hardkey.Shown, error) {
	attestation, err := t.Attest(slot)
	if err != nil {
		if FaultOf(err) == NoKey || FaultOf(err) == Refused {
			err = fault(NoKey, fmt.Errorf("the card does not attest the key in slot %s: none is there, or it was made elsewhere and imported", slot))
		}
		return hardkey.Shown{}, err
	}
	device, err := t.DeviceCertificate()
	if err != nil {
		return hardkey.Shown{}, fmt.Errorf("the card has no device certificate: %w", err)
	}
	key, err := SSHKey(public)
	if err != nil {
		return hardkey.Shown{}, err
	}
	signature, err := enrolment.Answer(signer{t, slot, public, key, pin}, challenge)
	if err != nil {
		return hardkey.Shown{}, err
	}
	return hardkey.Shown{
		Kind: hardkey.KindPIV, Challenge: challenge.String(),
		Attestation: []string{base64.StdEncoding.EncodeToString(attestation), base64.StdEncoding.EncodeToString(device)},
		Signature:   signature,
	}, nil
}

// signer is a key on a card as SSH signs with one.
type signer struct {
	token  Token
	slot   Slot
	public crypto.PublicKey
	key    ssh.PublicKey
	pin    func() (string, error)
}

func (s signer) PublicKey() ssh.PublicKey { return s.key }

func (s signer) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	return Sign(s.token, s.slot, s.public, data, s.pin)
}

// lasting is how long a slot's certificate says it is good. Nobody believes it: it is there for programs to find the key by.
const lasting = 30 * 365 * 24 * time.Hour

// selfSigned makes the certificate of a slot's key, signed by the key itself.
func selfSigned(t Token, slot Slot, public crypto.PublicKey, serial uint32, pin func() (string, error), now time.Time) ([]byte, error) {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: number,
		Subject:      pkix.Name{CommonName: fmt.Sprintf("mayfly card %d slot %s", serial, slot)},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(lasting),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	return x509.CreateCertificate(rand.Reader, template, template, public, certificateSigner{t, slot, public, pin})
}

// certificateSigner is a key on a card as package crypto signs with one.
type certificateSigner struct {
	token  Token
	slot   Slot
	public crypto.PublicKey
	pin    func() (string, error)
}

func (s certificateSigner) Public() crypto.PublicKey { return s.public }

func (s certificateSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.token.Sign(s.slot, s.public, digest, opts.HashFunc(), s.pin)
}
