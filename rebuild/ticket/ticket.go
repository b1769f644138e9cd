// Package ticket is the signed one-time file with which a machine begins a life: who it is, what it must boot, how it
// reaches its controller and when it ends. The power driver hands it over; the controller's store keeps only its hash.
package ticket

import (
	"net/netip"
	"time"
)

// Namespace of a ticket's SSHSIG signature.
const Namespace = "mayfly-ticket"

// Ticket is the file's content, canonical JSON.
type Ticket struct {
	Kind       string       `json:"kind"` // "mayfly-ticket/1"
	Fleet      string       `json:"fleet"`
	Domain     string       `json:"domain"`
	Server     string       `json:"server"`
	Epoch      uint64       `json:"epoch"`
	Secret     string       `json:"secret"`      // 32 random bytes, hex: makes the ticket one machine's
	Release    string       `json:"release"`     // SHA-256 of release.json, hex
	ReleaseURL string       `json:"release_url"` // ends in "/": release.json, release.json.sig and root.erofs lie below
	Address    netip.Prefix `json:"address"`
	Gateway    netip.Addr   `json:"gateway"`
	Controller string       `json:"controller"`      // "IP:PORT" of join
	Name       string       `json:"controller_name"` // name in the controller's certificate
	CA         string       `json:"ca"`              // PEM of the fleet's TLS CA
	NotAfter   time.Time    `json:"not_after"`       // join before
	MaxAge     int64        `json:"max_age_seconds"` // the machine ends itself this long after it booted (CLOCK_BOOTTIME)
}
