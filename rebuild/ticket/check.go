package ticket

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// check says whether every field holds what its format allows. It knows nothing of signatures or of now.
func (t *Ticket) check() error {
	switch {
	case t.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", t.Kind, Kind)
	case !label(t.Fleet):
		return fmt.Errorf("fleet %q is no DNS label", t.Fleet)
	case !domain(t.Domain):
		return fmt.Errorf("domain %q is no DNS name", t.Domain)
	case !label(t.Server):
		return fmt.Errorf("server %q is no DNS label", t.Server)
	case t.Epoch == 0:
		return errors.New("epoch is 0")
	case !hexadecimal(t.Secret, SecretBytes):
		return errors.New("secret is not 32 bytes of lower-case hex")
	case !hexadecimal(t.Release, 32):
		return errors.New("release is not a SHA-256 in lower-case hex")
	case !t.Address.IsValid() || !t.Address.Addr().Is4() || t.Address.Addr().IsUnspecified():
		return fmt.Errorf("address %q is no IPv4 address with a prefix length", t.Address)
	case t.Gateway.IsValid() && !t.Gateway.Is4():
		return fmt.Errorf("gateway %q is no IPv4 address", t.Gateway)
	case t.Name != ControllerLabel+"."+t.Domain:
		return fmt.Errorf("controller_name is %q, not %q", t.Name, ControllerLabel+"."+t.Domain)
	case t.NotAfter.IsZero() || t.NotAfter.Location() != time.UTC:
		return errors.New("not_after is not a time in UTC")
	case t.MaxAge <= 0 || t.MaxAge > int64(MaxAge/time.Second):
		return fmt.Errorf("max_age_seconds is %d, not from 1 to %d", t.MaxAge, int64(MaxAge/time.Second))
	}
	if a, err := netip.ParseAddrPort(t.Controller); err != nil || a.Port() == 0 || a.String() != t.Controller {
		return fmt.Errorf("controller %q is no IP:PORT", t.Controller)
	}
	if err := checkURL(t.ReleaseURL); err != nil {
		return err
	}
	return checkCA(t.CA)
}

// checkURL allows http://IP:PORT/PATH/ and nothing else: a server resolves no names before it has joined.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("release_url: %w", err)
	}
	_, addrErr := netip.ParseAddrPort(u.Host)
	switch {
	case u.Scheme != "http" || addrErr != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("release_url %q is not http://IP:PORT/PATH/", s)
	case !strings.HasPrefix(u.Path, "/") || !strings.HasSuffix(u.Path, "/") || u.RawPath != "":
		return fmt.Errorf("release_url %q has no plain path that ends in a slash", s)
	case strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/../") || strings.Contains(u.Path, "/./"):
		return fmt.Errorf("release_url %q has a path with empty or dot elements", s)
	case u.String() != s:
		return fmt.Errorf("release_url %q is not in its plain form", s)
	}
	return nil
}

// checkCA wants exactly one certificate that is a CA.
func checkCA(s string) error {
	block, rest := pem.Decode([]byte(s))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 || len(bytes.TrimSpace(rest)) != 0 {
		return errors.New("ca is not one PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	if !cert.IsCA || !cert.BasicConstraintsValid {
		return errors.New("ca is a certificate of no CA")
	}
	return nil
}

func hexadecimal(s string, bytes int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == bytes && s == strings.ToLower(s)
}

// label is a lower-case DNS label (RFC 1035, section 2.3.1, with a digit allowed first as in RFC 1123).
func label(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func domain(s string) bool {
	if len(s) > 189 { // leaves room for a label before it
		return false
	}
	for _, l := range strings.Split(s, ".") {
		if !label(l) {
			return false
		}
	}
	return true
}
