package rotate

import (
	"slices"
	"strings"

	"mayfly/rebuild/join"
)

// Check is one thing that a life has to show before it serves.
type Check string

// Checks of a life, each after what it needs.
const (
	CheckPower    Check = "power"    // the machine was read back as off, and then as on in this life
	CheckBoot     Check = "boot"     // firmware, kernel and stub came up and refused nothing
	CheckJoin     Check = "join"     // it came to the controller with its one-time ticket
	CheckAttest   Check = "attest"   // the signer believed its evidence, and it is another boot than the last one
	CheckServices Check = "services" // everything in it runs, by its own word
	CheckProbe    Check = "probe"    // it answers from outside
	CheckTraffic  Check = "traffic"  // it was healthy for the bake time and takes users
)

// needs are what each check rests on. A check whose ground has failed is not reached, and its own answer says nothing.
var needs = []struct {
	check Check
	on    []Check
}{
	{CheckPower, nil},
	{CheckBoot, []Check{CheckPower}},
	{CheckJoin, []Check{CheckBoot}},
	{CheckAttest, []Check{CheckJoin}},
	{CheckServices, []Check{CheckAttest}},
	{CheckProbe, []Check{CheckServices}},
	{CheckTraffic, []Check{CheckProbe}},
}

// Answers of a check.
const (
	CheckOK         = "ok"
	CheckFailed     = "failed"
	CheckNotReached = "not reached"
)

// Node is a check with its answer.
type Node struct {
	Check    Check  `json:"check"`
	State    string `json:"state"` // CheckOK, CheckFailed or CheckNotReached
	Evidence string `json:"evidence,omitempty"`
}

// Gate is the answers of all checks, in order.
type Gate []Node

// gate judges what is known: evidence of what was passed, and what failed. A check that neither passed nor failed, or whose ground did not
// pass, is not reached.
func gate(passed, failed map[Check]string) Gate {
	var g Gate
	state := map[Check]string{}
	for _, n := range needs {
		node := Node{Check: n.check, State: CheckNotReached}
		grounded := true
		for _, on := range n.on {
			grounded = grounded && state[on] == CheckOK
		}
		evidence, bad := failed[n.check]
		proof, good := passed[n.check]
		switch {
		case !grounded:
		case bad:
			node.State, node.Evidence = CheckFailed, evidence
		case good:
			node.State, node.Evidence = CheckOK, proof
		}
		state[n.check] = node.State
		g = append(g, node)
	}
	return g
}

// First is the first cause: the check that failed while everything before it was in order.
func (g Gate) First() (Node, bool) {
	for _, n := range g {
		if n.State == CheckFailed {
			return n, true
		}
	}
	return Node{}, false
}

// String is the first cause, and what was not reached for it.
func (g Gate) String() string {
	first, ok := g.First()
	if !ok {
		return "no check failed"
	}
	var after []string
	for _, n := range g {
		if n.State == CheckNotReached {
			after = append(after, string(n.Check))
		}
	}
	text := string(first.Check) + ": " + first.Evidence
	if len(after) > 0 {
		text += "; not reached: " + strings.Join(after, ", ")
	}
	return text
}

// facts are what is known of a life when it fails.
type facts struct {
	on       bool   // read back as on in this life
	power    string // how
	joined   bool
	evidence string // what the signer found
	ready    bool   // everything in it ran, by its last word
	probed   bool   // it answered from outside
}

// judge is the gate of a life that failed at a check, with everything that is known beside.
func judge(k facts, at Check, why string) Gate {
	passed := map[Check]string{}
	if k.on || k.joined {
		passed[CheckPower] = k.power
	}
	if k.joined {
		passed[CheckBoot], passed[CheckJoin], passed[CheckAttest] = "it joined", "with its ticket", k.evidence
	}
	if k.ready || k.probed {
		passed[CheckServices] = "by its own word"
	}
	if k.probed {
		passed[CheckProbe] = "from outside"
	}
	// What comes before the check that failed was in order, or it would have failed there.
	for _, n := range needs {
		if n.check == at {
			break
		}
		if _, ok := passed[n.check]; !ok {
			passed[n.check] = ""
		}
	}
	return gate(passed, map[Check]string{at: why})
}

// checkOf is the check that a reason code of a machine's own report belongs to.
func checkOf(reason string, joined bool) Check {
	switch {
	case strings.HasPrefix(reason, "power_"):
		return CheckPower
	case strings.HasPrefix(reason, "quote_"):
		return CheckAttest
	case slices.Contains(joinReasons, reason):
		return CheckJoin
	case joined:
		return CheckServices
	}
	return CheckBoot
}

// joinReasons are the codes with which a controller turns away a machine that came up.
var joinReasons = []string{join.BodyOversize, join.BodyMalformed, join.RequestInvalid, join.TicketUnknown, join.TicketUsed, join.TicketRevoked, join.TicketOlder,
	join.StillServing, join.TicketAhead, join.LifeRevoked, join.LifeDrained, join.ServerUnknown, join.NotInInventory, join.NameNotAllowed, join.RateLimited,
	join.StateWrong, join.ControllerFailed, join.BundleMissing, join.ChallengeUnknown, join.ChallengeExpired, join.ChallengeOther, join.ChallengeLimit, join.TimeWrong}
