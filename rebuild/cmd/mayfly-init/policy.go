package main

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
)

// engineer is somebody who is granted here, with the keys that open.
type engineer struct {
	name string
	keys []string // authorized_keys form; none: by recorded sessions only

	session bool // the session authority's certificates are taken
}

// sessionAuthority is whose certificates sshd takes: nobody's where no grant for sessions leads here.
func sessionAuthority(p policies.Policy, here []engineer) string {
	if !p.Session.On() || strings.ContainsAny(p.Session.Authority, "\r\n") || !slices.ContainsFunc(here, func(e engineer) bool { return e.session }) {
		return ""
	}
	return p.Session.Authority
}

// openBundle verifies a bundle as everybody does, and asks besides that it names this server and that the release allows it.
func openBundle(t *trust.Trust, data, sig []byte, now time.Time, least uint64, server string) (*bundle.Bundle, error) {
	b, err := bundle.Open(t, data, sig, now, least)
	if err != nil {
		if r, ok := errors.AsType[*bundle.Refusal](err); ok {
			return nil, refuse(r.Reason, "%w", r.Err)
		}
		return nil, refuse(bundle.Malformed, "%w", err)
	}
	if _, ok := b.Inventory.RebuiltServer(server); !ok {
		return nil, refuse(codeServer, "the signed inventory has no server %q", server)
	}
	return b, nil
}

// allowedNetworks are whence engineers may come to a bastion. IPv6 is off on a server.
func allowedNetworks(p policies.Policy) []netip.Prefix {
	var list []netip.Prefix
	for _, n := range slices.Concat(p.SSH.Allow, p.SSH.Proxies) {
		if n.Addr().Is4() {
			list = append(list, n.Masked())
		}
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(list)
}

// granted lists who may log in on server by SSH at now, by name.
func granted(p policies.Policy, f inventory.Fleet, server string, now time.Time) []engineer {
	var list []engineer
	for _, e := range p.Granted(policies.Target{Server: server, Port: inventory.PortSSH}, f, now) {
		if !policies.AccountName(e.Name) {
			continue // the policy's own check says so as well; here a name becomes a path and a line
		}
		var keys []string
		for _, k := range e.Keys {
			if !strings.ContainsAny(k.Public, "\r\n") {
				keys = append(keys, k.Public)
			}
		}
		if len(keys) > 0 {
			list = append(list, engineer{name: e.Name, keys: keys})
		}
	}
	for _, name := range p.SessionUsers(server, f, now) {
		if !policies.AccountName(name) {
			continue
		}
		i := slices.IndexFunc(list, func(e engineer) bool { return e.name == name })
		if i < 0 {
			list = append(list, engineer{name: name})
			i = len(list) - 1
		}
		list[i].session = true
	}
	slices.SortFunc(list, func(a, b engineer) int { return strings.Compare(a.name, b.name) })
	return list
}

// bastionAddresses are where SSH may come from.
func bastionAddresses(f inventory.Fleet) []netip.Addr {
	var list []netip.Addr
	for _, b := range f.AllBastions() {
		list = append(list, b.Address.Unmap())
	}
	return list
}
