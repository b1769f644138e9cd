// Package logins is what sshd says when it has let somebody in, and the report that is made of it. Nothing else that sshd says is of
// interest here.
//
// The line is auth_log's of OpenSSH's sshd (auth.c): "Accepted METHOD for USER from ADDRESS port N ssh2: TYPE FINGERPRINT". A name that
// a stranger chose comes in other lines, escaped by sshd, and never at the beginning of one; so the reading is anchored at both
// ends and takes nothing that has not exactly this form. A line that begins like one and is none is an error, and not silence:
// whoever looks for logins has to hear of it.
package logins

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Bounds of a line.
const (
	MaxLine = 4 << 10
	maxUser = 64
)

// Publickey is the method of a key, with its certificate or without.
const Publickey = "publickey"

const accepted = "Accepted "

var (
	method      = regexp.MustCompile(`^[a-z][a-z-]{0,31}(/[a-z][a-z0-9-]{0,31})?$`)
	user        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@-]*$`)
	keyType     = regexp.MustCompile(`^[A-Z][A-Z0-9-]{0,31}$`)
	fingerprint = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)
	certificate = regexp.MustCompile(`^ID .* \(serial [0-9]{1,20}\) CA [A-Z][A-Z0-9-]{0,31} SHA256:[A-Za-z0-9+/]{43}$`)
)

// Accepted is one login as sshd has it.
type Accepted struct {
	Method  string // "publickey", or one that servers of a fleet do not offer
	User    string
	Peer    netip.AddrPort // who connected: the bastion
	KeyType string         // as sshd abbreviates it, "ED25519-SK" for example; empty without a key
	Key     string         // SHA-256 fingerprint; of a certificate, that of its key
}

// errForm says that a line begins like a login and is none.
var errForm = errors.New("a line that begins like a login and has another form")

// Parse reads one line without its end. It returns false for any line but a login's.
func Parse(line string) (Accepted, bool, error) {
	if !strings.HasPrefix(line, accepted) {
		return Accepted{}, false, nil
	}
	a, err := parse(strings.TrimPrefix(line, accepted))
	if err != nil {
		return Accepted{}, true, fmt.Errorf("%w: %v", errForm, err)
	}
	return a, true, nil
}

func parse(rest string) (Accepted, error) {
	if len(rest) > MaxLine {
		return Accepted{}, errors.New("too long")
	}
	for _, c := range []byte(rest) {
		if c < ' ' || c > '~' {
			return Accepted{}, errors.New("not printable")
		}
	}
	w := strings.SplitN(rest, " ", 9)
	if len(w) < 8 || w[1] != "for" || w[3] != "from" || w[5] != "port" {
		return Accepted{}, errors.New("words are missing")
	}
	a := Accepted{Method: w[0], User: w[2]}
	if !method.MatchString(a.Method) {
		return Accepted{}, errors.New("no method")
	}
	if len(a.User) > maxUser || !user.MatchString(a.User) {
		return Accepted{}, errors.New("no user name")
	}
	address, err := netip.ParseAddr(w[4])
	if err != nil {
		return Accepted{}, errors.New("no address")
	}
	port, err := strconv.ParseUint(w[6], 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != w[6] {
		return Accepted{}, errors.New("no port")
	}
	a.Peer = netip.AddrPortFrom(address.Unmap(), uint16(port))
	if a.Method != Publickey {
		if w[7] != "ssh2" && w[7] != "ssh2:" {
			return Accepted{}, errors.New("no protocol")
		}
		return a, nil // what follows says who vouched, and no more is asked
	}
	if w[7] != "ssh2:" || len(w) != 9 {
		return Accepted{}, errors.New("no key")
	}
	kind, rest, ok := strings.Cut(w[8], " ")
	key, rest, more := strings.Cut(rest, " ")
	if !ok || !keyType.MatchString(kind) || !fingerprint.MatchString(key) {
		return Accepted{}, errors.New("no key")
	}
	if isCertificate := strings.HasSuffix(kind, "-CERT"); isCertificate != more || more && !certificate.MatchString(rest) {
		return Accepted{}, errors.New("no certificate")
	}
	a.KeyType, a.Key = kind, key
	return a, nil
}
