package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Built is Approved by the builders: who say that they made the very same bytes again, each on a machine of their own.
func (t *Trust) Built(namespace string, message, signatures []byte) (builders []string, err error) {
	if t == nil {
		return nil, &NotApproved{Need: 1, Rejected: []string{"no trust policy"}}
	}
	if t.BuilderThreshold == 0 && t.Test && t.Fleet != "" {
		return nil, nil // a test fleet without builders asks none
	}
	return signedBy(t.Builders, t.BuilderThreshold, "builder", namespace, message, signatures)
}

// checkBuilders asks for as many builders as must sign. Nobody is a builder and an approver: a release is made by some and let run by others.
func (t *Trust) checkBuilders(owners map[string]string, met cards) error {
	if len(t.Builders) > MaxBuilders {
		return fmt.Errorf("%d builders: at most %d", len(t.Builders), MaxBuilders)
	}
	if t.BuilderThreshold < 0 || t.BuilderThreshold > len(t.Builders) || t.BuilderThreshold == 0 && len(t.Builders) > 0 {
		return fmt.Errorf("builder_threshold is %d of %d builders", t.BuilderThreshold, len(t.Builders))
	}
	if t.BuilderThreshold == 0 && !t.Test {
		return errors.New("builder_threshold is 0, and test is false")
	}
	for _, b := range t.Builders {
		if slices.ContainsFunc(t.Approvers, func(a Person) bool { return a.Name == b.Name }) {
			return fmt.Errorf("%s is a builder and an approver", b.Name)
		}
	}
	return t.checkNamed(t.Builders, "builder", owners, met)
}

// checkLedger checks what a server's boot is held against beside people's signatures.
func (t *Trust) checkLedger(owners map[string]string) error {
	if len(t.LedgerKeys) == 0 && !t.Test {
		return errors.New("ledger_keys is empty, and test is false")
	}
	if len(t.LedgerKeys) > 0 {
		if err := checkKeys(t.LedgerKeys, "ledger_keys", owners); err != nil {
			return err
		}
	}
	for i, line := range t.LedgerKeys {
		if !strings.HasPrefix(line, ssh.KeyAlgoED25519+" ") {
			return fmt.Errorf("ledger_keys, key %d: it is not of type %s", i+1, ssh.KeyAlgoED25519)
		}
	}
	if len(t.SecureBoot) > MaxSecureBoot {
		return fmt.Errorf("%d certificates in secure_boot: at most %d", len(t.SecureBoot), MaxSecureBoot)
	}
	for i, sum := range t.SecureBoot {
		if raw, err := hex.DecodeString(sum); err != nil || len(raw) != sha256.Size || sum != strings.ToLower(sum) || slices.Contains(t.SecureBoot[:i], sum) {
			return fmt.Errorf("secure_boot, certificate %d: not a SHA-256 in lower-case hex, or there twice", i+1)
		}
	}
	return nil
}
