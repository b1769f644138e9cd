// Package alert is what a bastion tells people at once: one line of JSON for each alert (docs/formats/alerts.md). The bastion writes
// them to the program bastion-alerts, which delivers them (package alert/delivery). An alert holds no secret: names, addresses, fingerprints.
package alert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kind is what an alert is about.
type Kind string

// Specification constants: kinds of alerts.
const (
	RepeatedRefusals  Kind = "repeated_refusals"  // a listed source, or a user's name, was refused again and again
	NewNetwork        Kind = "new_network"        // an engineer came from where they have not been
	TwoNetworks       Kind = "two_networks"       // an engineer is in from two networks at once
	UnrecordedLogin   Kind = "unrecorded_login"   // a server saw a login that the bastion did not record
	WitnessRejects    Kind = "witness_rejects"    // a witness rejects a checkpoint of the audit log
	BreakGlass        Kind = "break_glass"        // a break-glass identity was opened, used or closed
	AuditIll          Kind = "audit_ill"          // the audit log takes no records, or does not sign
	AuditRecovered    Kind = "audit_recovered"    // it does again
	PluginFailed      Kind = "plugin_failed"      // a site's own decider failed or was late: it denies
	PolicyRefused     Kind = "policy_refused"     // changed files were not taken
	PolicyUnconfirmed Kind = "policy_unconfirmed" // witnesses do not confirm the policy in force
	StatementRefused  Kind = "statement_refused"  // a signed statement was not taken
)

// Kinds are all of them.
var Kinds = []Kind{RepeatedRefusals, NewNetwork, TwoNetworks, UnrecordedLogin, WitnessRejects, BreakGlass, AuditIll, AuditRecovered,
	PluginFailed, PolicyRefused, PolicyUnconfirmed, StatementRefused}

// Severity says how soon somebody should look.
type Severity string

// Specification constants: severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Severity of a kind.
func (k Kind) Severity() Severity {
	switch k {
	case UnrecordedLogin, WitnessRejects, BreakGlass, AuditIll, PolicyUnconfirmed:
		return Critical
	case NewNetwork, AuditRecovered:
		return Info
	}
	return Warning
}

// Implementation constants: bounds of an alert.
const (
	MaxLine = 8 << 10 // bytes
	maxText = 1024    // of one value
)

// Alert is one of them.
type Alert struct {
	Kind      Kind      `json:"kind"`
	Time      time.Time `json:"time"`
	Fleet     string    `json:"fleet"`
	Bastion   string    `json:"bastion"` // by its host certificate
	Severity  Severity  `json:"severity"`
	Subject   string    `json:"subject"`           // who or what it is about; with the kind, what repeats
	Detail    string    `json:"detail"`            // for people
	Reference string    `json:"reference"`         // what to look for in the audit log: a connection, a statement's id; may be empty
	Repeats   int       `json:"repeats,omitempty"` // how many like it were held back since the last one
}

// Check refuses what no bastion writes.
func (a Alert) Check() error {
	switch {
	case !slices.Contains(Kinds, a.Kind):
		return fmt.Errorf("alert of kind %q", a.Kind)
	case a.Severity != a.Kind.Severity():
		return fmt.Errorf("alert of severity %q", a.Severity)
	case a.Time.IsZero() || a.Subject == "" || a.Repeats < 0:
		return errors.New("alert without time or subject")
	}
	for _, text := range []string{a.Fleet, a.Bastion, a.Subject, a.Detail, a.Reference} {
		if len(text) > maxText {
			return errors.New("alert with a value that is too long")
		}
		for _, r := range text {
			if r < ' ' || r == 0x7f {
				return errors.New("alert with a control character")
			}
		}
	}
	return nil
}

// Marshal is the alert on one line, without its end.
func (a Alert) Marshal() ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// Parse is strict: whoever took over the bastion can write an alert, and nothing else.
func Parse(line []byte) (Alert, error) {
	var a Alert
	if err := strict(line, &a); err != nil {
		return Alert{}, fmt.Errorf("reading an alert: %w", err)
	}
	return a, a.Check()
}

func strict(line []byte, v any) error {
	if len(line) > MaxLine {
		return fmt.Errorf("longer than %d bytes", MaxLine)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one value")
	}
	return nil
}
