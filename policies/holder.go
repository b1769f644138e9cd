package policies

import (
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// holder is whoever has a name in the policy. One without a kind stands in for nobody, so that a name that is not there costs
// the same as one that is.
type holder struct {
	kind     Kind
	name     string
	allow    []netip.Prefix // narrows ssh.allow; empty: not narrowed
	glass    BreakGlass
	robot    Robot
	key      Key  // with the asked public half
	enrolled bool // key is this holder's

	compared int // names and keys looked at
}

// find looks up a name and a public key. It compares every name and every key of the policy, whoever is asked for and wherever they
// stand in it: what a stranger could measure says nothing.
func (p Policy) find(name, public string) holder {
	a := holder{name: name}
	keys := func(owner bool, list []Key) {
		for i := range list {
			a.compared++
			if same := list[i].Public == public && public != ""; same && owner {
				a.key, a.enrolled = list[i], true
			}
		}
	}
	is := func(other string) bool {
		a.compared++
		return other == name && name != ""
	}
	for _, e := range p.Engineers {
		owner := is(e.Name)
		if owner {
			a.kind, a.allow = KindEngineer, e.Allow
		}
		keys(owner, e.Keys)
	}
	for _, b := range p.BreakGlass {
		owner := is(b.Name)
		if owner {
			a.kind, a.glass = KindBreakGlass, b
		}
		keys(owner, b.Keys)
	}
	for _, r := range p.Robots {
		owner := is(r.Name)
		if owner {
			a.kind, a.robot = KindRobot, r
		}
		keys(owner, []Key{{Public: r.Public}})
	}
	return a
}

// superusers have uid 0 on one system or another.
var superusers = []string{"root", "toor"}

// forbiddenUser names the rule that a user's name breaks before anybody is looked up: those of uid 0 in whatever spelling, and accounts
// that a system has for itself.
func forbiddenUser(name string) Reason {
	plain := plainName(name)
	switch {
	case slices.Contains(superusers, plain):
		return UserRoot
	case slices.Contains(reserved, plain) || slices.Contains(reserved, name):
		return UserReserved
	}
	return ""
}

// plainName is a name as somebody might read it: small letters, wide forms narrow, and of the rest only digits and hyphens. It is
// for refusing a name by its right reason; nobody is ever let in by it.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0xFF01 && r <= 0xFF5E { // wide forms of ASCII
			r -= 0xFEE0
		}
		if small, ok := lookalikes[r]; ok {
			r = small
		}
		r = unicode.ToLower(r)
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || unicode.IsLetter(r) {
			return r
		}
		return -1
	}, name)
}

// lookalikes of the letters in superusers' names.
var lookalikes = map[rune]rune{
	'о': 'o', 'О': 'o', 'ο': 'o', 'Ο': 'o', 'օ': 'o', // Cyrillic, Greek, Armenian
	'т': 't', 'Т': 't', 'τ': 't', 'Τ': 't', 'г': 'r', 'ʀ': 'r',
}
