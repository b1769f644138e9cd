package main

import (
	"context"
	"fmt"

	"mayfly/internal/command"
	"mayfly/policies"
)

// What a verb changes that others go by. Specification: docs/formats/request.md has the table.
const (
	onNothing = "nothing" // shows, compares, or writes files that count for nobody before people have signed them
	onServers = "servers" // which are there, what they run, who may be on them
	onPolicy  = "policy"  // what is in force
	onKeys    = "keys"    // what is believed, or opened by whom
)

// By whose word it does.
const (
	byNobody    = "-"
	byRequest   = "request"    // an order that engineers signed, checked by the process that acts (authority.Act, or the signer)
	byThreshold = "threshold"  // as many approvers, builders or recovery people as the trust policy says have signed what is carried; checked by who acts
	bySignature = "signature"  // the verb makes one person's signature, with that person's key; it counts as one
	byPolicy    = "policy"     // the signed policy in force says it
	byCeremony  = "ceremony"   // people in one room, before there is a fleet
	byRoot      = "root"       // who owns the machine: the directory is laid out, or a process that holds no fleet key is run
	byOffline   = "own secret" // what is made, is made on a machine of its own, and counts when the trust policy names it
)

// effect is what a verb changes, and by whose word.
type effect struct {
	on      string
	by      string
	actions []string // of byRequest: those that it can be
	who     string   // who checks
}

// effects are those of every verb of the program: a test holds them to its table of verbs. A verb whose actions are not here does not act.
var effects = map[string]effect{
	"init":    {on: onKeys, by: byCeremony, who: "the people: the record is read aloud and signed"},
	"signer":  {on: onKeys, by: byPolicy, who: "itself, for each certificate"},
	"serve":   {on: onServers, by: byPolicy, who: "the servers and the signer"},
	"checkin": {on: onNothing, by: byNobody}, "deploy-files": {on: onNothing, by: byNobody},
	"witness": {on: onPolicy, by: byThreshold, who: "itself"},

	"status": {on: onNothing, by: byNobody}, "logins": {on: onNothing, by: byNobody}, "plan": {on: onNothing, by: byNobody},
	"rotate": {on: onServers, by: byRequest, actions: []string{policies.ActionRotate, policies.ActionEmergency}, who: "itself; the schedule is the policy's, and carries none"},
	"pause":  {on: onServers, by: byRequest, actions: []string{policies.ActionPause}, who: "itself"},
	"resume": {on: onServers, by: byRequest, actions: []string{policies.ActionPause}, who: "itself"},
	"cancel": {on: onServers, by: byRequest, actions: []string{policies.ActionPause}, who: "itself"},

	"image lock": {on: onNothing, by: byNobody}, "image fetch": {on: onNothing, by: byNobody}, "image build": {on: onNothing, by: byNobody},
	"image diff": {on: onNothing, by: byNobody}, "image sbom": {on: onNothing, by: byNobody}, "image verify": {on: onNothing, by: byNobody},
	"image medium": {on: onNothing, by: byNobody}, "image secureboot-vars": {on: onNothing, by: byNobody},
	"image update":          {on: onNothing, by: bySignature, who: "whoever counts builders"},
	"image rebuild":         {on: onNothing, by: bySignature, who: "whoever counts builders"},
	"image sign":            {on: onNothing, by: bySignature, who: "whoever counts approvers"},
	"image publish":         {on: onServers, by: byThreshold, who: "the signer, which keeps the ledger"},
	"image use":             {on: onServers, by: byRequest, actions: []string{policies.ActionImageUse}, who: "itself"},
	"image bad":             {on: onServers, by: byRequest, actions: []string{policies.ActionImageUse}, who: "itself"},
	"image secureboot-keys": {on: onKeys, by: byOffline, who: "the firmware, and the trust policy that names them"},
	"image sign-efi":        {on: onNothing, by: byOffline, who: "the firmware"},
	"endorsement-key":       {on: onNothing, by: byNobody},

	"ledger verify": {on: onNothing, by: byNobody}, "ledger show": {on: onNothing, by: byNobody}, "ledger proof": {on: onNothing, by: byNobody}, "ledger key": {on: onNothing, by: byNobody},

	"approve": {on: onServers, by: bySignature, who: "the bastion"}, "approvals": {on: onNothing, by: byNobody},
	"drain":            {on: onServers, by: byRequest, actions: []string{policies.ActionDrain}, who: "the signer"},
	"break-glass open": {on: onServers, by: bySignature, who: "the bastion, which counts people"}, "break-glass status": {on: onNothing, by: byNobody},
	"request make": {on: onNothing, by: bySignature, who: "whoever acts by it"}, "request sign": {on: onNothing, by: bySignature, who: "whoever acts by it"},
	"request show": {on: onNothing, by: byNobody},
	"extend make":  {on: onNothing, by: byNobody}, "extend sign": {on: onNothing, by: bySignature, who: "the signer and the server"},
	"extend send":    {on: onServers, by: byThreshold, who: "the signer and the server, each by itself"},
	"verify-history": {on: onNothing, by: byNobody}, "approve-change": {on: onNothing, by: bySignature, who: "`fleetctl verify-history`"},

	"policy check": {on: onNothing, by: byNobody}, "policy bundle": {on: onNothing, by: byNobody}, "policy plugin-hash": {on: onNothing, by: byNobody},
	"policy sign":    {on: onPolicy, by: bySignature, who: "everything that loads a policy counts approvers"},
	"policy publish": {on: onPolicy, by: byThreshold, who: "the witnesses"},
	"key challenge":  {on: onNothing, by: byNobody}, "key list": {on: onNothing, by: byNobody}, "key show": {on: onNothing, by: byNobody},
	"key add": {on: onNothing, by: byNobody}, "key revoke": {on: onNothing, by: byNobody}, // in policy.toml, which counts when approvers have signed it
	"ssh-config": {on: onNothing, by: byNobody}, "robot-keys": {on: onNothing, by: byNobody},
	"certify": {on: onKeys, by: byRequest, actions: []string{policies.ActionCertify}, who: "the signer; a renewal is the policy's"},

	"trust show": {on: onNothing, by: byNobody}, "trust propose": {on: onNothing, by: byNobody}, "trust verify": {on: onNothing, by: byNobody},
	"trust sign":  {on: onNothing, by: bySignature, who: "whoever takes the step"},
	"trust apply": {on: onKeys, by: byThreshold, who: "everything that follows the trust policy, by itself"},

	"secret seal": {on: onKeys, by: byRequest, actions: []string{policies.ActionSecret}, who: "itself"}, "secret list": {on: onNothing, by: byNobody},
	"page-certificate": {on: onKeys, by: byRequest, actions: []string{policies.ActionPage}, who: "the signer"},
	"ca list":          {on: onNothing, by: byNobody},
	"ca rotate":        {on: onKeys, by: byRequest, actions: []string{policies.ActionCARotate, policies.ActionCAOverride}, who: "itself, as the signer's user"},
	"ca retire":        {on: onKeys, by: byRequest, actions: []string{policies.ActionCARetire, policies.ActionCAOverride}, who: "itself, as the signer's user"},
	"ca publish":       {on: onNothing, by: byPolicy, who: "the same files again, by the keys and the signed inventory"},

	"backup":  {on: onNothing, by: byNobody},
	"restore": {on: onServers, by: byRequest, actions: []string{policies.ActionRestore}, who: "itself"},
	"doctor":  {on: onNothing, by: byRoot, who: "the kernel: owners and modes"},

	"simulate": {on: onNothing, by: byNobody}, "diff": {on: onNothing, by: byNobody}, "import": {on: onNothing, by: byNobody},
	"completion": {on: onNothing, by: byNobody}, "complete": {on: onNothing, by: byNobody},
}

// classified refuses a verb that nobody has said this of.
func classified(v command.Verb) command.Verb {
	if _, ok := effects[v.Name]; ok {
		return v
	}
	v.Run = func(context.Context, *command.Call) error {
		return command.Refuse(fmt.Errorf("%s: nobody has said by whose word this verb acts: fleetctl/effects.go", v.Name))
	}
	return v
}
