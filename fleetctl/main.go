// Command fleetctl is the operator's command: it makes a fleet's trust, builds and signs images and policies, runs the controller's
// processes, and rebuilds servers. One file a verb; docs/manual.md is its manual.
//
// Three processes share a state directory and do not trust each other's work: `fleetctl signer` holds the keys, `fleetctl serve`
// faces servers, `fleetctl checkin` faces apps. Every verb that acts loads the policy only as a signed bundle.
package main

import (
	"context"
	"io"
	"os"

	"mayfly/internal/command"
)

var program = command.Program{
	Name:    "fleetctl",
	Summary: "make, run and rebuild a fleet of servers that live in RAM for a day",
	Verbs: []command.Verb{
		initVerb, signerVerb, serveVerb, checkinVerb, witnessVerb, deployFilesVerb,
		statusVerb, diffVerb, importVerb, completionVerb, loginsVerb, backupVerb, restoreVerb, planVerb, simulateVerb, rotateVerb, pauseVerb, resumeVerb, cancelVerb,
		imageLockVerb, imageFetchVerb, imageBuildVerb, imageUpdateVerb, imageDiffVerb, imageSBOMVerb,
		imageSignVerb, imageRebuildVerb, imageVerifyVerb, imagePublishVerb, imageUseVerb, imageBadVerb,
		imageSecureBootKeysVerb, imageSecureBootVarsVerb, imageSignEFIVerb, imageMediumVerb,
		endorsementKeyVerb,
		ledgerVerifyVerb, ledgerShowVerb, ledgerProofVerb, ledgerKeyVerb,
		approveVerb, approvalsVerb, drainVerb, breakGlassOpenVerb, breakGlassStatusVerb,
		requestMakeVerb, requestSignVerb, requestShowVerb,
		extendMakeVerb, extendSignVerb, extendSendVerb,
		verifyHistoryVerb, approveChangeVerb,
		policyCheckVerb, policyBundleVerb, policySignVerb, policyPublishVerb, policyPluginHashVerb,
		keyChallengeVerb, keyAddVerb, keyListVerb, keyShowVerb, keyRevokeVerb,
		sshConfigVerb, robotKeysVerb, certifyVerb,
		trustShowVerb, trustProposeVerb, trustSignVerb, trustApplyVerb, trustVerifyVerb,
		secretSealVerb, secretListVerb, pageCertificateVerb, doctorVerb,
		caListVerb, caRotateVerb, caRetireVerb, caPublishVerb,
	},
}

func main() {
	ctx, stop := command.Signals(context.Background())
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := program
	p.Verbs = nil
	for _, v := range program.Verbs {
		p.Verbs = append(p.Verbs, classified(v))
	}
	return p.Main(ctx, args, stdin, stdout, stderr)
}
