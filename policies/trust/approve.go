package trust

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
)

// Bounds of a signature file, of whatever it signs. Every reader has these.
const (
	MaxSignatures     = 128       // signatures: enough for every key of a few dozen people
	MaxSignatureBytes = 256 << 10 // bytes
)

// NotApproved says that too few people signed.
type NotApproved struct {
	Have     []string // people whose signature counts
	Need     int      // people
	Rejected []string // why each other signature does not count
}

func (e *NotApproved) Error() string {
	have := "nobody"
	if len(e.Have) > 0 {
		have = strings.Join(e.Have, ", ")
	}
	text := fmt.Sprintf("signed by %d of %d people needed (%s)", len(e.Have), e.Need, have)
	if len(e.Rejected) > 0 {
		text += "; not counted: " + strings.Join(e.Rejected, "; ")
	}
	return text
}

// Refused makes a program exit with "refused by policy".
func (e *NotApproved) Refused() bool { return true }

// Approved returns the names, sorted, of the people who signed message for the namespace, and a *NotApproved error unless
// they reach the threshold. signatures is any number (up to MaxSignatures, in MaxSignatureBytes) of armored blocks in any order; one that is
// malformed, by a stranger, for something else or by somebody who already counts adds nothing and harms nothing.
func (t *Trust) Approved(namespace string, message, signatures []byte) (people []string, err error) {
	if t == nil {
		return nil, &NotApproved{Need: 1, Rejected: []string{"no trust policy"}}
	}
	return signedBy(t.Approvers, t.Threshold, "approver", namespace, message, signatures)
}

// Recovered is Approved by the recovery quorum. Only Advance asks it.
func (t *Trust) Recovered(namespace string, message, signatures []byte) (people []string, err error) {
	if t == nil {
		return nil, &NotApproved{Need: 1, Rejected: []string{"no trust policy"}}
	}
	return signedBy(t.Recovery.People, t.Recovery.Threshold, "recovery", namespace, message, signatures)
}

// signedBy counts the people of one role, each once.
func signedBy(who []Person, threshold int, role, namespace string, message, signatures []byte) (people []string, err error) {
	refuse := &NotApproved{Need: max(threshold, 1)}
	if len(signatures) > MaxSignatureBytes {
		refuse.Rejected = []string{fmt.Sprintf("signatures of %d bytes, more than %d", len(signatures), MaxSignatureBytes)}
		return nil, refuse
	}
	blocks, err := sshsig.Split(signatures, MaxSignatures)
	if err != nil {
		refuse.Rejected = []string{err.Error()}
		return nil, refuse
	}
	owners := owners(who)
	for i, block := range blocks {
		name, err := signer(owners, role, namespace, message, block)
		switch {
		case err != nil:
			refuse.Rejected = append(refuse.Rejected, fmt.Sprintf("signature %d: %v", i+1, err))
		case slices.Contains(people, name):
			refuse.Rejected = append(refuse.Rejected, fmt.Sprintf("signature %d: %s already counts", i+1, name))
		default:
			people = append(people, name)
		}
	}
	slices.Sort(people)
	// A threshold below one comes from a zero value, which trusts nobody.
	if threshold < 1 || len(people) < threshold {
		refuse.Have = people
		return nil, refuse
	}
	return people, nil
}

// signer returns the person who made one signature.
func signer(owners map[string]string, role, namespace string, message, block []byte) (string, error) {
	s, err := sshsig.Parse(block)
	if err != nil {
		return "", err
	}
	name, ok := owners[string(s.Key().Marshal())]
	if !ok {
		return "", fmt.Errorf("%s is no %s's key", ssh.FingerprintSHA256(s.Key()), role)
	}
	if err := s.Verify(namespace, message); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return name, nil
}

// owners maps each person's keys to the person.
func owners(people []Person) map[string]string {
	owners := map[string]string{}
	for _, p := range people {
		for _, line := range p.Keys {
			if key, err := ParseKey(line); err == nil && p.Name != "" {
				owners[string(key.Marshal())] = p.Name
			}
		}
	}
	return owners
}

// VerifyAny checks that signature is one armored block, made by one of the keys over message for the namespace. It is how
// tickets and server lists are checked, which a program signs and not people.
func VerifyAny(keys []string, namespace string, message, signature []byte) error {
	s, err := sshsig.Parse(signature)
	if err != nil {
		return err
	}
	for _, line := range keys {
		key, err := ParseKey(line)
		if err != nil {
			return fmt.Errorf("trusted key: %w", err)
		}
		if string(key.Marshal()) == string(s.Key().Marshal()) {
			return s.Verify(namespace, message)
		}
	}
	if len(keys) == 0 {
		return errors.New("no key is trusted for this")
	}
	return fmt.Errorf("%s is not a trusted key", ssh.FingerprintSHA256(s.Key()))
}
