package main

import (
	"fmt"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/policies"
)

// keyReport is a key in what the verbs of keys print as JSON. Its fields stay.
type keyReport struct {
	Name        string          `json:"name"`        // whose
	Identity    policies.Kind   `json:"identity"`    // "engineer" or "break_glass"
	Fingerprint string          `json:"fingerprint"` // SHA-256
	Public      string          `json:"public"`      // "TYPE BASE64"
	Accepted    bool            `json:"accepted"`    // it lets its owner in, as far as the key goes
	Reason      policies.Reason `json:"reason"`      // "allowed", or why not
	Detail      string          `json:"detail"`
	Evidence    string          `json:"evidence"` // kind of it, as in the policy
	Proof       *hardkey.Proof  `json:"proof,omitempty"`
}

// keyReports are the keys of a policy, in its order.
func keyReports(p policies.Policy) []keyReport {
	list := []keyReport{}
	for _, e := range p.Engineers {
		for _, k := range e.Keys {
			list = append(list, reportKey(p, e.Name, policies.KindEngineer, k))
		}
	}
	for _, b := range p.BreakGlass {
		for _, k := range b.Keys {
			list = append(list, reportKey(p, b.Name, policies.KindBreakGlass, k))
		}
	}
	return list
}

func reportKey(p policies.Policy, name string, kind policies.Kind, k policies.Key) keyReport {
	v := p.Accept(name, k)
	r := keyReport{Name: name, Identity: kind, Fingerprint: policies.Fingerprint(k.Public), Public: k.Public,
		Accepted: v.Allow, Reason: v.Reason, Detail: v.Detail, Evidence: k.Evidence}
	if proof, proven := p.Proof(name, k); proven.Allow {
		r.Proof = &proof
	}
	return r
}

func (r keyReport) keyType() string { return keyTypeOf(r.Public) }

func keyTypeOf(public string) string {
	name, _, _ := strings.Cut(public, " ")
	return name
}

// what the key's evidence is, in one line.
func (r keyReport) text() string {
	if r.Proof == nil {
		return r.Evidence
	}
	return policies.EvidenceText(policies.Key{Evidence: r.Evidence}, *r.Proof)
}

func (r keyReport) state() string {
	switch {
	case !r.Accepted:
		return string(r.Reason)
	case r.Proof != nil && r.Proof.Test:
		return "accepted, TEST"
	}
	return "accepted"
}

// enrolledAt is when the challenge was made that the key answered; "-" for a test root's, which answered none.
func (r keyReport) enrolledAt() string {
	if r.Proof == nil || r.Proof.Made.IsZero() {
		return "-"
	}
	return r.Proof.Made.Format(time.RFC3339)
}

// facts are the rows that say all that is known of a key.
func (r keyReport) facts() [][]string {
	rows := [][]string{
		{"name", r.Name}, {"identity", string(r.Identity)}, {"key", r.Fingerprint}, {"type", r.keyType()},
		{"state", r.state()}, {"detail", r.Detail}, {"evidence", r.Evidence},
	}
	p := r.Proof
	if p == nil {
		return rows
	}
	row := func(name string, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	row("issuer", p.Issuer)
	if p.Test {
		row("TEST", "this is software: it counts in a test fleet only")
	}
	if p.Touch {
		row("touch", "always: every signature takes one")
	}
	if p.UserVerification {
		row("user verification", "the hardware asks for a PIN or biometry")
	} else {
		row("user verification", "not proven")
	}
	row("pin policy", p.PINPolicy)
	row("slot", p.Slot)
	row("firmware", p.Firmware)
	row("form factor", p.FormFactor)
	if p.Serial != 0 {
		row("serial", fmt.Sprint(p.Serial))
	}
	row("aaguid", p.AAGUID)
	row("application", p.Application)
	return rows
}
