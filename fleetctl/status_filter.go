package main

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/policies"
)

// statusFilter is which servers `fleetctl status` shows. What is left out shows all; of one flag any value is enough, of several flags each
// has to hold.
type statusFilter struct {
	names, regions, roles, racks, releases, evidence []string
	states                                           []string
	older                                            time.Duration // of the present life
	ends                                             time.Duration // deadline within
	cause                                            string        // text in the cause
}

func statusFilterFlags(fs *flag.FlagSet) *statusFilter {
	f := &statusFilter{}
	list := func(to *[]string, name, usage string) {
		fs.Func(name, usage, func(s string) error {
			for v := range strings.SplitSeq(s, ",") {
				if v == "" {
					return fmt.Errorf("%q has an empty element", s)
				}
				*to = append(*to, v)
			}
			return nil
		})
	}
	list(&f.regions, "region", "only servers of these `regions`, separated by commas")
	list(&f.states, "state", "only servers in these `states`, for example serving or quarantined")
	list(&f.roles, "role", "only servers with these `roles`: vpn, bastion, controller")
	list(&f.racks, "rack", "only servers of these `racks`")
	list(&f.releases, "release", "only servers that run these `releases`")
	list(&f.evidence, "evidence", "only lives whose boot is `attested`, claimed or unverified")
	duration := func(to *time.Duration, name, usage string) {
		fs.Func(name, usage, func(s string) error {
			var d policies.Duration
			if err := d.UnmarshalText([]byte(s)); err != nil {
				return err
			}
			*to = d.Std()
			return nil
		})
	}
	duration(&f.older, "older", "only lives that are older than this `age`, for example 12h or 3d")
	duration(&f.ends, "ends-within", "only lives whose deadline is nearer than this `time`")
	fs.StringVar(&f.cause, "cause", "", "only servers with this `text` in their cause")
	return f
}

// check refuses what no server can be.
func (f *statusFilter) check(fleet inventory.Fleet, names []string) error {
	f.names = names
	for _, n := range f.names {
		if _, ok := fleet.RebuiltServer(n); !ok {
			return command.Usagef("no server %q that is rebuilt in the signed inventory", n)
		}
	}
	for _, r := range f.regions {
		if _, ok := fleet.Region(r); !ok {
			return command.Usagef("--region %s: no such region in the signed inventory", r)
		}
	}
	for _, r := range f.racks {
		if !slices.ContainsFunc(fleet.Racks, func(x inventory.Rack) bool { return x.Name == r }) {
			return command.Usagef("--rack %s: no such rack in the signed inventory", r)
		}
	}
	for _, one := range []struct {
		flag string
		have []string
		all  []string
	}{{"role", f.roles, []string{inventory.RoleVPN, inventory.RoleBastion, inventory.RoleController}}, {"evidence", f.evidence, []string{"attested", "claimed", "unverified"}}} {
		for _, v := range one.have {
			if !slices.Contains(one.all, v) {
				return command.Usagef("--%s %s: it is one of %s", one.flag, v, strings.Join(one.all, ", "))
			}
		}
	}
	for _, s := range f.states {
		if !slices.Contains(inventory.States, inventory.State(s)) {
			return command.Usagef("--state %s: it is one of %s", s, joinStates())
		}
	}
	return nil
}

func joinStates() string {
	var words []string
	for _, s := range inventory.States {
		words = append(words, string(s))
	}
	return strings.Join(words, ", ")
}

// any reports whether something is filtered.
func (f *statusFilter) any() bool {
	return len(f.names)+len(f.regions)+len(f.states)+len(f.roles)+len(f.racks)+len(f.releases)+len(f.evidence) > 0 || f.older > 0 || f.ends > 0 || f.cause != ""
}

func (f *statusFilter) wants(s serverStatus, now time.Time) bool {
	in := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	switch {
	case !in(f.names, s.Name), !in(f.regions, s.Region), !in(f.states, string(s.State)), !in(f.roles, s.Role), !in(f.racks, s.Rack),
		!in(f.releases, s.Release), !in(f.evidence, s.Evidence):
		return false
	case f.older > 0 && s.AgeSeconds < int64(f.older/time.Second):
		return false
	case f.ends > 0 && (s.Deadline == nil || s.Deadline.Sub(now) >= f.ends):
		return false
	}
	return strings.Contains(s.Cause, f.cause)
}

// columns of `-o wide` and `-o csv`. Their order and names stay; new ones come at the end.
var wideColumns = []string{"SERVER", "REGION", "RACK", "ROLE", "STATE", "LIFE", "AGE", "LEFT", "RELEASE", "BOOT", "HEARD", "CAPACITY", "SWITCH", "BMC", "MIRROR", "RING", "SPARE", "BOOT ID", "CAUSE"}

func (s serverStatus) wide(now time.Time, heard time.Time) []string {
	spare := ""
	if s.Spare {
		spare = "spare"
	}
	return []string{s.Name, s.Region, s.Rack, s.Role, s.shown(), strconv.FormatUint(s.Epoch, 10), s.age(), s.end(now), s.Release, s.proof(), lastWord(heard, now),
		strconv.Itoa(s.Capacity), s.Switch, s.BMCNetwork, s.Mirror, s.Ring, spare, s.BootID, s.Cause}
}

// csvColumns are for programs: times as RFC 3339, ages in seconds.
var csvColumns = []string{"server", "region", "rack", "role", "state", "epoch", "age_seconds", "deadline", "release", "evidence", "heard", "capacity", "switch", "bmc_network", "mirror", "ring", "spare", "boot_id", "revoked", "tainted", "cause"}

func (s serverStatus) csv(heard time.Time) []string {
	stamp := func(t *time.Time) string {
		if t == nil || t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	return []string{s.Name, s.Region, s.Rack, s.Role, string(s.State), strconv.FormatUint(s.Epoch, 10), strconv.FormatInt(s.AgeSeconds, 10), stamp(s.Deadline), s.Release, s.Evidence, stamp(&heard),
		strconv.Itoa(s.Capacity), s.Switch, s.BMCNetwork, s.Mirror, s.Ring, strconv.FormatBool(s.Spare), s.BootID, strconv.FormatBool(s.Revoked), strconv.FormatBool(s.Tainted), s.Cause}
}
