package simhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// Shape is a fleet of simulated servers.
type Shape struct {
	Servers  int // of all regions, the same number in each
	Regions  int
	Floor    int // percent of a region's capacity that keeps serving
	Parallel int // of all regions, out at once
	Bake     time.Duration
	Retries  int

	BootLimit time.Duration // a minute when zero
}

// Capacity of each simulated server, in Mbit/s.
const Capacity = 1000

// Version of the release that simulated servers boot.
const Version = 7

// maxServers is how many addresses there are.
const maxServers = 200 * 250

// Bundle is the fleet's signed inventory and policy, without signatures: nobody here verifies any.
func (s Shape) Bundle() (*bundle.Bundle, error) {
	if s.Servers < 1 || s.Servers > maxServers || s.Regions < 1 || s.Servers%s.Regions != 0 {
		return nil, fmt.Errorf("a fleet of %d servers in %d regions", s.Servers, s.Regions)
	}
	f := inventory.Fleet{Name: "lab", Domain: "lab.test", Test: true,
		Network:    inventory.Network{Gateway: netip.MustParseAddr("10.77.0.1")},
		Controller: inventory.Controller{Address: netip.MustParseAddr("10.77.0.1"), BootPort: 8080, JoinPort: 8443, CheckinPort: 9443},
	}
	each := s.Servers / s.Regions
	for g := range s.Regions {
		name := fmt.Sprintf("r%02d", g)
		f.Regions = append(f.Regions, inventory.Region{Name: name, Floor: inventory.Floor{Mbps: each * Capacity * s.Floor / 100}})
		f.Racks = append(f.Racks, inventory.Rack{Name: name + "-a", Region: name})
		for i := range each {
			n := g*each + i
			f.Servers = append(f.Servers, inventory.Server{Name: fmt.Sprintf("%s-%04d", name, i), Rack: name + "-a", Role: "vpn", Capacity: Capacity,
				Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + n/250), byte(n % 250), 11}), 8),
				Tunnel:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + n/250), byte(n % 250), 0}), 24),
				Power:   inventory.Power{Driver: inventory.DriverQEMU}})
		}
	}
	limit := s.BootLimit
	if limit == 0 {
		limit = time.Minute
	}
	p := policies.Policy{Version: 1, Rotation: policies.Rotation{MaxAge: policies.Duration(policies.MaxAge), MaxParallel: s.Parallel,
		DrainLimit: policies.Duration(time.Minute), BootLimit: policies.Duration(limit), Bake: policies.Duration(s.Bake), Retries: s.Retries}}
	return &bundle.Bundle{Fleet: f.Name, Version: 1, Policy: p, Inventory: f}, nil
}

// Runner is a controller of the fleet, with these machines.
func Runner(b *bundle.Bundle, s store.Store, machines rotate.Machines, talk io.Writer) (*rotate.Runner, error) {
	ca, _, err := pki.NewCA(b.Inventory.Domain, time.Now())
	if err != nil {
		return nil, err
	}
	return &rotate.Runner{Store: s, Bundle: b, Trust: []byte("{}"), CA: ca, Release: rotate.Release{Statement: release.Statement{Version: Version}, Path: "/releases/7/"},
		Machines: machines, Tickets: tickets{}, Prober: prober{}, Talk: talk}, nil
}

// Rules are those of the fleet, for a rotation of every server.
func Rules(b *bundle.Bundle) plan.Rules {
	r := rotate.Rules(b.Inventory, b.Policy.Rotation, nil)
	r.All = true
	return r
}

// BringUp has every server serve, without a rotation: what a test begins with. Servers in other states than New are left alone.
func BringUp(ctx context.Context, s store.Store, b *bundle.Bundle, h *Hosts) error {
	now := time.Now()
	if err := s.Sync(ctx, b.Inventory, now); err != nil {
		return err
	}
	for _, x := range b.Inventory.Rebuilt() {
		epoch, err := s.BeginLife(ctx, x.Name, 0, inventory.New, "brought up", now, nil)
		if errors.Is(err, store.ErrStale) {
			continue
		}
		if err != nil {
			return err
		}
		boot := h.begin(x.Name, epoch)
		for _, step := range []func() error{
			func() error {
				return s.Move(ctx, x.Name, epoch, inventory.Wiping, inventory.Booting, "brought up", now)
			},
			func() error {
				return s.Joined(ctx, x.Name, epoch, store.Joined{BootID: boot, HostKey: "h", TunnelKey: "t", At: now, Deadline: now.Add(b.Policy.Rotation.MaxAge.Std())})
			},
			func() error { return s.SetHealth(ctx, x.Name, epoch, healthy(boot), now) },
			func() error {
				return s.Move(ctx, x.Name, epoch, inventory.Attesting, inventory.Baking, "brought up", now)
			},
			func() error {
				return s.Move(ctx, x.Name, epoch, inventory.Baking, inventory.Serving, "brought up", now)
			},
		} {
			if err := step(); err != nil {
				return fmt.Errorf("bringing up %s: %w", x.Name, err)
			}
		}
	}
	return nil
}

// tickets are signed by nobody.
type tickets struct{}

func (tickets) Ticket(_ context.Context, t ticket.Ticket) (data, sig []byte, err error) {
	data, err = t.Marshal()
	return data, []byte("signature"), err
}

// prober finds every server well: its health is the host's own word.
type prober struct{}

func (prober) Probe(context.Context, inventory.Server) error { return nil }
