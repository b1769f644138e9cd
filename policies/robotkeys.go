package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mayfly/inventory"
)

// RobotsOf lists the robots that a host lets in: not those whose key is revoked, and nobody once the policy has expired.
func (p Policy) RobotsOf(server string, f inventory.Fleet, now time.Time) []Robot {
	s, ok := f.Server(server)
	if !ok || s.Role != inventory.RoleHost || !now.Before(p.Expires) {
		return nil
	}
	var list []Robot
	for _, r := range p.Robots {
		if slices.Contains(r.Servers, server) && p.revokedKey(r.Public) == "" {
			list = append(list, r)
		}
	}
	return list
}

// AuthorizedKey is the line of an authorized_keys file that lets the robot run its commands on a host, from the bastions and nothing else.
// A key can have one forced command: it is a POSIX shell's case, which runs what was asked for only if it is one of them to the letter.
func (r Robot) AuthorizedKey(bastions []netip.Addr) string {
	var from []string
	for _, b := range bastions {
		from = append(from, b.Unmap().WithZone("").String())
	}
	return fmt.Sprintf("from=%s,restrict,command=%s %s %s", optionQuote(strings.Join(from, ",")), optionQuote(r.dispatcher()), r.Public, r.Name)
}

// dispatcher is the forced command. Each listed line is a quoted pattern, which matches itself alone, and runs in a shell of its own, where
// it cannot end the case.
func (r Robot) dispatcher() string {
	var b strings.Builder
	b.WriteString(`case "$SSH_ORIGINAL_COMMAND" in `)
	for _, c := range r.Commands {
		fmt.Fprintf(&b, "%s) exec /bin/sh -c %s;; ", shellQuote(c), shellQuote(c))
	}
	fmt.Fprintf(&b, "*) echo %s >&2; exit 126;; esac", shellQuote("not a command of robot "+r.Name))
	return b.String()
}

// shellQuote makes one word of any text for a POSIX shell.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// optionQuote quotes the value of an option in authorized_keys, where a backslash means itself unless a quotation mark follows. So no value may
// end in one, and none does.
func optionQuote(text string) string { return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"` }
