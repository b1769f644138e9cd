package web

import (
	"time"

	"mayfly/inventory"
)

// View is what the page shows, as data: /status.json. Its fields stay (docs/formats/page.md).
type View struct {
	Fleet   string    `json:"fleet"`
	Test    bool      `json:"test"`   // a test fleet: software keys and virtual hardware
	Policy  uint64    `json:"policy"` // version of the signed policy in force
	Made    time.Time `json:"made"`
	Stale   bool      `json:"stale"` // the fleet could not be read since Made: all of it is as old
	Mood    Mood      `json:"mood"`
	Summary string    `json:"summary"` // the mood in a sentence

	Totals      Totals        `json:"totals"`
	Regions     []Region      `json:"regions"`
	Floors      []RoleFloor   `json:"floors"` // of regions and roles, beside the regions' own
	Plan        Plan          `json:"plan"`
	Train       *Train        `json:"train"` // null: no release is on its way
	Releases    []Release     `json:"releases"`
	Quarantine  []Quarantined `json:"quarantine"`
	Controllers []Controller  `json:"controllers"`
	Pause       Pause         `json:"pause"`
	Run         Run           `json:"run"`
	Alerts      []Alert       `json:"alerts"`
	Ledger      Ledger        `json:"ledger"`
	Ages        []Age         `json:"ages"`
	Servers     []Server      `json:"servers"` // those that the query asks for, a page of them

	byName map[string]int // of Servers, in the whole view
}

// Mood is how the fleet is, in a word.
type Mood string

// Moods, the calmest first.
const (
	Calm      Mood = "ok"
	Attention Mood = "attention" // somebody should look
	Danger    Mood = "danger"    // a promise is broken, or will be
)

// Kind is how a server is shown: its state, and whether it counts as capacity.
type Kind string

// Kinds.
const (
	Serves      Kind = "serving"     // takes users and was heard of
	Silent      Kind = "silent"      // would serve, but was not heard of lately, or its life is over
	Moving      Kind = "moving"      // between leaving and serving again
	Held        Kind = "held"        // drained for an engineer
	Quarantine  Kind = "quarantined" // kept out with its cause
	StandsBy    Kind = "standby"     // a spare that is off
	NeverBooted Kind = "new"
)

// Kinds are all of them, as the page lists them.
var Kinds = []Kind{Serves, Moving, Silent, Held, Quarantine, StandsBy, NeverBooted}

// Totals count the fleet.
type Totals struct {
	Servers     int `json:"servers"`
	Serving     int `json:"serving"`
	Moving      int `json:"moving"`
	Silent      int `json:"silent"`
	Quarantined int `json:"quarantined"`
	Standby     int `json:"standby"`
	New         int `json:"new"`
	Held        int `json:"held"`
	Capacity    int `json:"capacity"` // Mbit/s of users' servers that are no spares
	Mbps        int `json:"mbps"`     // of those that serve
}

// Region is a region's capacity against its floor, in Mbit/s.
type Region struct {
	Name     string       `json:"name"`
	Capacity int          `json:"capacity"`
	Serving  int          `json:"serving"`
	Floor    int          `json:"floor"`
	Mood     Mood         `json:"mood"`
	Servers  int          `json:"servers"`
	Kinds    map[Kind]int `json:"kinds"`
	AtOnce   int          `json:"at_once"`      // servers that may be out at once, at least
	Lead     int64        `json:"lead_seconds"` // how long before its deadline a server becomes due
	Due      int          `json:"due"`          // servers that are to be rebuilt: now, or as soon as there is room
	First    *time.Time   `json:"first"`        // its next deadline
}

// RoleFloor is what the servers of a region and role keep.
type RoleFloor struct {
	Region  string `json:"region"`
	Role    string `json:"role"`
	Floor   int    `json:"floor"`
	Serving int    `json:"serving"`
	Mood    Mood   `json:"mood"`
}

// Server is one server.
type Server struct {
	Name       string          `json:"name"`
	Region     string          `json:"region"`
	Role       string          `json:"role"`
	Rack       string          `json:"rack"`
	Kind       Kind            `json:"kind"`
	State      inventory.State `json:"state"`
	Epoch      uint64          `json:"epoch"`
	Capacity   int             `json:"capacity"`
	Internal   bool            `json:"internal"`
	Spare      bool            `json:"spare"`
	Release    string          `json:"release"`
	Evidence   string          `json:"evidence"` // what is known of its boot: "attested", "claimed", "unverified" or ""
	Booted     *time.Time      `json:"booted"`
	Deadline   *time.Time      `json:"deadline"`
	Heard      *time.Time      `json:"heard"`
	AgeSeconds int64           `json:"age_seconds"`
	Left       int64           `json:"left_seconds"` // until its deadline; 0 if it has none
	Used       float64         `json:"used"`         // of its life, 0 to 1
	DueAt      float64         `json:"due_at"`       // which part of its life must be over until it is due
	Due        bool            `json:"due"`
	Now        bool            `json:"now"`
	Reason     string          `json:"reason"` // of the planner
	Why        string          `json:"why"`
	Cause      string          `json:"cause"`
	Entry      *Entry          `json:"ledger"` // its life's first entry in the public ledger
}

// Entry is where the ledger has the beginning of a life.
type Entry struct {
	Index  uint64    `json:"index"`
	At     time.Time `json:"at"`
	Epoch  uint64    `json:"epoch"`
	Proven bool      `json:"proven"` // the newest cosigned checkpoint covers it: /proof?server=NAME has the proof
}

// Plan is what happens now, and what waits.
type Plan struct {
	Inputs   string    `json:"inputs"` // hash of what it was made from
	Release  uint64    `json:"release"`
	Due      int       `json:"due"`
	Now      []Step    `json:"now"`      // begins now; the first of them
	Begins   int       `json:"begins"`   // how many there are
	Flight   []Step    `json:"flight"`   // has begun and is carried on; likewise
	Flying   int       `json:"flying"`   // how many there are
	Waiting  []Step    `json:"waiting"`  // due, and why it waits; the first of them
	Waits    int       `json:"waits"`    // how many there are
	Reasons  []Reason  `json:"reasons"`  // why how many wait
	Refusals []Refusal `json:"refusals"` // rules that cannot be kept: nothing begins
}

// Step is a server in the plan.
type Step struct {
	Server   string     `json:"server"`
	Region   string     `json:"region"`
	State    string     `json:"state"`
	Since    *time.Time `json:"since"`
	Deadline *time.Time `json:"deadline"`
	Release  uint64     `json:"release"` // that it boots; 0: the plan's
	Reason   string     `json:"reason"`
	Why      string     `json:"why"`
	By       string     `json:"by"` // the controller that carries it on
}

// Reason counts servers.
type Reason struct {
	Reason  string `json:"reason"`
	Servers int    `json:"servers"`
}

// Refusal is a rule that cannot be kept.
type Refusal struct {
	Code   string `json:"code"`
	Region string `json:"region"`
	Detail string `json:"detail"`
	Change string `json:"change"` // the smallest change that would make it feasible
}

// Train is how far a release has come.
type Train struct {
	Release   uint64     `json:"release"`
	From      uint64     `json:"from"`
	Stage     string     `json:"stage"`
	Number    int        `json:"number"`
	Stages    int        `json:"stages"`
	Reach     int        `json:"reach"` // servers that may boot it, of Servers
	Servers   int        `json:"servers"`
	Pending   int        `json:"pending"`
	Attempts  int        `json:"attempts"`
	Failed    int        `json:"failed"`
	Lower     float64    `json:"lower"` // bounds of the error rate
	Upper     float64    `json:"upper"`
	MaxErrors float64    `json:"max_errors"`
	Verdict   string     `json:"verdict"`
	Why       string     `json:"why"`
	Until     *time.Time `json:"until"` // when the stage has baked
}

// Release is one release that the fleet knows of.
type Release struct {
	Version uint64     `json:"version"`
	Digest  string     `json:"digest"`
	InUse   bool       `json:"in_use"`
	Used    *time.Time `json:"used"` // when it came into use, and by whom
	UsedBy  string     `json:"used_by"`
	Mark    string     `json:"mark"` // "good", "bad" or ""
	Marked  *time.Time `json:"marked"`
	By      string     `json:"by"`
	Why     string     `json:"why"`
	Servers int        `json:"servers"` // whose lives run it
}

// Quarantined is a server that is kept out.
type Quarantined struct {
	Server  string     `json:"server"`
	Region  string     `json:"region"`
	Epoch   uint64     `json:"epoch"`
	Since   *time.Time `json:"since"`
	Cause   string     `json:"cause"`   // the first one
	Detail  string     `json:"detail"`  // what the server itself said of it, if anything
	Console []string   `json:"console"` // the last lines, made printable
}

// Controller is a holder of claims.
type Controller struct {
	Name    string     `json:"name"`
	Servers []string   `json:"servers"`
	Claims  int        `json:"claims"`
	Expires *time.Time `json:"expires"` // the first of them, unless it is renewed
}

// Pause is whether rotations begin.
type Pause struct {
	On  bool       `json:"on"`
	By  string     `json:"by"`
	Why string     `json:"why"`
	At  *time.Time `json:"at"`
}

// Run is the open run, or the last one.
type Run struct {
	ID        int64      `json:"id"`
	Open      bool       `json:"open"`
	Began     *time.Time `json:"began"`
	Ended     *time.Time `json:"ended"`
	Result    string     `json:"result"`
	Cancelled *time.Time `json:"cancelled"`
	By        string     `json:"by"`
}

// Alert is what somebody should look at.
type Alert struct {
	Mood   Mood   `json:"mood"`
	Code   string `json:"code"`
	Server string `json:"server"`
	Region string `json:"region"`
	Text   string `json:"text"`
}

// Ledger is the public ledger as the controller has it.
type Ledger struct {
	Origin    string     `json:"origin"`
	Size      uint64     `json:"size"`      // entries that the newest cosigned checkpoint covers
	Root      string     `json:"root"`      // its root hash, base64
	Entries   uint64     `json:"entries"`   // that were read
	Witnesses []string   `json:"witnesses"` // who cosigned it
	Needed    int        `json:"needed"`
	Read      *time.Time `json:"read"`
	Problem   string     `json:"problem"`
	Proven    int        `json:"proven"` // servers whose life it proves
	Lives     int        `json:"lives"`  // servers that live
}

// Age counts servers by how much of their life is over.
type Age struct {
	From    int `json:"from_percent"`
	Servers int `json:"servers"`
	Due     int `json:"due"`
}
