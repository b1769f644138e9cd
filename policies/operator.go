package policies

import (
	"fmt"
	"slices"
	"strings"

	"mayfly/internal/tomlfile"
)

// What operators have done by a request (package policies/request). Specification: these are the words of [[operator]] actions.
const (
	ActionDrain      = "drain"       // a VPN server is taken out of traffic for an engineer
	ActionCertify    = "certify"     // a bastion gets its first certificate for a host key
	ActionCARotate   = "ca-rotate"   // the next CA of SSH host certificates is made, or signs from now on
	ActionCARetire   = "ca-retire"   // a CA that signs no more is believed no more
	ActionCAOverride = "ca-override" // either of the two before its time: engineers may be warned, or refused

	ActionRotate    = "rotate"           // servers are rebuilt outside of the schedule
	ActionEmergency = "rotate-emergency" // over floors, windows, caps and rates
	ActionPause     = "pause"            // rotations begin no more, or again, or the open one is cancelled
	ActionImageUse  = "image-use"        // which release servers boot, or never again
	ActionRestore   = "restore"          // a controller's store is put back: what was done since is forgotten
	ActionPage      = "page"             // an engineer gets a client certificate for the page
	ActionSecret    = "secret"           // the password of a BMC is kept, or replaced
)

// Actions are all of them.
var Actions = []string{ActionDrain, ActionCertify, ActionCARotate, ActionCARetire, ActionCAOverride,
	ActionRotate, ActionEmergency, ActionPause, ActionImageUse, ActionRestore, ActionPage, ActionSecret}

// overriding are the actions that break what the fleet promises its people. One person never does.
var overriding = []string{ActionCAOverride, ActionEmergency, ActionRestore}

// Bounds of [[operator]].
const (
	maxOperators = 64
	// MaxOperatorPeople is the most people that a request can be made to take.
	MaxOperatorPeople = 8
)

// Operator says who may have what done. Of several that name an action, any is enough.
type Operator struct {
	Engineers []string `toml:"engineers" json:"engineers"`
	Actions   []string `toml:"actions" json:"actions"`
	People    int      `toml:"people" json:"people,omitempty"` // of these engineers, each with a signature; left out: 1, or 2 for what overrides a promise
}

// Needs is how many people this action takes.
func (o Operator) Needs(action string) int { return max(o.People, leastPeople(action)) }

func leastPeople(action string) int {
	if slices.Contains(overriding, action) {
		return 2
	}
	return 1
}

// OperatorsOf are the tables that name an action.
func (p Policy) OperatorsOf(action string) []Operator {
	var list []Operator
	for _, o := range p.Operators {
		if slices.Contains(o.Actions, action) {
			list = append(list, o)
		}
	}
	return list
}

// SignerOf decides whose signature one by this key is: an engineer's, by an enrolled key whose evidence is accepted. userVerified is what the
// signature itself says. With the verdict comes the evidence in words.
func (p Policy) SignerOf(public string, userVerified bool) (engineer, evidence string, v Verdict) {
	name, v := p.Owner(public)
	if !v.Allow {
		return "", "", v
	}
	if p.SSH.VerifyRequired && securityKey(public) && !userVerified { // a card's key says it by its evidence alone
		return "", "", deny(KeyNoUserVerification, "the signature of %s was made without user verification", name)
	}
	k, _ := p.Enrolled(name, public)
	proof, _ := p.Proof(name, k)
	return name, EvidenceText(k, proof), v
}

// checkOperators runs after checkEngineers.
func (p Policy) checkOperators() error {
	if len(p.Operators) > maxOperators {
		return tomlfile.At("operator", "put those with the same engineers together", "%d [[operator]] tables: at most %d", len(p.Operators), maxOperators)
	}
	for i, o := range p.Operators {
		at := fmt.Sprintf("operator[%d]", i)
		if len(o.Engineers) == 0 || len(o.Engineers) > maxList {
			return tomlfile.At(at+".engineers", `engineers = ["anna", "bert"]`, "operator %d has %d engineers: it is 1 to %d", i+1, len(o.Engineers), maxList)
		}
		for j, name := range o.Engineers {
			place := fmt.Sprintf("%s.engineers[%d]", at, j)
			if !slices.ContainsFunc(p.Engineers, func(e Engineer) bool { return e.Name == name }) {
				return tomlfile.At(place, "an operator is an [[engineer]], whose key signs", "operator %d names %q, who is no engineer", i+1, name)
			}
			if slices.Contains(o.Engineers[:j], name) {
				return tomlfile.At(place, "each once", "operator %d names %q twice", i+1, name)
			}
		}
		if len(o.Actions) == 0 {
			return tomlfile.At(at+".actions", `actions = ["drain"]`, "operator %d may do nothing", i+1)
		}
		for j, a := range o.Actions {
			place := fmt.Sprintf("%s.actions[%d]", at, j)
			if !slices.Contains(Actions, a) {
				return tomlfile.At(place, strings.Join(Actions, ", "), "operator %d: there is no action %q", i+1, a)
			}
			if slices.Contains(o.Actions[:j], a) {
				return tomlfile.At(place, "each once", "operator %d names %q twice", i+1, a)
			}
			if o.People > 0 && o.People < leastPeople(a) {
				return tomlfile.At(at+".people", "a table of its own for the others", "operator %d: %s overrides a promise, and takes %d people", i+1, a, leastPeople(a))
			}
			if need := o.Needs(a); need > len(o.Engineers) {
				return tomlfile.At(at+".engineers", "name more engineers", "operator %d: %s takes %d people, and there are %d", i+1, a, need, len(o.Engineers))
			}
		}
		if o.People < 0 || o.People > MaxOperatorPeople {
			return tomlfile.At(at+".people", "leave it out for the default", "operator %d: people = %d, it is 1 to %d", i+1, o.People, MaxOperatorPeople)
		}
	}
	return nil
}
