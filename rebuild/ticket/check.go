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
	"regexp"
	"slices"
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
	case !t.Address.IsValid() || t.Address.Addr().IsUnspecified() || t.Address.Addr().Is4In6() || t.Address.Addr().Zone() != "":
		return fmt.Errorf("address %q is no address with a prefix length", t.Address)
	case t.Gateway.IsValid() && t.Gateway.Is4() != t.Address.Addr().Is4():
		return fmt.Errorf("gateway %q is not of the address's family", t.Gateway)
	case t.Gateway.Is4In6() || t.Gateway.Zone() != "":
		return fmt.Errorf("gateway %q is no address", t.Gateway)
	case t.TPM != TPMOff && t.TPM != TPMRequired:
		return fmt.Errorf("tpm is %q, not %q or %q", t.TPM, TPMOff, TPMRequired)
	case t.Disks != DisksRefuse && t.Disks != DisksUnbind:
		return fmt.Errorf("disks is %q, not %q or %q", t.Disks, DisksRefuse, DisksUnbind)
	case t.Deadline.IsZero() || t.Deadline.Location() != time.UTC:
		return errors.New("deadline is not a time in UTC")
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
	if len(t.Mirrors) == 0 || len(t.Mirrors) > MaxMirrors {
		return fmt.Errorf("%d mirrors, not 1 to %d", len(t.Mirrors), MaxMirrors)
	}
	for i, m := range t.Mirrors {
		if err := checkURL(m); err != nil {
			return err
		}
		if slices.Contains(t.Mirrors[:i], m) {
			return fmt.Errorf("mirror %q is there twice", m)
		}
	}
	if len(t.Witnesses) > MaxWitnesses {
		return fmt.Errorf("%d witnesses: at most %d", len(t.Witnesses), MaxWitnesses)
	}
	for i, w := range t.Witnesses {
		at, ok := strings.CutPrefix(w, "http://")
		if a, err := netip.ParseAddrPort(at); !ok || err != nil || a.Port() == 0 || a.Addr().Zone() != "" || a.String() != at || slices.Contains(t.Witnesses[:i], w) {
			return fmt.Errorf("witness %q is not http://IP:PORT, or is there twice", w)
		}
	}
	if err := t.Network.check(); err != nil {
		return err
	}
	return checkCA(t.CA)
}

var mac = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)

func (n Network) check() error {
	switch {
	case n.Mode != Static && n.Mode != DHCP4 && n.Mode != DHCP6:
		return fmt.Errorf("network mode is %q, not %q, %q or %q", n.Mode, Static, DHCP4, DHCP6)
	case len(n.MACs) > MaxMACs:
		return fmt.Errorf("%d network devices: at most %d", len(n.MACs), MaxMACs)
	case len(n.MACs) > 1 != (n.Bond != ""), n.Bond != "" && n.Bond != ActiveBackup && n.Bond != LACP:
		return fmt.Errorf("bond is %q with %d devices: several are %q or %q, one is no bond", n.Bond, len(n.MACs), ActiveBackup, LACP)
	case n.VLAN < 0 || n.VLAN > 4094:
		return fmt.Errorf("vlan is %d, not 1 to 4094", n.VLAN)
	}
	for i, m := range n.MACs {
		if !mac.MatchString(m) || slices.Contains(n.MACs[:i], m) {
			return fmt.Errorf("%q is no hardware address, or is there twice", m)
		}
	}
	return nil
}

// checkURL allows http://IP:PORT/PATH/, with http or https, and nothing else: a server resolves no names before it has joined.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	_, addrErr := netip.ParseAddrPort(u.Host)
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || addrErr != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("mirror %q is not http://IP:PORT/PATH/ or https://IP:PORT/PATH/", s)
	case !strings.HasPrefix(u.Path, "/") || !strings.HasSuffix(u.Path, "/") || u.RawPath != "":
		return fmt.Errorf("mirror %q has no plain path that ends in a slash", s)
	case strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/../") || strings.Contains(u.Path, "/./"):
		return fmt.Errorf("mirror %q has a path with empty or dot elements", s)
	case u.String() != s:
		return fmt.Errorf("mirror %q is not in its plain form", s)
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
