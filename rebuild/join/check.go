package join

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"mayfly/rebuild/ticket"
)

// Implementation constants.
const (
	// MaxCSR bounds a certificate request.
	MaxCSR = 4 << 10
	// MaxServices bounds a health message's table.
	MaxServices = 32
	// MaxCertificate bounds a PEM chain.
	MaxCertificate = 16 << 10
	renewContext   = "mayfly-renew/1\n"
)

var bootID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// Check says whether every field of a request has its form; it believes nothing about the ticket.
func (r *Request) Check() error {
	if len(r.Ticket) == 0 || len(r.Ticket) > ticket.MaxBytes || len(r.Signature) == 0 || len(r.Signature) > ticket.MaxSignatureBytes {
		return Refuse(RequestInvalid, "ticket or signature missing or too long")
	}
	if _, err := CSRKey(r.CSR); err != nil {
		return Refuse(RequestInvalid, "csr: %v", err)
	}
	if _, err := HostKey(r.HostKey); err != nil {
		return Refuse(RequestInvalid, "host_key: %v", err)
	}
	tunnel, err := base64.StdEncoding.Strict().DecodeString(r.TunnelKey)
	if err != nil || len(tunnel) != 32 || base64.StdEncoding.EncodeToString(tunnel) != r.TunnelKey {
		return Refuse(RequestInvalid, "tunnel_key is not 32 bytes of base64")
	}
	if _, err := ecdh.X25519().NewPublicKey(tunnel); err != nil || bytes.Equal(tunnel, make([]byte, 32)) {
		return Refuse(RequestInvalid, "tunnel_key is no X25519 key")
	}
	if !bootID.MatchString(r.BootID) {
		return Refuse(RequestInvalid, "boot_id is not a boot id")
	}
	return nil
}

// Check says whether every field of a request for a challenge has its form; what the keys are, the signer says.
func (r *ChallengeRequest) Check() error {
	if len(r.Ticket) == 0 || len(r.Ticket) > ticket.MaxBytes || len(r.Signature) == 0 || len(r.Signature) > ticket.MaxSignatureBytes {
		return Refuse(RequestInvalid, "ticket or signature missing or too long")
	}
	return nil
}

// Check says whether every field of a report has its form.
func (r *Report) Check() error {
	switch {
	case len(r.Ticket) == 0 || len(r.Ticket) > ticket.MaxBytes || len(r.Signature) == 0 || len(r.Signature) > ticket.MaxSignatureBytes:
		return Refuse(RequestInvalid, "ticket or signature missing or too long")
	case r.Stage != "stub" && r.Stage != "init":
		return Refuse(RequestInvalid, "stage is neither stub nor init")
	case !reasonCode.MatchString(r.Reason):
		return Refuse(RequestInvalid, "reason is not a reason code")
	case len(r.Detail) > MaxDetail || !utf8.ValidString(r.Detail):
		return Refuse(RequestInvalid, "detail is longer than %d bytes or not UTF-8", MaxDetail)
	}
	return nil
}

func (h *Health) checkWarnings() error {
	if len(h.Warnings) > MaxWarnings {
		return Refuse(RequestInvalid, "%d warnings, at most %d", len(h.Warnings), MaxWarnings)
	}
	for _, w := range h.Warnings {
		if w == "" || len(w) > MaxWarning || Printable(w, MaxWarning) != w {
			return Refuse(RequestInvalid, "a warning that is empty, too long or not printable")
		}
	}
	return nil
}

// MaxLoginText bounds each text of a login, in bytes.
const MaxLoginText = 256

// Check says whether a login has its form.
func (l *Login) Check() error {
	if l.Number == 0 || l.Number > 1<<62 || l.Missed > 1<<62 || l.Time.Year() < 2000 || l.Time.Year() > 2200 || l.Time.Location() != time.UTC {
		return Refuse(RequestInvalid, "login without number or time")
	}
	for _, s := range []string{l.User, l.Method, l.Key, l.Unread} {
		if len(s) > MaxLoginText || Printable(s, MaxLoginText) != s {
			return Refuse(RequestInvalid, "login with a text that is too long or not printable")
		}
	}
	if full := l.User != "" && l.Method != "" && l.Peer.IsValid() && l.Peer.Addr().Zone() == ""; full == (l.Unread != "") {
		return Refuse(RequestInvalid, "login without user, method or peer")
	}
	return nil
}

var reasonCode = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// CSRKey returns the Ed25519 key of a certificate request that is signed with it.
func CSRKey(der []byte) (ed25519.PublicKey, error) {
	if len(der) == 0 || len(der) > MaxCSR {
		return nil, fmt.Errorf("%d bytes, not 1 to %d", len(der), MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	key, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key of type %T, not Ed25519", csr.PublicKey)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("checking its signature: %w", err)
	}
	return key, nil
}

// HostKey parses an Ed25519 host key in authorized_keys form, without options or comment.
func HostKey(s string) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(s))
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	if len(rest) != 0 || key.Type() != ssh.KeyAlgoED25519 || s != strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n") {
		return nil, fmt.Errorf("not one plain %s key", ssh.KeyAlgoED25519)
	}
	return key, nil
}

// KeyHash names a TLS key where a life is remembered, in the store and at the signer: its SHA-256 in hex.
func KeyHash(k ed25519.PublicKey) string {
	h := sha256.Sum256(k)
	return hex.EncodeToString(h[:])
}

// RenewMessage is what RenewRequest.Proof signs.
func RenewMessage(csr []byte, hostKey string) []byte {
	c, h := sha256.Sum256(csr), sha256.Sum256([]byte(hostKey))
	return append(append([]byte(renewContext), c[:]...), h[:]...)
}

// Check says whether a renewal proves itself: its certificate, its request and its proof name one Ed25519 key. It returns that
// certificate, which the caller still has to verify against the CA.
func (r *RenewRequest) Check() (*x509.Certificate, error) {
	if len(r.Current) > MaxCertificate {
		return nil, Refuse(RequestInvalid, "current is longer than %d bytes", MaxCertificate)
	}
	block, _ := pem.Decode(r.Current)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, Refuse(CertificateBad, "current is no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, Refuse(CertificateBad, "current: %v", err)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, Refuse(CertificateBad, "current has no Ed25519 key")
	}
	csrKey, err := CSRKey(r.CSR)
	if err != nil {
		return nil, Refuse(RequestInvalid, "csr: %v", err)
	}
	if !csrKey.Equal(key) {
		return nil, Refuse(ProofBad, "csr and current have different keys")
	}
	if _, err := HostKey(r.HostKey); err != nil {
		return nil, Refuse(RequestInvalid, "host_key: %v", err)
	}
	if !ed25519.Verify(key, RenewMessage(r.CSR, r.HostKey), r.Proof) {
		return nil, Refuse(ProofBad, "proof is not signed with the certificate's key")
	}
	return cert, nil
}
