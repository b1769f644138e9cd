package policies

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Session is the session mode: the bastion itself logs in at servers, by certificates of a session authority that they trust, and records
// what is shown. Who takes over the bastion then opens those servers. It is off where no authority is named.
type Session struct {
	Record     bool     `toml:"record" json:"record"`         // has to be said, so that nobody is recorded by surprise
	Recipients []string `toml:"recipients" json:"recipients"` // age recipients ("age1…"), any of whom can read a recording
	Authority  string   `toml:"authority" json:"authority"`   // "ssh-ed25519 BASE64": whose certificates servers take
}

const (
	maxRecipients   = 16
	recipientPrefix = "age1"
	authorityType   = "ssh-ed25519"
)

// On reports whether there is a session mode.
func (s Session) On() bool { return s.Authority != "" && s.Record && len(s.Recipients) > 0 }

func (p Policy) checkSession() error {
	s := p.Session
	if s.Authority == "" && !s.Record && len(s.Recipients) == 0 {
		for i, g := range p.Grants {
			if g.Session {
				return tomlfile.At(fmt.Sprintf("grant[%d].session", i), "add [session], or leave it out", "grant %d is for sessions, and the policy has no [session]", i+1)
			}
		}
		return nil
	}
	switch {
	case !s.Record:
		return tomlfile.At("session.record", "record = true, or remove [session]", "session mode without record = true: there is none that is not recorded")
	case len(s.Recipients) == 0:
		return tomlfile.At("session.recipients", `recipients = ["age1…"]: whoever may read recordings; age-keygen makes one`, "recordings without a recipient")
	case len(s.Recipients) > maxRecipients:
		return tomlfile.At("session.recipients", "share a key among some of them", "%d recipients: at most %d", len(s.Recipients), maxRecipients)
	case !authorityKey(s.Authority):
		return tomlfile.At("session.authority", `authority = "ssh-ed25519 BASE64": the public half of the bastion's session CA`, "session.authority %q is no Ed25519 public key", s.Authority)
	}
	for i, r := range s.Recipients {
		at := tomlfile.At(fmt.Sprintf("session.recipients[%d]", i), `"age1…", as age-keygen prints it`, "recipient %q is no age recipient", r)
		if !strings.HasPrefix(r, recipientPrefix) || len(r) > 4096 || strings.ContainsFunc(r, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') }) {
			return at
		}
		if slices.Contains(s.Recipients[:i], r) {
			return tomlfile.At(fmt.Sprintf("session.recipients[%d]", i), "each once", "recipient %q is there twice", r)
		}
	}
	for i, g := range p.Grants {
		if g.Session && !slices.Equal(g.Ports, []uint16{inventory.PortSSH}) {
			return tomlfile.At(fmt.Sprintf("grant[%d].ports", i), "ports = [22]", "grant %d is for sessions: they go to port %d only", i+1, inventory.PortSSH)
		}
	}
	return nil
}

// authorityKey reports whether the text is one Ed25519 public key without options and comment.
func authorityKey(text string) bool {
	kind, encoded, ok := strings.Cut(text, " ")
	if !ok || kind != authorityType {
		return false
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || base64.StdEncoding.EncodeToString(blob) != encoded {
		return false
	}
	// string "ssh-ed25519", string key (RFC 8709, section 4)
	return len(blob) == 4+len(authorityType)+4+32 && int(binary.BigEndian.Uint32(blob)) == len(authorityType) &&
		string(blob[4:4+len(authorityType)]) == authorityType && binary.BigEndian.Uint32(blob[4+len(authorityType):]) == 32
}

// SessionUsers lists the engineers for whom a grant for sessions leads to the server, for one that has to take the session authority's
// certificates. It is nobody once the policy has expired, or without a session mode.
func (p Policy) SessionUsers(server string, f inventory.Fleet, now time.Time) []string {
	if _, ok := f.Server(server); !ok || server == "" || !now.Before(p.Expires) || !p.Session.On() {
		return nil
	}
	var names []string
	for _, e := range p.Engineers {
		if slices.ContainsFunc(p.Grants, func(g Grant) bool {
			return g.Session && slices.Contains(g.Engineers, e.Name) && g.opens(inventory.PortSSH) && g.Covers(server, f.RegionOf(server))
		}) {
			names = append(names, e.Name)
		}
	}
	return names
}
