package policies

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Bounds of [hardware] and of what is shown for a key.
const (
	maxSlots       = 32
	maxPINPolicies = 8
	maxSerials     = 4096
	maxAAGUIDs     = 256
	maxRevoked     = 4096
	maxIssuers     = 16
	maxAttestation = 4       // certificates or files of one key
	maxShown       = 8 << 10 // characters of each, and of a signature
)

var (
	issuerName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._()-]{0,62}$`)
	fingerprint = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)
)

// hardwareMends are hints for what package hardkey says of a value in [hardware].
var hardwareMends = map[string]string{
	"slots":        `"9a" and the retired slots "82" to "95" are the default`,
	"pin_policies": "once, always, match_once, match_always are the default",
	"min_firmware": `for example min_firmware = "5.7.0"`,
	"aaguids":      `for example "d8522d9f-575b-4866-88a9-ba99fa02f35b", in small letters`,
	"name":         "each issuer once",
	"applet":       `applet = "fido2", or "piv" for a test issuer`,
	"certificate":  "openssl x509 -in FILE -outform DER | base64 -w0",
}

func (p Policy) checkHardware() error {
	h := p.Hardware
	if len(h.TestRoots) > maxRoots {
		return tomlfile.At("hardware.test_roots", "remove those that are not used", "%d test roots: at most %d", len(h.TestRoots), maxRoots)
	}
	for i, r := range h.TestRoots {
		path := at("hardware.test_roots", i)
		if !word.MatchString(r) {
			return tomlfile.At(path, `for example test_roots = ["softkey"]`, "test root %q is no lower-case word", r)
		}
		if slices.Contains(h.TestRoots[:i], r) {
			return tomlfile.At(path, "each root once", "test root %q is there twice", r)
		}
	}
	for _, l := range []struct {
		key        string
		list       []string
		max        int
		mayBeEmpty bool
	}{{"slots", h.Slots, maxSlots, false}, {"pin_policies", h.PINPolicies, maxPINPolicies, false}, {"aaguids", h.AAGUIDs, maxAAGUIDs, true}, {"revoked", h.Revoked, maxRevoked, true}} {
		path := "hardware." + l.key
		if l.list != nil && len(l.list) == 0 && !l.mayBeEmpty {
			return tomlfile.At(path, "leave it out for the default", "%s is empty, which would mean the default", path)
		}
		if len(l.list) > l.max {
			return tomlfile.At(path, "remove those that are not used", "%s has %d: at most %d", path, len(l.list), l.max)
		}
		for i, s := range l.list {
			if slices.Contains(l.list[:i], s) {
				return tomlfile.At(at(path, i), "each once", "%s has %q twice", path, s)
			}
		}
	}
	for i, s := range h.Revoked {
		if !fingerprint.MatchString(s) {
			return tomlfile.At(at("hardware.revoked", i), `as ssh-keygen -l prints it: "SHA256:…"`, "hardware.revoked has %q, which is no fingerprint", s)
		}
	}
	if err := h.checkSerials(); err != nil {
		return err
	}
	if err := checkIssuers("hardware.fido2_issuer", h.FIDO2Issuers); err != nil {
		return err
	}
	if err := checkIssuers("hardware.test_issuer", h.TestIssuers); err != nil {
		return err
	}
	// What the values have to be, package hardkey knows: with rules that it could not apply it would reject every key.
	if err := p.rules(inventory.Fleet{}).Check(); err != nil {
		field, _, _ := strings.Cut(err.Error(), ":")
		key, _, _ := strings.Cut(field[strings.LastIndexByte(field, '.')+1:], "[")
		return tomlfile.At("hardware."+field, hardwareMends[key], "hardware.%v", err)
	}
	return nil
}

func (h Hardware) checkSerials() error {
	if h.SerialsAllow != nil && len(h.SerialsAllow) == 0 {
		return tomlfile.At("hardware.serials_allow", "leave it out for any serial number", "hardware.serials_allow is empty, which would mean any serial number")
	}
	for _, l := range []struct {
		key  string
		list []uint32
	}{{"serials_allow", h.SerialsAllow}, {"serials_deny", h.SerialsDeny}} {
		path := "hardware." + l.key
		if len(l.list) > maxSerials {
			return tomlfile.At(path, "remove those that are not used", "%s has %d: at most %d", path, len(l.list), maxSerials)
		}
		for i, n := range l.list {
			switch {
			case n == 0:
				return tomlfile.At(at(path, i), "as it is printed on the card", "%s has 0, which is no serial number", path)
			case slices.Contains(l.list[:i], n):
				return tomlfile.At(at(path, i), "each once", "%s has %d twice", path, n)
			}
		}
	}
	for i, n := range h.SerialsDeny {
		if slices.Contains(h.SerialsAllow, n) {
			return tomlfile.At(at("hardware.serials_deny", i), "take it from one of the lists", "%d is in serials_allow as well", n)
		}
	}
	return nil
}

// checkIssuers asks that there are not too many, each by a name that may stand in records.
func checkIssuers(path string, list []hardkey.Issuer) error {
	if len(list) > maxIssuers {
		return tomlfile.At(path, "remove those that are not used", "%d issuers: at most %d", len(list), maxIssuers)
	}
	for i, issuer := range list {
		if !issuerName.MatchString(issuer.Name) {
			return tomlfile.At(at(path, i)+".name", "letters, digits, spaces and hyphens: it stands in records", "issuer name %q is no name", issuer.Name)
		}
	}
	return nil
}

// checkKey asks that an enrolled key is one, of a type that its evidence can be about, and nobody else's. Whether real evidence is
// accepted is not decided here: a key whose evidence is rejected keeps its owner out, and no policy from loading.
func (p Policy) checkKey(path, engineer string, k Key, owners map[string]string) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Public))
	if err != nil {
		return tomlfile.At(path+".public", `the first two words of the .pub file: "sk-ssh-ed25519@openssh.com AAAA…"`, "key of %q is no public key", engineer)
	}
	switch {
	case slices.Contains(k.types(), key.Type()):
	case k.Evidence == hardkey.KindPIV:
		return tomlfile.At(path+".public", "a card's key is of type "+strings.Join(cardKeyTypes, ", "), "key of %q is of type %s, which no PIV card has that is accepted here", engineer, key.Type())
	default:
		return tomlfile.At(path+".public", "make one with ssh-keygen -t ed25519-sk, or on a PIV card with bastion-agent setup", "key of %q is of type %s, which any software can hold", engineer, key.Type())
	}
	if a, err := p.SSH.Algorithms(); err == nil && !slices.Contains(a.PublicKeys, key.Type()) {
		return tomlfile.At(path+".public", "enrol a key of another type, or add the type to ssh.user_keys", "key of %q is of type %s, which ssh.user_keys does not have", engineer, key.Type())
	}
	if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) != k.Public {
		return tomlfile.At(path+".public", "the first two words of the .pub file, without options and comment", "key of %q is not in the form \"TYPE BASE64\"", engineer)
	}
	if other, ok := owners[k.Public]; ok {
		return tomlfile.At(path+".public", "each key belongs to one person, once", "key of %q is there twice, first as a key of %q", engineer, other)
	}
	if slices.Contains(p.Hardware.Revoked, ssh.FingerprintSHA256(key)) {
		return tomlfile.At(path+".public", "take the key away, or its fingerprint from hardware.revoked", "key of %q is in hardware.revoked", engineer)
	}
	owners[k.Public] = engineer
	return p.checkEvidence(path, engineer, k)
}

func (p Policy) checkEvidence(path, engineer string, k Key) error {
	switch k.kind() {
	case KindTest:
		proof, v := p.Proof(engineer, k)
		if !v.Allow {
			break
		}
		if k.Challenge != "" || len(k.Attestation) > 0 || k.Signature != "" {
			return tomlfile.At(path, "take them away: a test root needs none", "key of %q has evidence %q, and challenge, attestation or signature beside it", engineer, k.Evidence)
		}
		if p.SSH.VerifyRequired && !proof.UserVerification {
			return tomlfile.At(path+".evidence", "enrol a key that was made with -O verify-required, or take verify_required away", "key of %q has evidence %q, which does not prove user verification, and ssh.verify_required asks for it", engineer, k.Evidence)
		}
		return nil
	case hardkey.KindPIV, hardkey.KindFIDO2:
		if len(k.Attestation) > maxAttestation {
			return tomlfile.At(path+".attestation", "as fleetctl key add writes it", "key of %q has %d attestations: at most %d", engineer, len(k.Attestation), maxAttestation)
		}
		for _, text := range append(slices.Clone(k.Attestation), k.Challenge, k.Signature) {
			if len(text) > maxShown || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				return tomlfile.At(path, "as fleetctl key add writes it", "key of %q: challenge, attestation and signature are lines of printable ASCII, of at most %d characters", engineer, maxShown)
			}
		}
		return nil
	}
	return tomlfile.At(path+".evidence", `"piv" or "fido2", as fleetctl key add writes it; in a test fleet also "test:ROOT" with ROOT in hardware.test_roots`, "key of %q has evidence %q, which is not accepted", engineer, k.Evidence)
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
