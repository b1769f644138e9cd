// Package ticket is the signed one-time file with which a machine begins a life: who it is, what it must boot, how it
// reaches its controller and when it ends. The power driver hands it over; the controller's store keeps only its hash.
//
// Files: ticket.go (the data and how it is made), encode.go (canonical bytes and their hash), open.go (signature first, then
// a strict parse; every refusal has a reason code), check.go (what each field may hold). It knows no inventory, so that the
// stub, which opens tickets, links no TOML: ticket/issue makes a ticket from the inventory.
package ticket

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"
)

// Specification constants.
const (
	// Namespace of a ticket's SSHSIG signature.
	Namespace = "mayfly-ticket"
	// Kind of this format's version.
	Kind = "mayfly-ticket/2"
	// ControllerLabel is the controller's host name below the fleet's domain.
	ControllerLabel = "controller"
	// SecretBytes of randomness make a ticket one machine's.
	SecretBytes = 32
	// MaxBytes bounds a ticket file.
	MaxBytes = 16 << 10
	// MaxSignatureBytes bounds its signature file.
	MaxSignatureBytes = 8 << 10
	// MaxAge is the longest life that a ticket may give, as long as the longest max_age of a policy.
	MaxAge = 7 * 24 * time.Hour
	// MaxWindow is the longest time between making a ticket and joining with it.
	MaxWindow = time.Hour
	// MaxMirrors bounds the places that a release is fetched from.
	MaxMirrors = 8
	// MaxWitnesses bounds the witnesses that are asked.
	MaxWitnesses = 16
	// MaxMACs bounds the network devices of a bond.
	MaxMACs = 8
)

// Names of the three files in the initramfs and, once the root runs, in /run/mayfly (release.RunDir).
const (
	File          = "ticket.json"
	SignatureFile = "ticket.json.sig"
	TrustFile     = "trust.json"
)

// How a server gets its address.
const (
	Static = "static"
	DHCP4  = "dhcp4"
	DHCP6  = "dhcp6"
)

// Bond modes.
const (
	ActiveBackup = "active-backup"
	LACP         = "802.3ad"
)

// What a policy asks of a server's TPM and disks.
const (
	TPMOff      = "off"
	TPMRequired = "required"
	DisksRefuse = "refuse" // a server with a disk does not go on
	DisksUnbind = "unbind" // its driver is taken off, and is proved gone
)

// Network is how a server reaches the network.
type Network struct {
	Mode string   `json:"mode"`           // Static, DHCP4 or DHCP6: then the lease has to hold the ticket's address
	MACs []string `json:"macs,omitempty"` // its network devices; none: the first Ethernet device
	Bond string   `json:"bond,omitempty"` // how several are one: ActiveBackup or LACP
	VLAN int      `json:"vlan,omitempty"` // 1 to 4094; 0: untagged
}

// Ticket is the file's content, canonical JSON.
type Ticket struct {
	Kind       string       `json:"kind"` // "mayfly-ticket/2"
	Fleet      string       `json:"fleet"`
	Domain     string       `json:"domain"`
	Server     string       `json:"server"`
	Epoch      uint64       `json:"epoch"`
	Secret     string       `json:"secret"`  // 32 random bytes, hex: makes the ticket one machine's
	Release    string       `json:"release"` // SHA-256 of release.json, hex
	Mirrors    []string     `json:"mirrors"` // each ends in "/": release.json, release.json.sig, release.json.proof and root.erofs lie below
	Network    Network      `json:"network"`
	Address    netip.Prefix `json:"address"`
	Gateway    netip.Addr   `json:"gateway"`
	Witnesses  []string     `json:"witnesses,omitempty"` // "http://IP:PORT" of who says which release is the newest
	TPM        string       `json:"tpm"`                 // TPMOff or TPMRequired
	Disks      string       `json:"disks"`               // DisksRefuse or DisksUnbind
	Controller string       `json:"controller"`          // "IP:PORT" of join
	Name       string       `json:"controller_name"`     // name in the controller's certificate
	CA         string       `json:"ca"`                  // PEM of the fleet's TLS CA
	NotAfter   time.Time    `json:"not_after"`           // join before
	MaxAge     int64        `json:"max_age_seconds"`     // the machine ends itself this long after it booted (CLOCK_BOOTTIME),
	Deadline   time.Time    `json:"deadline"`            // or at this time, whichever is first
}

// New completes a ticket with its kind and a fresh secret, and checks every field.
func New(t Ticket) (Ticket, error) {
	secret := make([]byte, SecretBytes)
	rand.Read(secret) // never fails, crypto/rand ends the program instead
	t.Kind = Kind
	t.Secret = hex.EncodeToString(secret)
	if err := t.check(); err != nil {
		return Ticket{}, fmt.Errorf("making a ticket for %q: %w", t.Server, err)
	}
	return t, nil
}

// ServerName is the name in the certificates of the server that this ticket makes.
func (t *Ticket) ServerName() string { return t.Server + "." + t.Domain }
