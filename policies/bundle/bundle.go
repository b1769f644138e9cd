// Package bundle is the only form in which a policy takes effect: inventory and policy in one canonical JSON file, signed by
// as many people as the trust policy asks, with a version that rises and an expiry.
package bundle

import (
	"time"

	"mayfly/inventory"
	"mayfly/policies"
)

// Namespace of a bundle's SSHSIG signatures.
const Namespace = "mayfly-policy"

// Bundle is bundle.json, canonical JSON.
type Bundle struct {
	Kind      string          `json:"kind"` // "mayfly-policy/1"
	Fleet     string          `json:"fleet"`
	Version   uint64          `json:"version"`
	Made      time.Time       `json:"made"`
	Expires   time.Time       `json:"expires"`
	Policy    policies.Policy `json:"policy"`
	Inventory inventory.Fleet `json:"inventory"`
}
