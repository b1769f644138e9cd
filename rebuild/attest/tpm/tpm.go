package tpm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/measure"
)

// Kind of an endorsement key.
type Kind int

// Kinds: which one a server has is the inventory's to say.
const (
	P256 Kind = iota
	RSA2048
)

func (k Kind) template() tpm2.TPMTPublic {
	if k == RSA2048 {
		return tpm2.RSAEKTemplate
	}
	return tpm2.ECCEKTemplate
}

// Identity is one endorsement key and one attestation key, in the TPM.
type Identity struct {
	tpm    transport.TPM
	close  io.Closer
	ek, ak tpm2.NamedHandle

	EK, AK []byte // public areas
}

// ErrNone says that the machine has no TPM that the kernel knows.
var ErrNone = measure.ErrNone

// Open makes both keys in the TPM of this machine.
func Open(kind Kind) (*Identity, error) {
	f, err := measure.Open()
	if err != nil {
		return nil, err
	}
	return New(f, kind)
}

// New makes both keys in the TPM behind rw, which it closes in the end.
func New(rw io.ReadWriteCloser, kind Kind) (*Identity, error) {
	id := &Identity{tpm: transport.FromReadWriter(rw), close: rw}
	if err := id.make(kind); err != nil {
		return nil, errors.Join(err, id.Close())
	}
	return id, nil
}

func (id *Identity) make(kind Kind) error {
	var err error
	if id.ek, id.EK, err = id.primary(kind.template()); err != nil {
		return fmt.Errorf("making the endorsement key: %w", err)
	}
	// What a primary key is follows from the TPM's seed and the template: 64 random bytes in place of the point make a new one.
	template := attest.AKTemplate
	var x, y [32]byte
	rand.Read(x[:]) // never fails
	rand.Read(y[:])
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x[:]}, Y: tpm2.TPM2BECCParameter{Buffer: y[:]}})
	if id.ak, id.AK, err = id.primary(template); err != nil {
		return fmt.Errorf("making the attestation key: %w", err)
	}
	return nil
}

func (id *Identity) primary(template tpm2.TPMTPublic) (tpm2.NamedHandle, []byte, error) {
	res, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHEndorsement,
		InPublic:      tpm2.New2B(template),
	}.Execute(id.tpm)
	if err != nil {
		return tpm2.NamedHandle{}, nil, err
	}
	return tpm2.NamedHandle{Handle: res.ObjectHandle, Name: res.Name}, res.OutPublic.Bytes(), nil
}

// Activate decrypts what attest.MakeCredential made for these two keys.
func (id *Identity) Activate(blob, encrypted []byte) ([]byte, error) {
	res, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: id.ak.Handle, Name: id.ak.Name, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle: tpm2.AuthHandle{
			Handle: id.ek.Handle, Name: id.ek.Name,
			Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, tpm2.PolicyCallback(endorsementPolicy)),
		},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: encrypted},
	}.Execute(id.tpm)
	if err != nil {
		return nil, fmt.Errorf("decrypting the challenge: %w", err)
	}
	return res.CertInfo.Buffer, nil
}

// endorsementPolicy is the policy of the standard's endorsement keys: whoever may use the hierarchy may use the key.
func endorsementPolicy(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(t)
	return err
}

// Quote is what the TPM says of its registers, for this qualifying data.
type Quote struct {
	Quote, Signature, PCRs []byte
}

// maxPasses bounds how often the registers are read: a TPM gives eight at once.
const maxPasses = 8

// Quote signs the registers with the attestation key, and reads them.
func (id *Identity) Quote(qualifying attest.Digest) (Quote, error) {
	var q Quote
	var list []uint
	for _, pcr := range attest.PCRs {
		list = append(list, uint(pcr))
	}
	bank := func(list []uint) tpm2.TPMLPCRSelection {
		return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(list...)}}}
	}
	for passes := 0; len(list) > 0; passes++ {
		res, err := tpm2.PCRRead{PCRSelectionIn: bank(list)}.Execute(id.tpm)
		if err != nil {
			return Quote{}, fmt.Errorf("reading registers: %w", err)
		}
		if n := len(res.PCRValues.Digests); n == 0 || n > len(list) || passes == maxPasses {
			return Quote{}, errors.New("the TPM has no registers of SHA-256, or not all of them")
		}
		for _, d := range res.PCRValues.Digests {
			q.PCRs = append(q.PCRs, d.Buffer...)
			list = list[1:]
		}
	}
	for _, pcr := range attest.PCRs {
		list = append(list, uint(pcr))
	}
	res, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: id.ak.Handle, Name: id.ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: qualifying[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      bank(list),
	}.Execute(id.tpm)
	if err != nil {
		return Quote{}, fmt.Errorf("quoting: %w", err)
	}
	q.Quote, q.Signature = res.Quoted.Bytes(), tpm2.Marshal(res.Signature)
	return q, nil
}

// Close takes both keys out of the TPM.
func (id *Identity) Close() error {
	var errs []error
	for _, h := range []tpm2.NamedHandle{id.ak, id.ek} {
		if h.Handle != 0 {
			_, err := tpm2.FlushContext{FlushHandle: h.Handle}.Execute(id.tpm)
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, id.close.Close())...)
}
