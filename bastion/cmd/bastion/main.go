// Command bastion is the SSH server through which engineers reach a fleet.
package main

import (
	"context"
	"os"

	"mayfly/internal/command"
)

const configHelp = `The configuration is a TOML file; relative paths are relative to it:

  listen           = "10.77.0.2:22"         address and port
  trust            = "trust.json"           whose signatures make a policy
  trust_chain      = "trust"                optional: directory of the trust policies that follow it; "trust" beside it if left out
  bundle           = "bundle.json"          the policy; its signatures are in bundle.json.sig
  host_key         = "host_key"             Ed25519 private key, mode 0600
  host_certificate = "host_key-cert.pub"    its certificate by the fleet's host CA
  audit            = "audit"                directory of the audit log
  controller_ca    = "tls-ca.pem"           optional: the fleet's TLS CA, for "bastion renew"
  control          = "control.sock"         optional: socket of "bastion status" and "bastion drain", mode 0600
  drain_limit      = "30s"                  optional: how long sessions may go on after TERM
  statements       = "statements"           optional: a directory of approvals, openings and drained statements
  sandbox          = "on"                   optional: "require" does not serve where the kernel lacks a part, "off" serves without
  audit_key        = "audit_key"            optional: the log's key; audit_key in its directory if left out
  audit_replica    = "http://127.0.0.1:9101"    optional: has each record before it counts; a program of this machine
  audit_life       = 7                      optional: number of this machine's life, in the log's origin
  witnesses        = ["http://192.0.2.7:8700"]  who confirms that a policy is the newest (fleetctl witness)
  metrics          = "127.0.0.1:9122"       optional: where numbers for Prometheus are read; or a path that ends in .sock
  metrics_allow    = ["10.77.0.9/32"]       optional: who may read them from elsewhere
  log              = "text"                 optional: form of what it says on stderr: "text" or "json"
  [plugin]                                  optional: how the plugins that a policy pins are run
  directory = "/usr/lib/mayfly/plugins"     root's, and nobody else may write there
  user = "mayfly-plugins"                   who they run as
  host = "/usr/sbin/bastion-plugins"        optional: the program that runs them; beside bastion if left out
  [[audit_witness]]                         optional, repeated: who cosigns the log's checkpoints
  url = "https://witness.example/log"       its submission prefix
  key = "NAME+HASH+KEY"                     its verifier key
  [alerts]                                  optional: who is told of what should not happen
  webhook = "https://alerts.example/hook"   gets each alert as JSON
  token = "token"                           file with the bearer token that goes with it, mode 0600
  ca = "ca.pem"                             optional: CAs of its server
  exec = "/usr/local/sbin/alert"            program that gets each alert on its standard input
  user = "mayfly-alerts"                    optional: who bastion-alerts runs as; the bastion's own user if left out
  program = "/usr/sbin/bastion-alerts"      optional: the program that delivers them; beside bastion if left out
  networks = "networks"                     optional: file of lines "PREFIX NAME"
  refusals = 10                             refusals of a listed source, or of a user's name,
  within = "10m"                            in this time are an alert
  [session]                                 optional: the session mode, with which this bastion can open servers by itself
  ca = "session_ca"                         Ed25519 private key of the session authority, mode 0600
  host_cas = "known_hosts"                  the fleet's, as fleetctl publishes it: whose host certificates are believed
  recordings = "recordings"                 directory of the recordings`

func main() {
	ctx, stop := command.Signals(context.Background())
	defer stop()
	os.Exit(program().Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func program() command.Program {
	return command.Program{
		Name:    "bastion",
		Summary: "the SSH server through which engineers reach a fleet",
		Verbs:   append([]command.Verb{serveVerb(), checkVerb(), doctorVerb(), statusVerb(), drainVerb(), nftVerb(), renewVerb(), playVerb(), reconcileVerb()}, auditVerbs()...),
	}
}
