package hardkey

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
)

// Specification constants: Yubico's extensions of PIV attestations, and FIDO's of attestation certificates.
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3} // 3 bytes
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7} // INTEGER
	oidPolicies   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8} // PIN policy, touch policy: a byte each
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9} // 1 byte

	oidAAGUID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4} // OCTET STRING of 16 bytes
)

// Touch policies, the second byte of oidPolicies.
const (
	touchNever  = 1
	touchAlways = 2
	touchCached = 3 // for 15 seconds
)

var formFactors = map[byte]string{
	1: "keychain USB-A", 2: "nano USB-A", 3: "keychain USB-C", 4: "nano USB-C", 5: "USB-C and Lightning", 6: "Bio USB-A", 7: "Bio USB-C",
}

// Bits above a form factor.
const (
	formFIPS        = 0x80
	formSecurityKey = 0x40
	formMask        = 0x0f
)

// extension finds one. A certificate with two of an identifier does not parse.
func extension(cert *x509.Certificate, oid asn1.ObjectIdentifier, what string) ([]byte, *Rejection) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Value, nil
		}
	}
	return nil, reject(ExtensionMissing, "use a newer key; an old one attests less than the fleet asks for",
		"the certificate of %q does not tell the %s (extension %s)", clip(cert.Subject.CommonName), what, oid)
}

// sized is an extension of a fixed number of bytes. The field is where the certificate was shown.
func sized(field string, cert *x509.Certificate, oid asn1.ObjectIdentifier, what string, size int) ([]byte, *Rejection) {
	value, rejection := extension(cert, oid, what)
	if rejection == nil && len(value) != size {
		rejection = malformed(field, "the certificate's %s (extension %s) has %d bytes, not %d", what, oid, len(value), size)
	}
	return value, rejection
}

func firmware(field string, cert *x509.Certificate) (version, *Rejection) {
	value, rejection := sized(field, cert, oidFirmware, "firmware", 3)
	if rejection != nil {
		return version{}, rejection
	}
	return version(value), nil
}

func serial(field string, cert *x509.Certificate) (uint32, *Rejection) {
	value, rejection := extension(cert, oidSerial, "serial number")
	if rejection != nil {
		return 0, rejection
	}
	var n *big.Int
	rest, err := asn1.Unmarshal(value, &n)
	if err != nil || len(rest) != 0 || n.Sign() <= 0 || n.BitLen() > 32 {
		return 0, malformed(field, "the certificate's serial number (extension %s) is not an INTEGER of 1 to 2^32-1", oidSerial)
	}
	return uint32(n.Uint64()), nil
}

func formFactor(field string, cert *x509.Certificate) (string, *Rejection) {
	value, rejection := sized(field, cert, oidFormFactor, "form factor", 1)
	if rejection != nil {
		return "", rejection
	}
	name, ok := formFactors[value[0]&formMask]
	if !ok {
		name = fmt.Sprintf("unknown (0x%02x)", value[0])
	}
	if value[0]&formSecurityKey != 0 {
		name += ", Security Key"
	}
	if value[0]&formFIPS != 0 {
		name += ", FIPS"
	}
	return name, nil
}

// certificateAAGUID is the model for which the maker certified an attestation key.
func certificateAAGUID(field string, cert *x509.Certificate) ([]byte, *Rejection) {
	value, rejection := extension(cert, oidAAGUID, "model (AAGUID)")
	if rejection != nil {
		return nil, rejection
	}
	var id []byte
	rest, err := asn1.Unmarshal(value, &id)
	if err != nil || len(rest) != 0 || len(id) != aaguidSize {
		return nil, malformed(field, "the certificate's model (extension %s) is not an OCTET STRING of %d bytes", oidAAGUID, aaguidSize)
	}
	return id, nil
}
