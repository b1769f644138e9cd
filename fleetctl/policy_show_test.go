package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
)

// TestShowBundle: what an approver signs is there to read, in plain ASCII; of much, the rest is counted.
func TestShowBundle(t *testing.T) {
	const key = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAAAABHNzaDo="
	b := &bundle.Bundle{Fleet: "lab", Version: 7, Made: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Inventory: inventory.Fleet{Name: "lab", Test: true, Regions: []inventory.Region{{Name: "se", Floor: inventory.Floor{Percent: 50}}},
			Racks:    []inventory.Rack{{Name: "se-a", Region: "se"}},
			Bastions: []inventory.Bastion{{Name: "bastion-1", Address: netip.MustParseAddr("10.77.0.2"), Port: 22}},
			Servers:  []inventory.Server{{Name: "se-1", Rack: "se-a", Role: inventory.RoleVPN, Capacity: 3000, Address: netip.MustParsePrefix("10.77.0.11/24")}}},
		Policy: policies.Policy{SSH: policies.SSH{Level: policies.PQPreferred, Allow: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/26")}},
			Hardware:  policies.Hardware{TestRoots: []string{"softkey"}},
			Engineers: []policies.Engineer{{Name: "anna", Keys: []policies.Key{{Public: key, Evidence: "test:softkey"}}}},
			Grants:    []policies.Grant{{Engineers: []string{"anna"}, Servers: []string{"region:se", "\x1b]0;x\a*"}, Ports: []uint16{22, 443}}},
			Rotation:  policies.Rotation{MaxAge: policies.Duration(24 * time.Hour), MaxParallel: 2}, Image: policies.Image{MinVersion: 3},
			Witness: policies.Witness{Grace: policies.Duration(10 * time.Minute)}, Plugins: []policies.Plugin{{Name: "site", SHA256: "e3b0", Decides: []string{"login"}}}}}
	show := func() string {
		var out strings.Builder
		if err := showBundle(&out, "d/bundle.json", []byte("{}\n"), b, nil); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
			t.Errorf("not printable: %q", out.String())
		}
		return out.String()
	}
	got := show()
	for _, want := range []string{
		"policy 7 of fleet lab, made 2026-11-20T12:00:00Z, until 2027-01-01T00:00:00Z\n", "test: true\n", "no [history]: images are built from sources", "test roots: softkey\n", "allow 198.51.100.0/26\n",
		"engineer anna, from every allowed address: SHA256:", "grant anna: region:se,  ]0;x *, ports 22, 443\n", "bastion bastion-1 at 10.77.0.2, port 22\n",
		"region se: floor 1500 of 3000 Mbit/s: se-1 10.77.0.11\n", "max_age 24h0m0s, max_parallel 2", "releases from version 3\n", "plugin site is asked about login within 1s, SHA-256 e3b0\n", "witnesses may be silent for 10m0s\n", "in d/bundle.json, SHA-256 ca3d163b",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for i := range 1000 {
		b.Policy.Grants = append(b.Policy.Grants, policies.Grant{Engineers: []string{fmt.Sprintf("e%d", i)}, Servers: []string{"*"}, Ports: []uint16{22}})
		b.Policy.Engineers[0].Allow = append(b.Policy.Engineers[0].Allow, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
	}
	got = show()
	if n := strings.Count(got, "\n"); n > 200 || len(got) > 64<<10 {
		t.Errorf("got %d lines, %d bytes", n, len(got))
	}
	for _, want := range []string{"AND 901 MORE that are not shown: read d/bundle.json before you sign\n", "10.0.0.15/32 AND 984 MORE: SHA256:"} {
		if !strings.Contains(got, want) {
			t.Errorf("what is left out is not counted: no %q", want)
		}
	}
}
