// Package checkin is the API that apps ask for servers: the same signed, short-lived list for everybody. It never learns who
// uses which server: apps register their own keys at the VPN servers themselves.
package checkin

import (
	"net/netip"
	"time"

	"mayfly/policies/ledger"
)

// Namespace of a list's SSHSIG signature.
const Namespace = "mayfly-list"

// PathServers answers GET with Signed.
const PathServers = "/v1/servers"

// Signed is the list's exact bytes with its signature.
type Signed struct {
	List      []byte `json:"list"`
	Signature []byte `json:"signature"`
}

// List is the server list, canonical JSON.
type List struct {
	Kind    string    `json:"kind"` // "mayfly-list/1"
	Fleet   string    `json:"fleet"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Servers []Server  `json:"servers"`
}

// Server is one VPN server that takes users, or drains.
type Server struct {
	Name     string     `json:"name"` // name in its TLS certificate: NAME.DOMAIN
	Region   string     `json:"region"`
	Address  netip.Addr `json:"address"`
	Register uint16     `json:"register"` // TCP port of registration (TLS 1.3)
	Draining bool       `json:"draining"` // take no new session here, move away
}

// ClientConfig is client.json, what an app ships with: whom to trust and whom to ask.
type ClientConfig struct {
	Fleet    string   `json:"fleet"`
	Domain   string   `json:"domain"`
	CA       string   `json:"ca"`        // PEM of the fleet's TLS CA
	Checkin  string   `json:"checkin"`   // "IP:PORT"
	Name     string   `json:"name"`      // name in check-in's certificate
	ListKeys []string `json:"list_keys"` // authorized_keys form

	Require string  `json:"require,omitempty"` // what a server has to show of its life: "logged" or "attested"; nothing if left out
	Ledger  *Ledger `json:"ledger,omitempty"`  // whom to believe about it
}

// Ledger is whose signatures make an entry of the fleet's public ledger believed.
type Ledger struct {
	Keys      []string  `json:"keys"`      // the ledger's own, authorized_keys form
	Witnesses []Witness `json:"witnesses"` // who cosigns
	Threshold int       `json:"threshold"` // witnesses; 0 in test fleets only
}

// Witness is a witness of the ledger.
type Witness struct {
	Name string   `json:"name"`
	Keys []string `json:"keys"` // authorized_keys form
}

// LedgerKeys are the keys in Ledger; none believe nothing.
func (c ClientConfig) LedgerKeys() (ledger.Keys, error) {
	if c.Ledger == nil {
		return ledger.Keys{}, nil
	}
	witnesses := make(map[string][]string)
	for _, w := range c.Ledger.Witnesses {
		witnesses[w.Name] = w.Keys
	}
	return ledger.NewKeys(c.Fleet, c.Ledger.Keys, witnesses, c.Ledger.Threshold)
}
