//go:build pcsc

package cardpeers

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"
	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/testenv/pcscd"
	"mayfly/testenv/pivcard"
)

// Firmwares of cards: the newest; the last that has 3DES as its management key from the factory, which is all that Debian's programs
// speak; and the oldest with attestations that name a serial number.
var (
	newest = pivcard.DefaultFirmware
	older  = pivcard.Firmware{Major: 5, Minor: 4, Patch: 3}
)

// pivgoHome is one directory for the whole process: libpcsclite reads the socket's name once.
var pivgoHome = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "desk-") })

func TestMain(m *testing.M) {
	code := m.Run()
	if home, err := pivgoHome(); err == nil {
		os.RemoveAll(home)
	}
	os.Exit(code)
}

// usePIVGo uses the library in this process: bastion-agent has no other way to a card.
func usePIVGo(t *testing.T, do doer) {
	home, err := pivgoHome()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	t.Cleanup(cancel)
	daemon, err := pcscd.Start(ctx, pcscd.Place{Dir: filepath.Join(home, "pcscd"), Readers: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := daemon.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := os.Setenv("PCSCLITE_CSOCK_NAME", daemon.Socket()); err != nil {
		t.Fatal(err)
	}
	d := plugNew(t, ctx, daemon, 0, newest, home)
	old := plugNew(t, ctx, daemon, 1, older, home)

	do(seen, d, func() {
		names, err := piv.Cards()
		if err != nil || len(names) != 2 || names[0] != d.Reader(0) {
			d.t.Errorf("got cards %q, %v, want those in both readers", names, err)
		}
		for _, d := range d.and(old) {
			yk := d.open()
			serial, err := yk.Serial()
			v := yk.Version()
			f := pivcard.Firmware{Major: byte(v.Major), Minor: byte(v.Minor), Patch: byte(v.Patch)}
			if err != nil || serial != d.card.Serial() || f != d.card.Firmware() {
				d.t.Errorf("got card %d, firmware %s, %v, want %d, %s", serial, f, err, d.card.Serial(), d.card.Firmware())
			}
			d.close(yk)
		}
	})
	do(generate, d, func() {
		yk := d.open()
		for slot, algorithm := range map[piv.Slot]piv.Algorithm{
			piv.SlotAuthentication: piv.AlgorithmEC256, piv.SlotSignature: piv.AlgorithmEC384, piv.SlotCardAuthentication: piv.AlgorithmEd25519,
		} {
			public, err := yk.GenerateKey(piv.DefaultManagementKey, slot, piv.Key{Algorithm: algorithm, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways})
			if err != nil {
				d.t.Fatalf("%s: %v", slot, err)
			}
			info, err := yk.KeyInfo(slot)
			if err != nil || info.Algorithm != algorithm || info.Origin != piv.OriginGenerated || info.TouchPolicy != piv.TouchPolicyAlways ||
				!public.(interface{ Equal(crypto.PublicKey) bool }).Equal(info.PublicKey) {
				d.t.Errorf("%s: got %+v, %v, want the key that was made", slot, info, err)
			}
		}
		d.close(yk)
		old := d.and(old)[1]
		yk = old.open()
		if _, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotAuthentication,
			piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways}); err != nil {
			d.t.Errorf("firmware %s: %v", older, err)
		}
		old.close(yk)
	})
	do(attest, d, func() {
		for _, d := range d.and(old) {
			if err := d.card.Touch.SetMode(pivcard.TouchAuto); err != nil {
				d.t.Fatal(err)
			}
			yk := d.open()
			slot, err := yk.Attest(piv.SlotAuthentication)
			if err != nil {
				d.t.Fatal(err)
			}
			device, err := yk.AttestationCertificate()
			if err != nil {
				d.t.Fatal(err)
			}
			d.openssl(slot, device)
			signer, err := ssh.NewSignerFromSigner(d.signer(yk, piv.SlotAuthentication, pivcard.DefaultPIN))
			if err != nil {
				d.t.Fatal(err)
			}
			c := d.challenge()
			armored, err := sshsig.Sign(signer, namespace, c.Signed())
			if err != nil {
				d.t.Fatal(err)
			}
			block, _ := pem.Decode(armored)
			d.enrol(signer.PublicKey(), c, block.Bytes, slot, device)
			d.close(yk)
		}
	})
	do(sign, d, func() {
		yk := d.open()
		defer d.close(yk)
		for _, slot := range []piv.Slot{piv.SlotAuthentication, piv.SlotSignature, piv.SlotCardAuthentication} {
			if err := d.signs(yk, slot, pivcard.DefaultPIN); err != nil {
				d.t.Errorf("%s: %v", slot, err)
			}
		}
		if got := d.card.Touch.State(); got.Asked != got.Given || got.Given < 4 {
			d.t.Errorf("got touches %+v, want one for each of at least 4 signatures", got.Touches)
		}
	})
	do(certificate, d, func() {
		yk := d.open()
		defer d.close(yk)
		info, err := yk.KeyInfo(piv.SlotAuthentication)
		if err != nil {
			d.t.Fatal(err)
		}
		cert := d.certify(info.PublicKey)
		if err := yk.SetCertificate(piv.DefaultManagementKey, piv.SlotAuthentication, cert); err != nil {
			d.t.Fatal(err)
		}
		if got, err := yk.Certificate(piv.SlotAuthentication); err != nil || !got.Equal(cert) {
			d.t.Errorf("got %v, %v, want the certificate back", got, err)
		}
	})
	d.pivgoTouches(do)
	d.pivgoCodes(do)
}

func (d *desk) pivgoTouches(do doer) {
	touch := d.card.Touch
	manual := func() {
		if err := touch.SetMode(pivcard.TouchManual); err != nil {
			d.t.Fatal(err)
		}
	}
	do(touchGiven, d, func() {
		manual()
		yk := d.open()
		defer d.close(yk)
		d.whenAsked(touch.Give, func() {
			if err := d.signs(yk, piv.SlotAuthentication, pivcard.DefaultPIN); err != nil {
				d.t.Error(err)
			}
		})
	})
	do(touchRefused, d, func() {
		yk := d.open()
		defer d.close(yk)
		d.whenAsked(touch.Refuse, func() {
			if err := d.signs(yk, piv.SlotAuthentication, pivcard.DefaultPIN); err == nil {
				d.t.Error("a signature without a touch")
			}
		})
	})
	do(touchLate, d, func() {
		d.late()
		yk := d.open()
		defer d.close(yk)
		if err := d.signs(yk, piv.SlotAuthentication, pivcard.DefaultPIN); err == nil {
			d.t.Error("a signature without a touch in time")
		}
	})
	do(pulled, d, func() {
		manual()
		d.inTime()
		yk := d.open()
		d.whenAsked(d.pull, func() {
			if err := d.signs(yk, piv.SlotAuthentication, pivcard.DefaultPIN); err == nil {
				d.t.Error("a signature by a card that was pulled")
			}
		})
		_ = yk.Close() // of a card that is gone
		d.plug()
		yk = d.open()
		defer d.close(yk)
		d.whenAsked(touch.Give, func() {
			if err := d.signs(yk, piv.SlotAuthentication, pivcard.DefaultPIN); err != nil {
				d.t.Errorf("plugged in again: %v", err)
			}
		})
	})
}

func (d *desk) pivgoCodes(do doer) {
	const pin, puk = "654321", "87654321"
	fails := func(what string, err error, retries int) {
		d.t.Helper()
		var auth piv.AuthErr
		if !errors.As(err, &auth) || auth.Retries != retries {
			d.t.Errorf("%s: got %v, want an authentication error with %d retries left", what, err, retries)
		}
	}
	do(changePIN, d, func() {
		yk := d.open()
		defer d.close(yk)
		if err := errors.Join(yk.SetPIN(pivcard.DefaultPIN, pin), yk.VerifyPIN(pin)); err != nil {
			d.t.Error(err)
		}
		fails("the PIN of before", yk.VerifyPIN(pivcard.DefaultPIN), 2)
	})
	do(changePUK, d, func() {
		yk := d.open()
		defer d.close(yk)
		if err := yk.SetPUK(pivcard.DefaultPUK, puk); err != nil {
			d.t.Error(err)
		}
		fails("the PUK of before", yk.SetPUK(pivcard.DefaultPUK, puk), 2)
	})
	do(pinBlocks, d, func() {
		yk := d.open()
		defer d.close(yk)
		for left := 1; left >= 0; left-- {
			fails("a wrong PIN", yk.VerifyPIN("000000"), left)
		}
		fails("the right PIN, too late", yk.VerifyPIN(pin), 0)
		if err := d.signs(yk, piv.SlotAuthentication, pin); err == nil {
			d.t.Error("a signature with a blocked PIN")
		}
	})
	do(unblock, d, func() {
		yk := d.open()
		defer d.close(yk)
		if err := errors.Join(yk.Unblock(puk, pivcard.DefaultPIN), yk.VerifyPIN(pivcard.DefaultPIN)); err != nil {
			d.t.Error(err)
		}
	})
	do(pukBlocks, d, func() {
		yk := d.open()
		defer d.close(yk)
		for left := 2; left >= 0; left-- {
			fails("a wrong PUK", yk.Unblock("00000000", pin), left)
		}
		fails("the right PUK, too late", yk.Unblock(puk, pin), 0)
		if err := yk.VerifyPIN(pivcard.DefaultPIN); err != nil {
			d.t.Errorf("the PIN, which is not blocked: %v", err)
		}
	})
	do(reset, d, func() {
		yk := d.open()
		defer d.close(yk)
		if err := yk.Reset(); err != nil {
			d.t.Fatal(err)
		}
		if _, err := yk.Attest(piv.SlotAuthentication); !errors.Is(err, piv.ErrNotFound) {
			d.t.Error("a key outlived the reset")
		}
		if err := yk.VerifyPIN(pivcard.DefaultPIN); err != nil {
			d.t.Error(err)
		}
	})
	do(retries, d, func() {
		yk := d.open()
		defer d.close(yk)
		if err := yk.SetRetries(piv.DefaultManagementKey, pivcard.DefaultPIN, 5, 4); err != nil {
			d.t.Fatal(err)
		}
		fails("a wrong PIN", yk.VerifyPIN("000000"), 4)
		fails("a wrong PUK", yk.Unblock("00000000", pin), 3)
	})
	do(management, d, func() {
		yk := d.open()
		defer d.close(yk)
		key := make([]byte, 24)
		if _, err := io.ReadFull(rand.Reader, key); err != nil {
			d.t.Fatal(err)
		}
		if err := yk.SetManagementKey(piv.DefaultManagementKey, key); err != nil {
			d.t.Fatal(err)
		}
		// As bastion-agent setup does: kept on the card, for who knows the PIN.
		if err := yk.SetMetadata(key, &piv.Metadata{ManagementKey: &key}); err != nil {
			d.t.Fatal(err)
		}
		kept, err := yk.Metadata(pivcard.DefaultPIN)
		if err != nil || kept.ManagementKey == nil {
			d.t.Fatalf("got %+v, %v, want the key that was kept", kept, err)
		}
		plan := piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever}
		if _, err := yk.GenerateKey(*kept.ManagementKey, piv.SlotAuthentication, plan); err != nil {
			d.t.Error(err)
		}
		if _, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotAuthentication, plan); err == nil {
			d.t.Error("the management key of before is taken")
		}
	})
}

// and is this desk and another one, in the same operation.
func (d *desk) and(other *desk) []*desk {
	other.t = d.t
	return []*desk{d, other}
}

// open opens the desk's card.
func (d *desk) open() *piv.YubiKey {
	d.t.Helper()
	yk, err := piv.Open(d.Reader(d.reader))
	if err != nil {
		d.t.Fatal(err)
	}
	return yk
}

func (d *desk) close(yk *piv.YubiKey) {
	d.t.Helper()
	if err := yk.Close(); err != nil {
		d.t.Error(err)
	}
}

func (d *desk) signer(yk *piv.YubiKey, slot piv.Slot, pin string) crypto.Signer {
	d.t.Helper()
	cert, err := yk.Attest(slot)
	if err != nil {
		d.t.Fatal(err)
	}
	key, err := yk.PrivateKey(slot, cert.PublicKey, piv.KeyAuth{PIN: pin})
	if err != nil {
		d.t.Fatal(err)
	}
	return key.(crypto.Signer)
}

// signs signs with a key and verifies it. It fails the test for anything but the card's no.
func (d *desk) signs(yk *piv.YubiKey, slot piv.Slot, pin string) error {
	d.t.Helper()
	signer := d.signer(yk, slot, pin)
	message := []byte("a message")
	digest := sha256.Sum256(message)
	options, signed := crypto.SignerOpts(crypto.SHA256), digest[:]
	if _, ok := signer.Public().(ed25519.PublicKey); ok {
		options, signed = crypto.Hash(0), message
	}
	signature, err := signer.Sign(rand.Reader, signed, options)
	if err != nil {
		return err
	}
	good := false
	switch public := signer.Public().(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(public, signed, signature)
	case ed25519.PublicKey:
		good = ed25519.Verify(public, signed, signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(public, crypto.SHA256, signed, signature) == nil
	}
	if !good {
		d.t.Errorf("%s: the signature does not match", slot)
	}
	return nil
}
