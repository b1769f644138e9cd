package policies

import (
	"fmt"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Parse reads policy.toml strictly, for the fleet of fleet.toml. Errors begin with "NAME:LINE: " and carry a hint (internal/hint). Checks of what this
// package does not know come after its own; their errors name places as Check's do.
func Parse(name string, data []byte, f inventory.Fleet, checks ...func(Policy) error) (Policy, error) {
	p, doc, err := decode(name, data)
	if err != nil {
		return Policy{}, err
	}
	if err := Check(p, f); err != nil {
		return Policy{}, doc.Place(err)
	}
	for _, check := range checks {
		if err := check(p); err != nil {
			return Policy{}, doc.Place(err)
		}
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
	durations = append(durations, "certificates.max_life")
	for _, k := range []string{"max_age", "drain_limit", "boot_limit", "bake"} {
		durations = append(durations, "rotation."+k)
	}
	durations = append(durations, "rotation.train.bake", "rotation.schedule.every", "rotation.schedule.alert", "witness.grace")
	for i := range p.Plugins {
		durations = append(durations, fmt.Sprintf("plugin[%d].deadline", i))
	}
	// The decoder would take 30 for 30 nanoseconds.
	if err := doc.WantString(`"30m"`, durations...); err != nil {
		return Policy{}, nil, err
	}
	if !p.Expires.IsZero() {
		p.Expires = p.Expires.UTC()
	}
	for i := range p.Rotation.Blackouts {
		b := &p.Rotation.Blackouts[i]
		b.From, b.To = b.From.UTC(), b.To.UTC()
	}
	return p, doc, nil
}
