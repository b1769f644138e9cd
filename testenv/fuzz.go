package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"mayfly/internal/command"
)

// fuzzTargets are the parsers of what a bastion gets from outside. TestFuzzTargets sees that each exists and has seeds; docs/testing.md has this table.
var fuzzTargets = []struct{ input, pkg, name string }{
	{"policy", "./policies", "FuzzParse"},
	{"policy bundle", "./policies/bundle", "FuzzParse"},
	{"addresses of stores", "./inventory", "FuzzStoreAddress"},
	{"backups", "./inventory/store", "FuzzReadContent"},
	{"authorized keys", "./policies", "FuzzPublicKey"},
	{"policy.toml, to change it", "./policies", "FuzzEdit"},
	{"certificates", "./bastion", "FuzzCertificate"},
	{"KRL", "./policies/krl", "FuzzParse"},
	{"PROXY header", "./bastion/proxy", "FuzzHeader"},
	{"what hosts ask by FleetLock", "./fleetctl/fleetlock", "FuzzParse"},
	{"what hosts ask by Omaha", "./fleetctl/omaha", "FuzzParse"},
	{"addresses of the status page", "./fleetctl/web", "FuzzParseQuery"},
	{"consoles on the status page", "./fleetctl/web", "FuzzClean"},
	{"direct-tcpip payload", "./bastion", "FuzzDirectTCPIP"},
	{"bastion.toml", "./bastion", "FuzzConfig"},
	{"control socket", "./bastion", "FuzzControl"},
	{"EFI images", "./rebuild/uki", "FuzzImage"},
	{"Secure Boot signatures", "./rebuild/uki", "FuzzSignature"},
	{"firmware's variables", "./rebuild/uki", "FuzzVariables"},
	{"whole server, at each state of a connection", "./bastion", "FuzzServer"},
	{"commit objects", "./rebuild/history", "FuzzParseCommit"},
	{"tree objects", "./rebuild/history", "FuzzTree"},
	{"notes of approvals", "./rebuild/history", "FuzzNote"},
	{"answers of a Redfish service", "./rebuild/power", "FuzzStrictJSON"},
	{"answers of a site's power driver", "./rebuild/power/site", "FuzzParseAnswer"},
	{"offers of what to boot", "./rebuild/offer", "FuzzParse"},
	{"cpio archives", "./rebuild/cpio", "FuzzRead"},
	{"EROFS images", "./rebuild/erofs", "FuzzRead"},
	{"LZ4 blocks", "./rebuild/erofs", "FuzzLZ4"},
	{"differences between files of images", "./rebuild/image", "FuzzExplain"},
	{"machines of other tools' files", "./inventory/importer", "FuzzParse"},
	{"lock files of images", "./rebuild/image", "FuzzParseLock"},
	{"entries of the ledger", "./policies/ledger", "FuzzParse"},
	{"proofs of a life", "./policies/ledger", "FuzzOpen"},
	{"audit entries", "./internal/audit", "FuzzEntry"},
	{"audit bundles", "./internal/audit", "FuzzBundle"},
	{"audit frames", "./internal/audit", "FuzzFrames"},
	{"audit checkpoints", "./internal/audit", "FuzzCheckpoint"},
	{"audit proofs", "./internal/audit", "FuzzProof"},
	{"extensions of a life", "./rebuild/extension", "FuzzParse"},
	{"orders to a server", "./rebuild/order", "FuzzParse"},
	{"checkpoints with their signatures", "./internal/inclusion", "FuzzOpen"},
	{"release statements", "./rebuild/release", "FuzzParse"},
	{"signatures of a release", "./rebuild/release", "FuzzVerify"},
	{"proofs that a release is in the ledger", "./rebuild/release", "FuzzCheckProof"},
	{"witness answers about releases", "./policies/witness", "FuzzJudgeRelease"},
	{"witness questions and publications", "./policies/witness", "FuzzParse"},
	{"checkpoints to cosign", "./fleetctl/witness", "FuzzAddCheckpoint"},
	{"statements", "./policies/statement", "FuzzOpen"},
	{"trust policies", "./policies/trust", "FuzzParse"},
	{"steps of the trust policy", "./policies/trust", "FuzzAdvance"},
	{"witness answers", "./policies/witness", "FuzzOpen"},
	{"recordings", "./bastion/recording", "FuzzReader"},
	{"APDUs into a virtual card", "./testenv/pivcard", "FuzzAPDU"},
	{"vpcd's protocol", "./testenv/pivcard", "FuzzVPCD"},
	{"a virtual card's control socket", "./testenv/pivcard", "FuzzControlLine"},
	{"APDUs out of a card", "./bastion/card", "FuzzCardAnswers"},
	{"what asks for a card", "./bastion/card", "FuzzServe"},
	{"PIV attestations", "./bastion/hardkey", "FuzzPIVAttestation"},
	{"FIDO2 attestations", "./bastion/hardkey", "FuzzFIDO2Attestation"},
	{"FIDO2 authenticator data", "./bastion/hardkey", "FuzzAuthenticatorData"},
	{"enrolment challenges", "./bastion/hardkey", "FuzzChallenge"},
	{"quotes of a TPM", "./rebuild/attest", "FuzzQuote"},
	{"event logs of firmware", "./rebuild/attest", "FuzzEventLog"},
	{"public areas of a TPM", "./rebuild/attest", "FuzzPublicArea"},
	{"signatures of a TPM", "./rebuild/attest", "FuzzSignature"},
	{"enrolment requests", "./policies/enrolment", "FuzzEnrolment"},
	{"operators' requests", "./policies/request", "FuzzRequest"},
	{"agent: messages", "./bastion/agent", "FuzzAgentMessage"},
	{"agent: session-bind@openssh.com", "./bastion/agent", "FuzzSessionBind"},
	{"agent: login requests and files to sign", "./bastion/agent", "FuzzUserauthRequest"},
	{"agent: what a pinentry says", "./bastion/agent", "FuzzAssuan"},
}

var fuzzVerb = command.Verb{
	Name:    "fuzz",
	Args:    "[--time DURATION]",
	Summary: "run each fuzz target of the bastion's outside input for a while",
	Help:    "What go finds is in the package's testdata/fuzz, and in the way of the next test.",
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		each := fs.Duration("time", 20*time.Second, "for so long each, `DURATION`")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() > 0 || *each < time.Second {
			return command.Usagef("fuzz takes --time of 1s at least")
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		for _, f := range fuzzTargets {
			fmt.Fprintf(c.Stdout, "testenv: %s: %s %s\n", f.input, f.pkg, f.name)
			cmd := exec.CommandContext(ctx, "go", "test", f.pkg, "-run", "^$", "-fuzz", "^"+f.name+"$", "-fuzztime", each.String(),
				"-fuzzminimizetime", "10x") // go's own minute for each find would leave no time to find anything
			cmd.Dir, cmd.Stdout, cmd.Stderr = e.module, c.Stdout, c.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("fuzzing %s: %w", f.input, err)
			}
		}
		return nil
	},
}
