package hardkey

import (
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// DefaultMinFirmware of PIV cards: the first that keeps its ECDSA keys from who holds the card for a while and measures it
// (EUCLEAK, Yubico's YSA-2024-03).
const DefaultMinFirmware = "5.7.0"

// version of a card's firmware.
type version [3]byte

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func (v version) before(w version) bool { return slices.Compare(v[:], w[:]) < 0 }

// slots that PIV has for keys of a person: authentication, signature, key management, card authentication, and the retired ones.
var slots = func() []string {
	list := []string{"9a", "9c", "9d", "9e"}
	for n := 0x82; n <= 0x95; n++ {
		list = append(list, strconv.FormatInt(int64(n), 16))
	}
	return list
}()

// defaultSlots leaves out those that other programs use for something else.
var defaultSlots = slices.DeleteFunc(slices.Clone(slots), func(s string) bool { return s == "9c" || s == "9d" || s == "9e" })

// pinPolicies by their byte in the attestation.
var pinPolicies = map[byte]string{1: "never", 2: "once", 3: "always", 4: "match_once", 5: "match_always"}

var defaultPINPolicies = []string{"once", "always", "match_once", "match_always"}

// issuerName stands in records and on paper.
var issuerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._()-]{0,62}$`)

var aaguidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// rules as they are applied.
type rules struct {
	Rules
	floor   version
	issuers []issuer // built in, of the policy, and of tests
}

// Check refuses rules that Verify could not apply. Its errors begin with the field as policy.toml names it.
func (r Rules) Check() error {
	_, err := r.compile()
	return err
}

func (r Rules) compile() (rules, error) {
	c := rules{Rules: r}
	if len(c.Slots) == 0 {
		c.Slots = defaultSlots
	}
	for i, s := range c.Slots {
		if !slices.Contains(slots, s) {
			return rules{}, fmt.Errorf("slots[%d]: %q is none of 9a, 9c, 9d, 9e and 82 to 95", i, clip(s))
		}
	}
	if len(c.PINPolicies) == 0 {
		c.PINPolicies = defaultPINPolicies
	}
	for i, p := range c.PINPolicies {
		if p != pinPolicies[1] && !slices.Contains(defaultPINPolicies, p) {
			return rules{}, fmt.Errorf("pin_policies[%d]: %q is none of never, %s", i, clip(p), strings.Join(defaultPINPolicies, ", "))
		}
	}
	if c.MinFirmware == "" {
		c.MinFirmware = DefaultMinFirmware
	}
	var err error
	if c.floor, err = parseVersion(c.MinFirmware); err != nil {
		return rules{}, fmt.Errorf("min_firmware: %w", err)
	}
	for i, a := range c.AAGUIDs {
		if !aaguidForm.MatchString(a) || a == noAAGUID {
			return rules{}, fmt.Errorf("aaguids[%d]: %q is not of the form 01234567-89ab-cdef-0123-456789abcdef", i, clip(a))
		}
	}
	c.issuers = slices.Clone(builtin())
	if err := c.add("fido2_issuer", r.FIDO2Issuers, false); err != nil {
		return rules{}, err
	}
	if err := c.add("test_issuer", r.TestIssuers, true); err != nil {
		return rules{}, err
	}
	return c, nil
}

func (c *rules) add(field string, list []Issuer, test bool) error {
	for i, is := range list {
		switch {
		case !issuerName.MatchString(is.Name):
			return fmt.Errorf("%s[%d].name: %q is not 1 to 63 letters, digits, spaces and ._()-", field, i, clip(is.Name))
		case slices.ContainsFunc(c.issuers, func(o issuer) bool { return o.name == is.Name && o.applet == is.Applet }):
			return fmt.Errorf("%s[%d].name: %q is there twice", field, i, is.Name)
		case is.Applet != KindFIDO2 && (is.Applet != KindPIV || !test):
			return fmt.Errorf("%s[%d].applet: %q is of no applet for which there may be one", field, i, clip(is.Applet))
		}
		der, err := decode(is.Certificate, maxCertificate)
		if err != nil {
			return fmt.Errorf("%s[%d].certificate: %w", field, i, err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%s[%d].certificate: %w", field, i, err)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return fmt.Errorf("%s[%d].certificate: it is no certificate authority's", field, i)
		}
		c.issuers = append(c.issuers, issuer{name: is.Name, applet: is.Applet, certificate: cert, test: test})
	}
	return nil
}

func parseVersion(s string) (version, error) {
	var v version
	parts := strings.Split(s, ".")
	if len(parts) != len(v) {
		return version{}, fmt.Errorf("%q is not of the form 5.7.0", clip(s))
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return version{}, fmt.Errorf("%q is not of the form 5.7.0", clip(s))
		}
		v[i] = byte(n)
	}
	return v, nil
}
