// Package checkin is the API that apps ask for servers: the same signed, short-lived list for everybody. It never learns who
// uses which server: apps register their own keys at the VPN servers themselves.
package checkin

import (
	"net/netip"
	"time"
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
}
