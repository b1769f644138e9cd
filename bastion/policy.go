package bastion

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
	"golang.org/x/net/bpf"

	"mayfly/bastion/listen"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/policies/witness"
)

// ruling is everything that follows from one policy bundle and one host certificate. It never changes; a new one replaces it.
type ruling struct {
	bundle *bundle.Bundle
	limits policies.Limits
	keys   *hostKeys
	ssh    *ssh.ServerConfig
	filter []bpf.RawInstruction
	fresh  *confirmation // of this bundle by witnesses, set by load and next; without one nobody gets in

	recipients []age.Recipient // of recordings; none without a session mode

	rejected []policies.Rejected // enrolled keys that let nobody in, verified with the bundle

	statements policies.Statements // beside the policy, verified; replaced by take and takeStatements alone
}

// rule derives a ruling, and refuses what cannot be served safely.
func rule(b *bundle.Bundle, keys *hostKeys) (*ruling, error) {
	config, err := baseConfig(b.Policy, keys)
	if err != nil {
		return nil, err
	}
	filter, err := listen.Filter(slices.Concat(b.Policy.SSH.Allow, b.Policy.SSH.Proxies))
	if err != nil {
		return nil, hint.New(err, "shorten ssh.allow: wider prefixes take fewer instructions")
	}
	recipients, err := sessionRecipients(b)
	if err != nil {
		return nil, err
	}
	return &ruling{bundle: b, limits: b.Policy.Limits(), keys: keys, ssh: config, filter: filter, recipients: recipients, rejected: b.Policy.Rejected()}, nil
}

// load reads trust, bundle, host key and certificate from the configured files.
func load(c Config, after seenPolicy, now time.Time) (*ruling, error) {
	b, fresh, err := loadFresh(c, after, nil, now)
	if err != nil {
		return nil, err
	}
	keys, err := loadHostKeys(c.HostKey, c.HostCertificate, now)
	if err != nil {
		return nil, err
	}
	if err := keys.suits(b); err != nil {
		return nil, hint.New(fmt.Errorf("host certificate %s: %w", c.HostCertificate, err), certifyHint)
	}
	r, err := rule(b, keys)
	if err != nil {
		return nil, err
	}
	r.fresh = fresh
	return r, nil
}

// loadBundle opens the bundle, whether it is the newest or not. Nobody is let in by it.
func loadBundle(c Config, after seenPolicy, now time.Time) (*bundle.Bundle, error) {
	place := c.trustPlace()
	place.seen = "" // for who cannot read the audit log's directory
	b, _, _, err := openBundle(c, place, after, now)
	return b, err
}

// loadFresh opens the bundle and has it confirmed by witnesses, unless it is the very file that they were asked about before.
func loadFresh(c Config, after seenPolicy, before *confirmation, now time.Time) (*bundle.Bundle, *confirmation, error) {
	b, t, sum, err := openBundle(c, c.trustPlace(), after, now)
	if err != nil {
		return nil, before.distrusted(t, err), err
	}
	if err := c.checkPlugins(b.Policy); err != nil {
		return nil, nil, fmt.Errorf("policy bundle %s: %w", c.Bundle, err)
	}
	if before != nil && before.broken == "" && before.sum == sum && reflect.DeepEqual(before.trust, t) {
		return b, before, nil
	}
	fresh, err := newConfirmation(t, c.Witnesses, b.Version, sum, b.Policy.WitnessGrace(), now)
	if err != nil {
		return nil, nil, fmt.Errorf("policy bundle %s: %w", c.Bundle, err)
	}
	return b, fresh, nil
}

// openBundle returns the signed bundle, by whose signatures it is believed, and its hash; by whose it would be, if it is not.
func openBundle(c Config, place trustPlace, after seenPolicy, now time.Time) (*bundle.Bundle, *trust.Trust, string, error) {
	t, _, err := place.load()
	if err != nil {
		return nil, nil, "", err
	}
	data, err := durable.ReadFile(c.Bundle, bundle.MaxSize)
	if err != nil {
		return nil, t, "", hint.New(fmt.Errorf("reading policy bundle: %w", err), "%s",
			readHint(err, c.Bundle, "fleetctl policy bundle makes it, fleetctl policy sign signs it"))
	}
	signatures, err := durable.ReadFile(c.Bundle+".sig", trust.MaxSignatureBytes)
	if errors.Is(err, fs.ErrNotExist) {
		signatures, err = nil, nil // unsigned, as Open will say
	}
	if err != nil {
		return nil, t, "", hint.New(fmt.Errorf("reading policy bundle's signatures: %w", err), "%s", readHint(err, c.Bundle+".sig", "fleetctl policy sign makes it"))
	}
	b, err := bundle.Open(t, data, signatures, now, after.version)
	if err == nil {
		err = after.same(b.Version, witness.Sum(data))
	}
	if err != nil && signatures == nil {
		return nil, t, "", hint.New(fmt.Errorf("opening policy bundle %s: %w: there is no %s.sig", c.Bundle, err, c.Bundle),
			"copy the .sig as well, beside the bundle; fleetctl policy sign makes it")
	}
	if err != nil {
		return nil, t, "", hint.New(fmt.Errorf("opening policy bundle %s: %w", c.Bundle, err), "%s", bundleHint(err))
	}
	return b, t, witness.Sum(data), nil
}

func bundleHint(err error) string {
	var refusal *bundle.Refusal
	if !errors.As(err, &refusal) {
		return "fleetctl policy check says what is wrong"
	}
	switch refusal.Reason {
	case bundle.Unsigned:
		var few *trust.NotApproved
		if errors.As(err, &few) && len(few.Rejected) > 0 {
			return "fleetctl policy sign --key FILE adds an approver's signature; a signature that does not count is a stranger's, or of other bytes: copy the bundle and its .sig once more, both and unchanged"
		}
		return "fleetctl policy sign --key FILE adds an approver's signature"
	case bundle.Expired:
		return "raise the policy's version and expiry, make a new bundle and have it signed"
	case witness.Forked:
		return witnessHint(witness.Forked)
	case bundle.Older:
		return "a newer policy was in force here; raise the version above it and have it signed again"
	}
	return "fleetctl policy check says what is wrong"
}

// seenPolicy is the newest policy that was in force. Its zero value is none.
type seenPolicy struct {
	version uint64
	sum     string     // of the bundle's file; empty: not known
	trust   chain.Seen // written, and read where the trust policy is loaded
}

// same refuses another file of the version that was in force: two were signed, and this one may be for somebody else's eyes. Witnesses say so
// as well, where there are any.
func (s seenPolicy) same(version uint64, sum string) error {
	if version != s.version || s.sum == "" || sum == s.sum {
		return nil
	}
	return &bundle.Refusal{Reason: witness.Forked, Err: fmt.Errorf("version %d was in force with sha256 %s, and this file of it has %s", version, s.sum, sum)}
}

// versionFile remembers the newest policy that was in force, so that a restart cannot go back, or aside.
func versionFile(c Config) string { return filepath.Join(c.Audit, "policy_version") }

func seenVersion(c Config) (seenPolicy, error) {
	data, err := durable.ReadFile(versionFile(c), 128)
	if errors.Is(err, fs.ErrNotExist) {
		return seenPolicy{}, nil
	}
	if err != nil {
		return seenPolicy{}, fmt.Errorf("reading the newest policy version seen: %w", err)
	}
	number, sum, hashed := strings.Cut(strings.TrimSpace(string(data)), " ") // there was no hash once
	version, err := strconv.ParseUint(number, 10, 64)
	if raw, hexErr := hex.DecodeString(sum); err == nil && hashed && (hexErr != nil || len(raw) != sha256.Size) {
		err = errors.New("no hash follows the version")
	}
	if err != nil {
		return seenPolicy{}, fmt.Errorf("reading the newest policy version seen: %s: %w", versionFile(c), err)
	}
	return seenPolicy{version: version, sum: sum}, nil
}

func rememberVersion(c Config, p seenPolicy) error {
	if p.trust.Version > 0 {
		if err := p.trust.Remember(c.trustPlace().seen); err != nil {
			return err
		}
	}
	return durable.WriteFile(versionFile(c), []byte(strings.TrimSpace(fmt.Sprintf("%d %s", p.version, p.sum))+"\n"), 0o600)
}

// seen is what is remembered of a ruling.
func (r *ruling) seen() seenPolicy {
	p := seenPolicy{version: r.bundle.Version, trust: r.fresh.seenTrust()}
	if r.fresh != nil {
		p.sum = r.fresh.sum
	}
	return p
}

// stamp is how a change of files is noticed.
type stamp [5]fileStamp

type fileStamp struct {
	size    int64
	at      time.Time
	inode   uint64
	changed int64 // of the inode, nanoseconds: a mend by chmod or chown shows nowhere else
}

func stampFrom(info fs.FileInfo) fileStamp {
	s := fileStamp{size: info.Size(), at: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = stat.Ino // a file that was moved into place may have an old date
		s.changed = stat.Ctim.Nano()
	}
	return s
}

// unread tells whether a file is there and could not be read: for want of permission, of descriptors, or because of the disk. It may be
// readable later although nothing of it changes.
func unread(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ELOOP) // a link is refused, whoever asks
}

// readHint says what lets this process read a file; otherwise is for all that is not a question of permission.
func readHint(err error, path, otherwise string) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("the bastion runs as user %d and has to read it: chmod 644 %s, and the directories above need mode 755 or this user's group", os.Geteuid(), path)
	case unread(err):
		return "it is there and could not be read; it is tried again every " + retryFresh.String()
	}
	return otherwise
}

func (c Config) stamp() stamp {
	var s stamp
	for i, path := range []string{c.Bundle, c.Bundle + ".sig", c.HostCertificate, c.HostKey} {
		if info, err := os.Stat(path); err == nil {
			s[i] = stampFrom(info)
		}
	}
	s[4] = c.trustPlace().stamp()
	return s
}

// policyRecord says which policy is in force, or why a new one is not.
type policyRecord struct {
	Outcome            string    `json:"outcome"` // "in_force" or "kept_old"
	Version            uint64    `json:"version"` // in force
	Expires            time.Time `json:"expires"`
	Level              string    `json:"level"`
	CertificateExpires time.Time `json:"host_certificate_expires"`
	Cut                int       `json:"cut"`                     // sessions and targets that ended by it
	Rejected           int       `json:"rejected_keys,omitempty"` // enrolled, and their evidence is not accepted
	Detail             string    `json:"detail,omitempty"`
}

func (r *ruling) record(outcome string) policyRecord {
	return policyRecord{Outcome: outcome, Version: r.bundle.Version, Expires: r.bundle.Expires.UTC(),
		Level: string(r.bundle.Policy.SSH.Level), CertificateExpires: r.keys.validBefore().UTC(), Rejected: len(r.rejected)}
}

// warnKeys says which enrolled keys let nobody in, with the reason that their owners do not hear.
func (s *Server) warnKeys(r *ruling) {
	for i, k := range r.rejected {
		if i == maxWarnings {
			s.log.Warn("more enrolled keys let nobody in", "keys", len(r.rejected)-i)
			return
		}
		s.log.Warn("an enrolled key lets nobody in", "user", k.Name, "key", k.Fingerprint, "reason", k.Reason, "detail", k.Detail)
	}
}

// maxWarnings about keys of one policy in the process's own log.
const maxWarnings = 32
