package main

import (
	"encoding/hex"
	"slices"
	"strings"

	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
)

// rotation is the order for a rotation in this mode, now: under this policy, to this release, of these servers in the lives that they are in. No mode is
// the schedule's, which carries no order.
func rotation(mode string, names []string, b *bundle.Bundle, r rotate.Release, known []store.Server) request.Order {
	order := request.Rotation{Mode: mode, Release: r.Statement.Version, Digest: hex.EncodeToString(r.Digest[:]), Policy: b.Version}
	for _, name := range names {
		s := request.Server{Name: name}
		if i := slices.IndexFunc(known, func(k store.Server) bool { return k.Name == name }); i >= 0 {
			s.Epoch = known[i].Epoch
		}
		order.Servers = append(order.Servers, s)
	}
	return request.Rotate(order)
}

// mode is which order this takes, "" for none: the schedule's work follows from the signed policy.
func (a *asked) mode() (mode string, err error) {
	var modes []string
	if *a.all {
		modes = append(modes, request.ModeRepave)
	}
	if *a.retry {
		modes = append(modes, request.ModeRetry)
	}
	if len(a.lost) > 0 {
		modes = append(modes, request.ModeLost)
	}
	if *a.upgrade {
		modes = append(modes, request.ModeUpgrade)
	}
	if *a.emergency {
		modes = append(modes, request.ModeEmergency)
	}
	if len(a.only) > 0 {
		modes = append(modes, request.ModeSingle)
	}
	if len(modes) > 1 {
		return "", command.Usagef("one order at a time: %s", strings.Join(modes, ", "))
	}
	return strings.Join(modes, ""), nil
}

// names are the servers that are of somebody's choice.
func (a *asked) names() []string { return append(append([]string(nil), a.only...), a.lost...) }
