// Package trust is the fleet's trust policy: whose signatures count, and how many people it takes. `fleetctl init` makes the first
// one; a later one follows it only by signatures (Advance). Thresholds count people, never keys, and the zero value trusts nobody.
package trust

import "mayfly/bastion/hardkey"

// Trust is trust.json, canonical JSON.
type Trust struct {
	Kind             string   `json:"kind"` // "mayfly-trust/3"
	Fleet            string   `json:"fleet"`
	Test             bool     `json:"test"` // software keys count; records of tickets and certificates say so
	Version          uint64   `json:"version"`
	Previous         string   `json:"previous"` // SHA-256 of the trust.json that this one follows, hex; empty in version 1
	Approvers        []Person `json:"approvers"`
	Threshold        int      `json:"threshold"`         // people, of releases, of policy bundles and of the next trust policy
	Builders         []Person `json:"builders"`          // who make a release again from its lock file, each on their own; nobody is builder and approver
	BuilderThreshold int      `json:"builder_threshold"` // builders whose signatures a release needs; 0 only where test is true
	Recovery         Recovery `json:"recovery"`          // who replaces approvers when fewer than the threshold are left
	Hardware         Hardware `json:"hardware"`          // what is asked of approvers' and recovery people's keys
	TicketKeys       []string `json:"ticket_keys"`       // the signer's keys for tickets, authorized_keys form
	ListKeys         []string `json:"list_keys"`         // the signer's keys for server lists, authorized_keys form
	LedgerKeys       []string `json:"ledger_keys"`       // under which the fleet's public ledger signs, authorized_keys form; none only where test is true
	SecureBoot       []string `json:"secure_boot"`       // SHA-256 (hex) of the certificates (DER) in servers' firmware that unified kernel images are signed under
	MinRelease       uint64   `json:"min_release"`       // no older release boots

	Witnesses        []Person `json:"witnesses"`         // who says which version is the newest (policies/witness)
	WitnessThreshold int      `json:"witness_threshold"` // witnesses that must confirm; 0 only where test is true: nobody is asked
}

// Person is an approver, a witness, or one of the recovery people, with one or more keys (authorized_keys form).
type Person struct {
	Name string   `json:"name"`
	Keys []string `json:"keys"`

	// Shown is what was shown for each key, in the order of Keys; nothing where nothing was shown for any. Witnesses show nothing.
	Shown []hardkey.Shown `json:"shown,omitempty"`
}

// Recovery is the quorum whose keys lie in safes. It signs nothing but a trust policy that names other approvers.
type Recovery struct {
	People    []Person `json:"people"`
	Threshold int      `json:"threshold"` // 0 only where test is true: a lost threshold is lost for good
}

// Hardware are the rules for evidence, as in [hardware] of policy.toml.
type Hardware struct {
	Slots          []string         `toml:"slots" json:"slots,omitempty"`
	PINPolicies    []string         `toml:"pin_policies" json:"pin_policies,omitempty"`
	MinFirmware    string           `toml:"min_firmware" json:"min_firmware,omitempty"`
	SerialsAllow   []uint32         `toml:"serials_allow" json:"serials_allow,omitempty"`
	SerialsDeny    []uint32         `toml:"serials_deny" json:"serials_deny,omitempty"`
	AAGUIDs        []string         `toml:"aaguids" json:"aaguids,omitempty"`
	VerifyRequired bool             `toml:"verify_required" json:"verify_required,omitempty"`
	FIDO2Issuers   []hardkey.Issuer `toml:"fido2_issuer" json:"fido2_issuers,omitempty"`
	TestIssuers    []hardkey.Issuer `toml:"test_issuer" json:"test_issuers,omitempty"` // only where test is true
}
