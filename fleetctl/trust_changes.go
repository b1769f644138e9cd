package main

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"

	"mayfly/bastion/hardkey"
	"mayfly/policies"
	"mayfly/policies/trust"
)

// changes says in a line each what a trust policy changes of the one before: each key, rule and issuer, whole. It is what people sign by.
func changes(old, next *trust.Trust) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, r := range []struct {
		role     string
		was, now []trust.Person
	}{{"approver", old.Approvers, next.Approvers}, {"recovery", old.Recovery.People, next.Recovery.People}, {"builder", old.Builders, next.Builders}, {"witness", old.Witnesses, next.Witnesses}} {
		for _, p := range r.was {
			for i, key := range p.Keys {
				if !holds(r.now, p.Name, key) {
					say("- %s %s loses %s (%s)", r.role, p.Name, policies.Fingerprint(key), proves(old, p, i))
				}
			}
		}
		for _, p := range r.now {
			for i, key := range p.Keys {
				if !holds(r.was, p.Name, key) {
					say("+ %s %s gets %s (%s)", r.role, p.Name, policies.Fingerprint(key), proves(next, p, i))
				} else if !reflect.DeepEqual(p.ShownFor(i), shownBefore(r.was, p.Name, key)) {
					say("! %s %s shows something else for %s (%s)", r.role, p.Name, policies.Fingerprint(key), proves(next, p, i))
				}
			}
		}
	}
	for _, f := range []struct {
		name     string
		was, now int
	}{{"threshold", old.Threshold, next.Threshold}, {"recovery threshold", old.Recovery.Threshold, next.Recovery.Threshold}, {"builder threshold", old.BuilderThreshold, next.BuilderThreshold}, {"witness threshold", old.WitnessThreshold, next.WitnessThreshold}} {
		if f.was != f.now {
			say("! %s %d becomes %d", f.name, f.was, f.now)
		}
	}
	if old.MinRelease != next.MinRelease {
		say("! min_release %d becomes %d", old.MinRelease, next.MinRelease)
	}
	for _, l := range []struct {
		name     string
		was, now []string
	}{{"rule for hardware", eachRule(old.Hardware), eachRule(next.Hardware)}, {"key for tickets", fingerprints(old.TicketKeys), fingerprints(next.TicketKeys)},
		{"key for server lists", fingerprints(old.ListKeys), fingerprints(next.ListKeys)},
		{"key of the ledger", fingerprints(old.LedgerKeys), fingerprints(next.LedgerKeys)}, {"certificate for Secure Boot", old.SecureBoot, next.SecureBoot}} {
		for _, x := range l.was {
			if !slices.Contains(l.now, x) {
				say("- %s: %s", l.name, x)
			}
		}
		for _, x := range l.now {
			if !slices.Contains(l.was, x) {
				say("+ %s: %s", l.name, x)
			}
		}
	}
	return lines
}

// eachRule are the rules for evidence one by one, so that what is new is not lost among what was there. A list that is empty is one that has its own
// meaning, and is named.
func eachRule(h trust.Hardware) (rules []string) {
	for _, l := range []struct {
		name, none string
		list       []string
	}{{"slot", "the slots that hold without any rule", h.Slots}, {"PIN policy", "the PIN policies that hold without any rule", h.PINPolicies},
		{"serial number, no others", "cards of any serial number", numbers(h.SerialsAllow)}, {"serial number refused", "", numbers(h.SerialsDeny)},
		{"model of FIDO2 (AAGUID)", "no model of FIDO2", h.AAGUIDs}} {
		if len(l.list) == 0 && l.none != "" {
			rules = append(rules, l.none)
		}
		for _, x := range l.list {
			rules = append(rules, l.name+" "+x)
		}
	}
	least := h.MinFirmware
	if least == "" {
		least = hardkey.DefaultMinFirmware
	}
	verified := "PIN or biometry where the card asks for it"
	if h.VerifyRequired {
		verified = "PIN or biometry always"
	}
	rules = append(rules, "least firmware "+least, verified)
	for _, i := range h.FIDO2Issuers {
		rules = append(rules, ruleOfIssuer("another maker of FIDO2 keys", i))
	}
	for _, i := range h.TestIssuers {
		rules = append(rules, ruleOfIssuer("a maker of TEST cards ("+i.Applet+")", i))
	}
	return rules
}

// ruleOfIssuer names an issuer by its certificate, whose name anybody can choose.
func ruleOfIssuer(what string, i hardkey.Issuer) string {
	sum := "that is not readable"
	if der, err := base64.StdEncoding.DecodeString(i.Certificate); err == nil {
		sum = "sha256 " + trust.Sum(der)
	}
	return fmt.Sprintf("%s: %s, certificate %s", what, visible(i.Name), sum)
}

func shownBefore(people []trust.Person, name, key string) hardkey.Shown {
	for _, p := range people {
		if i := slices.Index(p.Keys, key); p.Name == name && i >= 0 {
			return p.ShownFor(i)
		}
	}
	return hardkey.Shown{}
}

func holds(people []trust.Person, name, key string) bool {
	return slices.ContainsFunc(people, func(p trust.Person) bool { return p.Name == name && slices.Contains(p.Keys, key) })
}
