package policies

import (
	"fmt"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Parse reads policy.toml strictly and checks all that needs no inventory. Errors begin with "NAME:LINE: " and carry a hint
// (internal/hint).
func Parse(name string, data []byte) (Policy, error) {
	p, doc, err := decode(name, data)
	if err != nil {
		return Policy{}, err
	}
	if err := p.check(); err != nil {
		return Policy{}, doc.Place(err)
	}
	return p, nil
}

// ParseFor is Parse and Check in one, so that what does not fit the fleet is named with its line too.
func ParseFor(name string, data []byte, f inventory.Fleet) (Policy, error) {
	p, doc, err := decode(name, data)
	if err != nil {
		return Policy{}, err
	}
	if err := Check(p, f); err != nil {
		return Policy{}, doc.Place(err)
	}
	return p, nil
}

func decode(name string, data []byte) (Policy, *tomlfile.Doc, error) {
	var p Policy
	doc, err := tomlfile.Decode(name, data, &p)
	if err != nil {
		return Policy{}, nil, err
	}
	var durations []string
	for _, k := range []string{"handshake_deadline", "idle_timeout", "session_limit"} {
		durations = append(durations, "ssh."+k)
	}
	for _, k := range []string{"max_age", "drain_limit", "boot_limit", "bake"} {
		durations = append(durations, "rotation."+k)
	}
	// The decoder would take 30 for 30 nanoseconds.
	if err := doc.WantString(`"30m"`, durations...); err != nil {
		return Policy{}, nil, err
	}
	if !p.Expires.IsZero() {
		p.Expires = p.Expires.UTC()
	}
	return p, doc, nil
}

// Check refuses a policy that must not take effect in this fleet. Its errors name places by their path:
// "engineer[0].key[1].evidence: …".
func Check(p Policy, f inventory.Fleet) error {
	if err := p.check(); err != nil {
		return err
	}
	if len(p.Hardware.TestRoots) > 0 && !f.Test {
		return tomlfile.At("hardware.test_roots", "enrol keys that prove their hardware, or set test = true in fleet.toml of a test fleet",
			"test roots are accepted only in a fleet with test = true, and %q is none", f.Name)
	}
	servers, regions := map[string]bool{}, map[string]bool{}
	for _, s := range f.Servers {
		servers[s.Name] = true
	}
	for _, r := range f.Regions {
		regions[r.Name] = true
	}
	for i, g := range p.Grants {
		for j, s := range g.Servers {
			path := fmt.Sprintf("grant[%d].servers[%d]", i, j)
			if err := checkReference(path, s, servers, regions); err != nil {
				return err
			}
		}
	}
	return nil
}
