package signer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/hint"
)

// States of a CA of SSH host certificates, in the order in which it passes them. One is current; at most one is next.
const (
	CANext     = "next"     // published, so that clients know it before it signs
	CACurrent  = "current"  // signs
	CARetiring = "retiring" // signs no more; what it signed is still believed
	CARetired  = "retired"  // its key is deleted here, and revoked in known_hosts
)

// Bounds of the list of CAs.
const (
	hostCAsKind    = "mayfly-host-cas/1"
	maxHostCAsFile = 64 << 10
	maxRetiredCAs  = 32 // older ones are forgotten: what they signed ended long ago, and nothing names them any more
)

// HostCA is one CA of SSH host certificates.
type HostCA struct {
	Key   string    `json:"key"`   // authorized_keys form
	File  string    `json:"file"`  // of its private key, below DIR/signer; empty once it is retired
	State string    `json:"state"` // one of the constants above
	Since time.Time `json:"since"` // of the state
}

// Fingerprint is the key's SHA-256 as ssh shows it.
func (c HostCA) Fingerprint() string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.Key))
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

// HostCAs are the CAs of a fleet's SSH host certificates, oldest first.
type HostCAs struct {
	Kind string   `json:"kind"`
	CAs  []HostCA `json:"cas"`
}

// ParseHostCAs reads the list in canonical form.
func ParseHostCAs(data []byte) (HostCAs, error) {
	var l HostCAs
	if err := canonical.Parse(data, maxHostCAsFile, &l); err != nil {
		return HostCAs{}, err
	}
	return l, l.check()
}

func (l HostCAs) check() error {
	if l.Kind != hostCAsKind {
		return fmt.Errorf("kind %q, want %q", l.Kind, hostCAsKind)
	}
	count := map[string]int{}
	seen := map[string]bool{}
	for _, c := range l.CAs {
		key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(c.Key))
		if err != nil || len(rest) > 0 || key.Type() != ssh.KeyAlgoED25519 {
			return errors.New("a CA's key is not one Ed25519 key")
		}
		if seen[c.Key] {
			return fmt.Errorf("CA %s is listed twice", c.Fingerprint())
		}
		seen[c.Key] = true
		count[c.State]++
		if !slices.Contains([]string{CANext, CACurrent, CARetiring, CARetired}, c.State) || (c.File == "") != (c.State == CARetired) {
			return fmt.Errorf("CA %s has state %q and file %q", c.Fingerprint(), c.State, c.File)
		}
	}
	if count[CACurrent] != 1 || count[CANext] > 1 {
		return fmt.Errorf("%d current and %d next CAs", count[CACurrent], count[CANext])
	}
	return nil
}

// Find returns the place of the CA in this state, or -1.
func (l HostCAs) Find(state string) int {
	return slices.IndexFunc(l.CAs, func(c HostCA) bool { return c.State == state })
}

// Current is the CA that signs.
func (l HostCAs) Current() HostCA { return l.CAs[l.Find(CACurrent)] }

func (l HostCAs) clone() HostCAs { return HostCAs{Kind: l.Kind, CAs: slices.Clone(l.CAs)} }

// withNext is the list with one more CA, which is published and does not sign yet.
func (l HostCAs) withNext(key, file string, now time.Time) (HostCAs, error) {
	if l.Find(CANext) >= 0 {
		return HostCAs{}, errors.New("there is a next CA already")
	}
	n := l.clone()
	n.CAs = append(n.CAs, HostCA{Key: key, File: file, State: CANext, Since: moment(now)})
	return n, n.check()
}

// CARefusal says why the CAs stay as they are.
type CARefusal struct{ Text string }

func (r *CARefusal) Error() string { return r.Text }

// Refused makes a program end with the exit code of a refusal.
func (r *CARefusal) Refused() bool { return true }

func refuseCA(mend, format string, args ...any) error {
	return hint.New(&CARefusal{fmt.Sprintf(format, args...)}, "%s", mend)
}

// used is the list in which the next CA signs, once it has been public for the overlap.
func (l HostCAs) used(now time.Time, overlap time.Duration) (HostCAs, error) {
	i := l.Find(CANext)
	if i < 0 {
		return HostCAs{}, refuseCA("`fleetctl ca rotate` makes one", "there is no next CA")
	}
	if age := now.Sub(l.CAs[i].Since); age < overlap {
		return HostCAs{}, refuseCA("engineers need a known_hosts that names it first; ask again later, or give --overlap",
			"the next CA %s has been public for %s, want %s", l.CAs[i].Fingerprint(), age.Round(time.Second), overlap)
	}
	n := l.clone()
	old := n.Find(CACurrent)
	n.CAs[old].State, n.CAs[old].Since = CARetiring, moment(now)
	n.CAs[i].State, n.CAs[i].Since = CACurrent, moment(now)
	return n, n.check()
}

// retired is the list in which this CA is believed no more. Unless its key is in other hands, it has to have stopped signing
// for as long as what it signed lasts: otherwise hosts would be refused that are what they say.
func (l HostCAs) retired(fingerprint string, compromised bool, now time.Time) (HostCAs, error) {
	i := slices.IndexFunc(l.CAs, func(c HostCA) bool { return c.Fingerprint() == fingerprint })
	if i < 0 {
		return HostCAs{}, hint.New(fmt.Errorf("no CA has the fingerprint %q", fingerprint), "`fleetctl ca list` shows them")
	}
	n := l.clone()
	switch c := &n.CAs[i]; {
	case c.State == CARetired:
		return n, nil
	case c.State == CACurrent && compromised:
		next := n.Find(CANext)
		if next < 0 {
			return HostCAs{}, refuseCA("`fleetctl ca rotate` makes the next one", "the CA %s signs, and there is no next one", fingerprint)
		}
		n.CAs[next].State, n.CAs[next].Since = CACurrent, moment(now)
	case c.State == CACurrent:
		return HostCAs{}, refuseCA("`fleetctl ca rotate` lets the next one sign; --compromised if its key is in other hands", "the CA %s signs", fingerprint)
	case c.State == CARetiring && !compromised && now.Sub(c.Since) < MaxHostLife:
		return HostCAs{}, refuseCA("ask again when they have ended; --compromised if its key is in other hands",
			"certificates by the CA %s are valid until %s", fingerprint, c.Since.Add(MaxHostLife).Format(time.RFC3339))
	}
	n.CAs[i].State, n.CAs[i].File, n.CAs[i].Since = CARetired, "", moment(now)
	for retired := 0; ; retired = 0 {
		for _, c := range n.CAs {
			if c.State == CARetired {
				retired++
			}
		}
		if retired <= maxRetiredCAs {
			return n, n.check()
		}
		oldest := n.Find(CARetired)
		n.CAs = slices.Delete(n.CAs, oldest, oldest+1)
	}
}

func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
