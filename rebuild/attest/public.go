package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Sizes of the parts of a public area that are a key's own.
const (
	coordinate = 32       // of a point on P-256
	modulus    = 2048 / 8 // of an RSA key
	rsaDefault = 65537    // which a public area says as 0
)

// AKTemplate is what an attestation key has to be: ECDSA on P-256 with SHA-256, made by the TPM, not to be taken out of it, and
// restricted, so that it signs nothing but what the TPM says itself.
var AKTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: make([]byte, coordinate)},
		Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, coordinate)},
	}),
}

// What public areas of each kind begin with: all but the key's own numbers. Comparing these bytes checks every attribute.
var (
	akPrefix    = prefix(AKTemplate, 2*(2+coordinate))
	ekECCPrefix = prefix(tpm2.ECCEKTemplate, 2*(2+coordinate))
	ekRSAPrefix = prefix(tpm2.RSAEKTemplate, 2+modulus)
)

func prefix(template tpm2.TPMTPublic, own int) []byte {
	b := tpm2.Marshal(template)
	return b[:len(b)-own]
}

// point reads the two coordinates that end a public area of an elliptic curve. Some TPMs leave out leading zeros.
func point(rest []byte) ([]byte, error) {
	raw := []byte{4} // uncompressed
	for range 2 {
		if len(rest) < 2 {
			return nil, errors.New("it ends within its point")
		}
		n := int(binary.BigEndian.Uint16(rest))
		if n == 0 || n > coordinate || len(rest) < 2+n {
			return nil, fmt.Errorf("a coordinate of %d bytes", n)
		}
		raw = append(raw, make([]byte, coordinate-n)...)
		raw = append(raw, rest[2:2+n]...)
		rest = rest[2+n:]
	}
	if len(rest) != 0 {
		return nil, errors.New("data after its point")
	}
	return raw, nil
}

func p256(rest []byte) (*ecdsa.PublicKey, error) {
	raw, err := point(rest)
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw) // says whether it is on the curve
}

// attestationKey reads a public area that is AKTemplate's in every bit but its point.
func attestationKey(area []byte) (*ecdsa.PublicKey, error) {
	rest, ok := bytes.CutPrefix(area, akPrefix)
	if !ok || len(area) > MaxPublic {
		return nil, refuse(AKRefused, "not a restricted signing key on P-256 that stays in its TPM")
	}
	key, err := p256(rest)
	if err != nil {
		return nil, refuse(AKRefused, "the attestation key: %w", err)
	}
	return key, nil
}

// CheckKeys says whether these are public areas of an endorsement key and of an attestation key.
func CheckKeys(ek, ak []byte) error {
	if _, err := endorsementKey(ek); err != nil {
		return err
	}
	_, err := attestationKey(ak)
	return err
}

// endorsementKey reads a public area of the standard's templates for P-256 and RSA 2048 (TCG EK Credential Profile, L-1 and L-2).
func endorsementKey(area []byte) (*tpm2.TPMTPublic, error) {
	if rest, ok := bytes.CutPrefix(area, ekECCPrefix); ok && len(area) <= MaxPublic {
		if _, err := p256(rest); err != nil {
			return nil, refuse(EKMalformed, "the endorsement key: %w", err)
		}
	} else if rest, ok := bytes.CutPrefix(area, ekRSAPrefix); !ok || len(rest) != 2+modulus || int(binary.BigEndian.Uint16(rest)) != modulus || rest[2] < 0x80 || rest[len(rest)-1]&1 == 0 {
		return nil, refuse(EKMalformed, "not an endorsement key of the standard's templates for P-256 and RSA 2048")
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](area)
	if err != nil {
		return nil, refuse(EKMalformed, "the endorsement key: %w", err)
	}
	return pub, nil
}

// EndorsementHash is the name of an endorsement key in the inventory: the SHA-256 of its public area (TPMT_PUBLIC), hex.
func EndorsementHash(area []byte) string {
	h := sha256.Sum256(area)
	return hex.EncodeToString(h[:])
}

// EndorsementArea returns the public area of an endorsement key from what people have of it: the area itself, the same with its
// size before it (as tpm2_createek writes), or the key's certificate by the TPM's maker, DER.
func EndorsementArea(data []byte) ([]byte, error) {
	if len(data) > 2 && int(binary.BigEndian.Uint16(data)) == len(data)-2 {
		data = data[2:]
	}
	if _, err := endorsementKey(data); err == nil {
		return data, nil
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, errors.New("neither a public area (TPM2B_PUBLIC or TPMT_PUBLIC) of an endorsement key nor its certificate")
	}
	var area []byte
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		raw, err := key.Bytes()
		if err != nil || key.Curve != elliptic.P256() {
			return nil, errors.New("the certificate's key is not on P-256")
		}
		area = bytes.Clone(ekECCPrefix)
		for _, c := range [][]byte{raw[1 : 1+coordinate], raw[1+coordinate:]} {
			area = append(binary.BigEndian.AppendUint16(area, coordinate), c...)
		}
	case *rsa.PublicKey:
		if key.N.BitLen() != modulus*8 || key.E != rsaDefault {
			return nil, errors.New("the certificate's RSA key is not one of 2048 bits with the usual exponent")
		}
		area = append(binary.BigEndian.AppendUint16(bytes.Clone(ekRSAPrefix), modulus), key.N.Bytes()...)
	default:
		return nil, fmt.Errorf("the certificate's key is a %T", key)
	}
	if _, err := endorsementKey(area); err != nil {
		return nil, err
	}
	return area, nil
}
