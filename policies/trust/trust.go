// Package trust is the fleet's trust policy: whose signatures count, and how many people it takes. `fleetctl init` makes it; it
// is baked into every stub and bastion. Thresholds count people, never keys, and the zero value trusts nobody.
package trust

// Trust is trust.json, canonical JSON.
type Trust struct {
	Kind       string   `json:"kind"` // "mayfly-trust/1"
	Fleet      string   `json:"fleet"`
	Test       bool     `json:"test"` // software keys count; records of tickets and certificates say so
	Version    uint64   `json:"version"`
	Approvers  []Person `json:"approvers"`
	Threshold  int      `json:"threshold"`   // people, of releases and of policy bundles
	TicketKeys []string `json:"ticket_keys"` // the signer's keys for tickets, authorized_keys form
	ListKeys   []string `json:"list_keys"`   // the signer's keys for server lists, authorized_keys form
	MinRelease uint64   `json:"min_release"` // no older release boots

	Witnesses        []Person `json:"witnesses"`         // who says which version is the newest (policies/witness)
	WitnessThreshold int      `json:"witness_threshold"` // witnesses that must confirm; 0 only where test is true: nobody is asked
}

// Person is an approver, or a witness, with one or more keys (authorized_keys form).
type Person struct {
	Name string   `json:"name"`
	Keys []string `json:"keys"`
}
