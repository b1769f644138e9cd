package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

// approval is a file with its detached signatures, as far as it has come.
type approval struct {
	people []string // who has signed
	person string   // who signed now
}

// approve adds one person's signature over the exact bytes of the file at path. The caller has checked what they say. A second
// signature of the same person is refused: thresholds count people.
func approve(t *trust.Trust, namespace, path string, data []byte, keyFile string) (approval, error) {
	s, err := loadSigner(keyFile, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return approval{}, err
	}
	person, ok := owner(t, s.PublicKey())
	if !ok {
		role := "approver"
		if namespace == release.BuildNamespace {
			role = "builder"
		}
		return approval{}, command.Refuse(hint.New(fmt.Errorf("%s is no %s's key", ssh.FingerprintSHA256(s.PublicKey()), role),
			"the %ss are %s; the trust policy names them", role, strings.Join(names(t), ", ")))
	}
	if _, _, err := present(t, namespace, path, data, person); err != nil {
		return approval{}, err
	}
	block, err := sshsig.Sign(s, namespace, data) // may wait for a touch: nobody else has to wait for that
	if err != nil {
		return approval{}, fmt.Errorf("signing %s: %w", path, err)
	}
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return approval{}, err
	}
	a, err := add(t, namespace, path, data, person, block)
	return a, errors.Join(err, unlock())
}

// add puts a signature to those that are there now: others may have signed since this one was begun. The caller holds the directory.
func add(t *trust.Trust, namespace, path string, data []byte, person string, block []byte) (approval, error) {
	if now, err := read(path, "somebody has removed it"); err != nil || !bytes.Equal(now, data) {
		return approval{}, hint.New(errors.Join(fmt.Errorf("%s has changed while it was being signed", path), err), "look at it and sign it again")
	}
	sigs, people, err := present(t, namespace, path, data, person)
	if err != nil {
		return approval{}, err
	}
	if len(people) == 0 && !signsFor(data, sigs, release.Namespace, release.BuildNamespace) {
		sigs = nil // signatures over other bytes, of an older file with this name
	}
	if len(sigs) > 0 && !bytes.HasSuffix(sigs, []byte("\n")) {
		sigs = append(sigs, '\n')
	}
	sigs = append(sigs, block...)
	if people, err = signedBy(t, namespace, data, sigs); err != nil {
		return approval{}, err
	}
	if !slices.Contains(people, person) {
		return approval{}, errors.New("the signature that was just made does not verify")
	}
	return approval{people, person}, durable.WriteFile(signatures(path), sigs, 0o644)
}

// signsFor reports whether any signature is over the data for one of these purposes, whoever made it: builders and approvers share a file.
func signsFor(data, sigs []byte, namespaces ...string) bool {
	blocks, err := sshsig.Split(sigs, trust.MaxSignatures)
	return err == nil && slices.ContainsFunc(blocks, func(block []byte) bool {
		s, err := sshsig.Parse(block)
		return err == nil && slices.ContainsFunc(namespaces, func(n string) bool { return s.Verify(n, data) == nil })
	})
}

// alreadySigned is a person's second signature over the same bytes.
type alreadySigned struct {
	person, path string
	people       []string // all who have signed
}

func (e *alreadySigned) Error() string {
	return fmt.Sprintf("%s has signed %s already", e.person, e.path)
}

// present reads the signatures that are there, and refuses where the person's is among them.
func present(t *trust.Trust, namespace, path string, data []byte, person string) (sigs []byte, people []string, err error) {
	if sigs, err = readSignatures(path); err != nil {
		return nil, nil, err
	}
	if people, err = signedBy(t, namespace, data, sigs); err != nil {
		return nil, nil, err
	}
	if slices.Contains(people, person) {
		return nil, nil, command.Refuse(hint.New(&alreadySigned{person, path, people},
			"the threshold counts people: %d of %s", t.Threshold, strings.Join(names(t), ", ")))
	}
	return sigs, people, nil
}

// lockDirectory waits until nobody else changes what people sign in a directory. The kernel gives the lock back when the process ends.
func lockDirectory(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	return f.Close, nil
}

// signedBy returns who has signed, whether that is enough or not.
func signedBy(t *trust.Trust, namespace string, data, sigs []byte) ([]string, error) {
	people, err := t.Approved(namespace, data, sigs)
	var few *trust.NotApproved
	if errors.As(err, &few) {
		return few.Have, nil
	}
	return people, err
}

// owner is the approver that a key belongs to.
func owner(t *trust.Trust, key ssh.PublicKey) (string, bool) {
	line := trust.FormatKey(key)
	for _, p := range t.Approvers {
		if slices.Contains(p.Keys, line) {
			return p.Name, true
		}
	}
	return "", false
}

func names(t *trust.Trust) []string {
	var n []string
	for _, p := range t.Approvers {
		n = append(n, p.Name)
	}
	return n
}

// report says how far an approval has come.
func (a approval) report(c *command.Call, t *trust.Trust, path string) {
	people := strings.Join(a.people, ", ")
	if people == "" {
		people = "nobody"
	}
	fmt.Fprintf(c.Stdout, "%s: signed by %s (%d of %d people)\n", path, people, len(a.people), t.Threshold)
	if t.Test {
		fmt.Fprintln(c.Stderr, "fleetctl: warning: TEST FLEET: software keys count")
	}
	if missing := t.Threshold - len(a.people); missing > 0 {
		fmt.Fprintf(c.Stderr, "fleetctl: next: %d more people sign it\n", missing)
	}
}
