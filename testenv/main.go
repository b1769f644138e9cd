// Command testenv is a whole fleet on one machine: controller, bastion and VPN servers in QEMU, in network namespaces of their own,
// on real kernels, with software keys that are marked as such. `demo` is the main job from image to report; `up` and `down` leave it
// running and take it away; `test` runs every test; `bench` measures.
//
// Everything it makes lies in .testenv in the module's root, in network namespaces named after that directory, and in programs
// that carry its mark. What a killed run left is swept away by the next command.
package main

import (
	"context"
	"io"
	"os"
	"slices"

	"mayfly/internal/command"
	"mayfly/testenv/pivcard"
	"mayfly/testenv/softkey"
)

var program = command.Program{
	Name:    "testenv",
	Summary: "a whole fleet on one machine",
	Verbs: slices.Concat([]command.Verb{demoVerb, upVerb, downVerb, statusVerb, testVerb, benchTunnelVerb, benchImageVerb, benchBootVerb, benchBastionVerb, benchRotateVerb, benchPlanVerb, soakVerb, fuzzVerb, mutateVerb}, softkey.Verbs(), pivcard.Verbs(),
		[]command.Verb{partDNSVerb, partWebVerb, partForwardVerb, partEngineVerb, partFetchVerb, partSSHVerb, partRotationVerb, partPlanVerb}),
}

func main() {
	ctx, stop := command.Signals(context.Background())
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return program.Main(ctx, args, stdin, stdout, stderr)
}
