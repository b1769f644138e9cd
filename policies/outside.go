package policies

import (
	"net/netip"
	"slices"
)

// Outside is an address range of somebody's own that lies outside ssh.allow, from which nobody connects.
type Outside struct {
	User   string       `json:"user"`
	Prefix netip.Prefix `json:"prefix"`
	Out    bool         `json:"out"` // all of theirs do: they are locked out
}

// Outside lists the ranges of engineers and robots that have no address in common with ssh.allow. A policy with one is good, and hardly what
// was meant.
func (p Policy) Outside() []Outside {
	var list []Outside
	look := func(user string, own []netip.Prefix) {
		first := len(list)
		for _, prefix := range own {
			if !slices.ContainsFunc(p.SSH.Allow, prefix.Overlaps) {
				list = append(list, Outside{User: user, Prefix: prefix})
			}
		}
		for i := range list[first:] {
			list[first+i].Out = len(list)-first == len(own)
		}
	}
	for _, e := range p.Engineers {
		look(e.Name, e.Allow)
	}
	for _, r := range p.Robots {
		look(r.Name, []netip.Prefix{r.Source})
	}
	return list
}
