package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/canonical"
	"mayfly/internal/hint"
)

// Kind of trust.json.
const Kind = "mayfly-trust/3"

// Bounds of a trust policy.
const (
	MaxSize       = 512 << 10 // bytes of trust.json: everybody's evidence is in it
	MaxApprovers  = 64
	MaxRecovery   = 16
	MaxBuilders   = 16
	MaxSecureBoot = 16
	MaxWitnesses  = 16
	MaxKeys       = 16   // of one person, of tickets, of lists
	MaxSteps      = 4096 // of a chain: a change a day for eleven years
)

// Parse reads trust.json strictly: canonical JSON within bounds, at least two of anything that says two, no key that
// belongs to two people.
func Parse(data []byte) (*Trust, error) {
	t := new(Trust)
	err := canonical.Parse(data, MaxSize, t)
	if err == nil {
		err = t.Check()
	}
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading trust policy: %w", err), "take back the trust.json that `fleetctl init` or `fleetctl trust apply` wrote: it is not edited, every byte counts")
	}
	return t, nil
}

// Marshal returns the trust policy as canonical JSON. It refuses one that Parse would refuse.
func (t *Trust) Marshal() ([]byte, error) {
	if err := t.Check(); err != nil {
		return nil, fmt.Errorf("writing trust policy: %w", err)
	}
	data, err := canonical.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("writing trust policy: %w", err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("writing trust policy: longer than %d bytes", MaxSize)
	}
	return data, nil
}

// Check reports what makes the trust policy unusable.
func (t *Trust) Check() error {
	owners, err := t.checkPeople()
	if err != nil {
		return err
	}
	if err := checkKeys(t.TicketKeys, "ticket_keys", owners); err != nil {
		return err
	}
	if err := checkKeys(t.ListKeys, "list_keys", owners); err != nil {
		return err
	}
	return t.checkLedger(owners)
}

// CheckPeople is all of Check that needs no keys of the signer: for who is about to make those.
func (t *Trust) CheckPeople() error {
	_, err := t.checkPeople()
	return err
}

// checkPeople returns the owner of each key.
func (t *Trust) checkPeople() (map[string]string, error) {
	if t.Kind != Kind {
		return nil, fmt.Errorf("kind is %q, not %q", t.Kind, Kind)
	}
	if err := checkName(t.Fleet); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	if t.Version == 0 {
		return nil, errors.New("version is 0: versions begin at 1")
	}
	if raw, err := hex.DecodeString(t.Previous); t.Version == 1 && t.Previous != "" ||
		t.Version > 1 && (err != nil || len(raw) != sha256.Size || t.Previous != strings.ToLower(t.Previous)) {
		return nil, errors.New("previous is not the SHA-256 of the trust policy that this one follows; the first follows none")
	}
	if len(t.Approvers) == 0 || len(t.Approvers) > MaxApprovers {
		return nil, fmt.Errorf("%d approvers: there must be 1 to %d", len(t.Approvers), MaxApprovers)
	}
	if t.Threshold < 1 || t.Threshold > len(t.Approvers) {
		return nil, fmt.Errorf("threshold is %d of %d approvers", t.Threshold, len(t.Approvers))
	}
	if len(t.Hardware.TestIssuers) > 0 && !t.Test {
		return nil, errors.New("hardware: issuers of test cards, and test is false")
	}
	if err := t.Rules().Check(); err != nil { // here too where no key shows anything: they are printed, signed, and hold for the next key
		return nil, fmt.Errorf("hardware: %w", err)
	}
	owners, met := map[string]string{}, cards{}
	if err := t.checkNamed(t.Approvers, "approver", owners, met); err != nil {
		return nil, err
	}
	if err := t.checkRecovery(owners, met); err != nil {
		return nil, err
	}
	if err := t.checkBuilders(owners, met); err != nil {
		return nil, err
	}
	return owners, t.checkWitnesses(owners)
}

// checkWitnesses asks for as many witnesses as must confirm, each with keys that a service can sign with by itself. A fleet that is no
// test asks at least one: without, whoever carries the files could hold a policy back for as long as it has not expired.
func (t *Trust) checkWitnesses(owners map[string]string) error {
	if len(t.Witnesses) > MaxWitnesses {
		return fmt.Errorf("%d witnesses: at most %d", len(t.Witnesses), MaxWitnesses)
	}
	if t.WitnessThreshold < 0 || t.WitnessThreshold > len(t.Witnesses) {
		return fmt.Errorf("witness_threshold is %d of %d witnesses", t.WitnessThreshold, len(t.Witnesses))
	}
	if t.WitnessThreshold == 0 && !t.Test {
		return errors.New("witness_threshold is 0, and test is false")
	}
	names := map[string]bool{}
	for _, w := range t.Witnesses {
		if err := checkName(w.Name); err != nil {
			return fmt.Errorf("witness: %w", err)
		}
		if names[w.Name] {
			return fmt.Errorf("witness %q is there twice", w.Name)
		}
		names[w.Name] = true
		if err := checkKeys(w.Keys, "witness "+w.Name, owners); err != nil {
			return err
		}
		if len(w.Shown) > 0 {
			return fmt.Errorf("witness %s: a witness's key is in no hardware, and shows nothing", w.Name)
		}
		for i, line := range w.Keys {
			if !strings.HasPrefix(line, ssh.KeyAlgoED25519+" ") {
				return fmt.Errorf("witness %s, key %d: it is not of type %s", w.Name, i+1, ssh.KeyAlgoED25519)
			}
		}
	}
	return nil
}

// Witness returns the witness that a key (authorized_keys form) belongs to.
func (t *Trust) Witness(key string) (name string, ok bool) {
	for _, w := range t.Witnesses {
		if slices.Contains(w.Keys, key) {
			return w.Name, w.Name != ""
		}
	}
	return "", false
}

// checkKeys asks for 1 to MaxKeys keys in their one form, none of which has an owner yet.
func checkKeys(keys []string, owner string, owners map[string]string) error {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return fmt.Errorf("%s has %d keys: there must be 1 to %d", owner, len(keys), MaxKeys)
	}
	for i, line := range keys {
		key, err := ParseKey(line)
		if err != nil {
			return fmt.Errorf("%s, key %d: %w", owner, i+1, err)
		}
		id := string(key.Marshal())
		if other, ok := owners[id]; ok {
			return fmt.Errorf("%s, key %d: the key is also %s's", owner, i+1, other)
		}
		owners[id] = owner
	}
	return nil
}

// ParseKey reads a public key in the one form that is accepted: "TYPE BASE64", without options or comment.
func ParseKey(line string) (ssh.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, errors.New("not a public key")
	}
	if FormatKey(key) != line {
		return nil, errors.New("not in the form \"TYPE BASE64\", without options and comment")
	}
	return key, nil
}

// FormatKey writes a public key as "TYPE BASE64".
func FormatKey(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// checkName asks for a name that a challenge can have: whoever is named here is to enrol a key.
func checkName(name string) error {
	if !hardkey.IsName(name) {
		return fmt.Errorf("name %.80q: %s", name, hardkey.NameRule)
	}
	return nil
}
