package main

import (
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
	keys []string // authorized_keys form
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
	if _, ok := b.Inventory.Server(server); !ok {
		return nil, refuse(codeServer, "the signed inventory has no server %q", server)
	}
	return b, nil
}

// granted lists who may log in on server by SSH at now, by name. A policy that has expired grants nothing.
func granted(p policies.Policy, f inventory.Fleet, server string, now time.Time) []engineer {
	if !now.Before(p.Expires) {
		return nil
	}
	var list []engineer
	for _, e := range p.Engineers {
		if !login(e.Name) || !grants(p.Grants, e.Name, server, f.RegionOf(server)) {
			continue
		}
		var keys []string
		for _, k := range e.Keys {
			kind, _, _ := strings.Cut(k.Public, " ")
			if slices.Contains(hardwareKeys, kind) && !strings.ContainsAny(k.Public, "\r\n") {
				keys = append(keys, k.Public)
			}
		}
		if len(keys) > 0 {
			list = append(list, engineer{name: e.Name, keys: keys})
		}
	}
	slices.SortFunc(list, func(a, b engineer) int { return strings.Compare(a.name, b.name) })
	return list
}

func grants(list []policies.Grant, name, server, region string) bool {
	for _, g := range list {
		if slices.Contains(g.Engineers, name) && slices.Contains(g.Ports, inventory.PortSSH) && g.Covers(server, region) {
			return true
		}
	}
	return false
}

// login reports whether a name can be a Unix account beside those of the image. The policy's own check says no less.
func login(name string) bool {
	if name == "" || len(name) > 32 || slices.Contains(reservedNames, name) {
		return false
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z'
		other := c >= '0' && c <= '9' || c == '-' || c == '_'
		if !letter && (i == 0 || !other) {
			return false
		}
	}
	return true
}

// reservedNames are the image's accounts.
var reservedNames = []string{"root", "sshd", "unbound", "mayfly-tunnel", "nobody"}

// bastionAddresses are where SSH may come from.
func bastionAddresses(f inventory.Fleet) []netip.Addr {
	var list []netip.Addr
	for _, b := range f.Bastions {
		list = append(list, b.Address.Unmap())
	}
	return list
}
