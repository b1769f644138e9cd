// Package policies says who may and what may: address lists, SSH algorithms, engineers and their keys, grants, rotation
// rules. Data in, verdict out: it does no I/O, never reads the clock, and the zero value of every decision denies.
package policies

import (
	"net/netip"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/inventory"
)

// Policy is a parsed and checked policy.toml. It takes effect only inside a signed bundle (policies/bundle).
type Policy struct {
	Version   uint64     `toml:"version" json:"version"` // rises with every change
	Expires   time.Time  `toml:"expires" json:"expires"` // nothing is admitted after this
	SSH       SSH        `toml:"ssh" json:"ssh"`
	Hardware  Hardware   `toml:"hardware" json:"hardware"`
	Engineers []Engineer `toml:"engineer" json:"engineers"`

	BreakGlass []BreakGlass `toml:"break_glass" json:"break_glass,omitempty"` // identities that stay sealed until several people open them

	Robots       []Robot      `toml:"robot" json:"robots,omitempty"`
	Certificates Certificates `toml:"certificates" json:"certificates,omitzero"`

	Operators []Operator `toml:"operator" json:"operators,omitempty"` // who may have what done; none: nobody, but in a fleet with test = true

	Grants   []Grant  `toml:"grant" json:"grants"`
	Rotation Rotation `toml:"rotation" json:"rotation"`
	Image    Image    `toml:"image" json:"image"`

	Session Session  `toml:"session" json:"session,omitzero"`
	Witness Witness  `toml:"witness" json:"witness"`
	Plugins []Plugin `toml:"plugin" json:"plugins"`
	History History  `toml:"history" json:"history,omitzero"`

	proven map[enrolled]verified // by Verified; never changed afterwards
}

// SSH is how the bastion may be reached. Zero limits mean the defaults named in limits.go.
type SSH struct {
	Level             Level          `toml:"level" json:"level"`
	Allow             []netip.Prefix `toml:"allow" json:"allow"`                   // addresses that may connect; empty is refused
	Proxies           []netip.Prefix `toml:"proxies" json:"proxies"`               // balancers: they connect instead, with a PROXY protocol v2 header
	PenaltyExempt     []netip.Prefix `toml:"penalty_exempt" json:"penalty_exempt"` // sources that collect no penalties
	HandshakeDeadline Duration       `toml:"handshake_deadline" json:"handshake_deadline"`
	IdleTimeout       Duration       `toml:"idle_timeout" json:"idle_timeout"`
	SessionLimit      Duration       `toml:"session_limit" json:"session_limit"`
	MaxStartups       int            `toml:"max_startups" json:"max_startups"`         // unauthenticated connections in all
	MaxPerSource      int            `toml:"max_per_source" json:"max_per_source"`     // unauthenticated connections from one /32 or /64
	MaxSessions       int            `toml:"max_sessions" json:"max_sessions"`         // authenticated connections in all
	MaxPerEngineer    int            `toml:"max_per_engineer" json:"max_per_engineer"` // authenticated connections of one engineer
	MaxChannels       int            `toml:"max_channels" json:"max_channels"`         // open channels of one connection

	MaxRobots   int `toml:"max_robots" json:"max_robots,omitempty"`       // authenticated connections of robots, beside those of people
	MaxPerRobot int `toml:"max_per_robot" json:"max_per_robot,omitempty"` // of those, of one robot

	VerifyRequired bool `toml:"verify_required" json:"verify_required,omitempty"` // only keys whose evidence proves user verification

	// Parts of the level's lists; left out: all of it.
	KeyExchanges []string `toml:"key_exchanges" json:"key_exchanges,omitempty"`
	Ciphers      []string `toml:"ciphers" json:"ciphers,omitempty"`
	MACs         []string `toml:"macs" json:"macs,omitempty"`
	HostKeys     []string `toml:"host_keys" json:"host_keys,omitempty"`
	UserKeys     []string `toml:"user_keys" json:"user_keys,omitempty"`
}

// Hardware is what counts as evidence that a key lives in hardware (package bastion/hardkey). What is left out has the default there.
type Hardware struct {
	TestRoots []string `toml:"test_roots" json:"test_roots"` // software authenticators accepted in a fleet with test = true

	Slots        []string `toml:"slots" json:"slots,omitempty"`               // PIV: where on the card a key may be
	PINPolicies  []string `toml:"pin_policies" json:"pin_policies,omitempty"` // PIV: "once", "always", "match_once", "match_always", "never"
	MinFirmware  string   `toml:"min_firmware" json:"min_firmware,omitempty"` // PIV: "5.7.0"
	SerialsAllow []uint32 `toml:"serials_allow" json:"serials_allow,omitempty"`
	SerialsDeny  []uint32 `toml:"serials_deny" json:"serials_deny,omitempty"`
	AAGUIDs      []string `toml:"aaguids" json:"aaguids,omitempty"` // FIDO2: models that count
	Revoked      []string `toml:"revoked" json:"revoked,omitempty"` // fingerprints, "SHA256:…", of keys that never come back

	FIDO2Issuers []hardkey.Issuer `toml:"fido2_issuer" json:"fido2_issuers,omitempty"`
	TestIssuers  []hardkey.Issuer `toml:"test_issuer" json:"test_issuers,omitempty"` // of virtual cards, in a fleet with test = true
}

// Engineer is a person with one or more hardware keys.
type Engineer struct {
	Name  string         `toml:"name" json:"name"`   // Unix account name; never root
	Allow []netip.Prefix `toml:"allow" json:"allow"` // narrows SSH.Allow for this person; empty: not narrowed
	Keys  []Key          `toml:"key" json:"keys"`
}

// Key is an enrolled public key with what was shown for it, which is verified again at every load (Policy.Verified).
type Key struct {
	Public      string   `toml:"public" json:"public"`                     // authorized_keys form, without options
	Evidence    string   `toml:"evidence" json:"evidence"`                 // "piv", "fido2"; "test:ROOT" or "test:ROOT+uv" with ROOT in Hardware.TestRoots
	Challenge   string   `toml:"challenge" json:"challenge,omitempty"`     // as in hardkey.Shown
	Attestation []string `toml:"attestation" json:"attestation,omitempty"` // base64
	Signature   string   `toml:"signature" json:"signature,omitempty"`     // base64
}

// Grant lets engineers open ports on servers. A server is an inventory name, "region:NAME" or "*".
type Grant struct {
	Engineers []string `toml:"engineers" json:"engineers"`
	Servers   []string `toml:"servers" json:"servers"`
	Ports     []uint16 `toml:"ports" json:"ports"`
	Windows   []Window `toml:"window" json:"windows,omitempty"`    // when it holds; none: always
	Approval  bool     `toml:"approval" json:"approval,omitempty"` // another engineer has to approve, each time
	Session   bool     `toml:"session" json:"session,omitempty"`   // through the bastion's recorded session mode, and by no jump
	Drained   bool     `toml:"drained" json:"drained,omitempty"`   // VPN servers only while they are drained, before a rebuild
}

// Rotation is how servers are rebuilt.
type Rotation struct {
	MaxAge      Duration `toml:"max_age" json:"max_age"`           // no older server serves
	MaxParallel int      `toml:"max_parallel" json:"max_parallel"` // servers out at once, in all regions
	DrainLimit  Duration `toml:"drain_limit" json:"drain_limit"`   // how long a drain waits for what is in flight
	BootLimit   Duration `toml:"boot_limit" json:"boot_limit"`     // from power on to joined and healthy
	Bake        Duration `toml:"bake" json:"bake"`                 // healthy for this long before users come
	Retries     int      `toml:"retries" json:"retries"`           // further boots before quarantine

	MaxPerHour int              `toml:"max_per_hour" json:"max_per_hour,omitempty"` // servers that leave in any hour; 0: not limited
	MaxSpares  int              `toml:"max_spares" json:"max_spares,omitempty"`     // spare servers of one region that serve at once while others are out (surge); 0: none
	Floors     []Floor          `toml:"floor" json:"floors,omitempty"`              // beside the regions' own
	Caps       []Cap            `toml:"cap" json:"caps,omitempty"`
	Windows    []RotationWindow `toml:"window" json:"windows,omitempty"`     // when planned rotations begin; none: always
	Blackouts  []Blackout       `toml:"blackout" json:"blackouts,omitempty"` // when none begins
	Train      Train            `toml:"train" json:"train,omitzero"`
	Schedule   Schedule         `toml:"schedule" json:"schedule,omitzero"`
}

// Floor is the capacity that the servers of a region and role keep.
type Floor struct {
	Region string          `toml:"region" json:"region,omitempty"` // left out: each region
	Role   string          `toml:"role" json:"role,omitempty"`     // left out: all roles together
	Floor  inventory.Floor `toml:"floor" json:"floor"`
}

// Cap is how many servers that share something may be out at once.
type Cap struct {
	Domain string `toml:"domain" json:"domain"`       // "rack", "switch", "bmc" or "mirror"
	Name   string `toml:"name" json:"name,omitempty"` // left out: each of them
	Max    int    `toml:"max" json:"max"`             // at least 1
}

// RotationWindow is a time of the week, by the clocks of a place, in which planned rotations begin.
type RotationWindow struct {
	Regions []string `toml:"regions" json:"regions,omitempty"` // left out: all
	Days    []string `toml:"days" json:"days"`                 // "mon" to "sun"
	From    string   `toml:"from" json:"from"`                 // "02:00"
	To      string   `toml:"to" json:"to"`                     // "05:00", at the latest "24:00"
	Zone    string   `toml:"zone" json:"zone,omitempty"`       // "Europe/Stockholm"; left out: UTC
}

// Blackout is a time in which no planned rotation begins.
type Blackout struct {
	Name    string    `toml:"name" json:"name"`
	Regions []string  `toml:"regions" json:"regions,omitempty"` // left out: all
	From    time.Time `toml:"from" json:"from"`
	To      time.Time `toml:"to" json:"to"`
}

// Train is how a new release comes to servers: the internal ring, canaries, then shares of the fleet. The zero value is no train:
// everything boots the release in use.
type Train struct {
	Canaries   int      `toml:"canaries" json:"canaries"`     // servers in different regions, after the internal ring
	Steps      []int    `toml:"steps" json:"steps"`           // percent of the fleet, rising; the last is 100
	Bake       Duration `toml:"bake" json:"bake"`             // each stage, after its last server serves
	MaxErrors  float64  `toml:"max_errors" json:"max_errors"` // share of rotations to the release that may fail, 0 to 0.5
	Confidence float64  `toml:"confidence" json:"confidence"` // of the bound, 0.8 to 0.999; left out: 0.95
}

// Schedule is when `fleetctl serve` rotates by itself. The zero value is never.
type Schedule struct {
	Every Duration `toml:"every" json:"every"`           // between the beginnings of two runs
	Alert Duration `toml:"alert" json:"alert,omitempty"` // a server is named that long before its deadline; left out: half its lead
}

// Image is which release may run, and what is asked of the machine that runs it.
type Image struct {
	MinVersion uint64 `toml:"min_version" json:"min_version"`
	TPM        string `toml:"tpm" json:"tpm,omitempty"`     // TPMRequired, which is the default, or TPMOff: a ticket alone lets a server in
	Disks      string `toml:"disks" json:"disks,omitempty"` // DisksRefuse, which is the default, or DisksUnbind
}
