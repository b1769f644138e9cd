// Package rotate carries out what fleetctl/plan decides: it drains servers, wipes them, boots them with a one-time ticket,
// checks and returns them.
//
// Write-ahead. A server's state in the store is the intent: it is moved, durably, before the effect that the state
// names, and the journal (docs/formats/journal.md) holds an intent and an outcome for each effect. Every effect is
// idempotent with the token (server, epoch), so a controller that dies anywhere, by SIGKILL or a power cut, is replaced by the
// next `fleetctl rotate`, which reads states, journal and machines and goes on. A boot is begun at most once for an epoch:
// where the journal has the intent of a boot and the machine does not run, the next try is a new epoch.
//
// Several at once. Any number of processes, of several controllers too, carry one run. Each server in flight is claimed by one of them (claim.go): what a process
// writes after its claim was lost is refused by the store, and what it would do is not done.
//
// Floor. A server leaves only by Store.MoveChecked or BeginLife, which read every server's state and move this one in one
// transaction.
//
// Failures are tried again Rules.Retries times and then quarantined with the first cause and the console's last lines.
//
// It knows machines, signatures and probes through interfaces of one to three methods; drains, joins and health through the
// store, into which fleetctl serve writes them. It trusts the store, and what it signs is checked again by the signer.
//
// Read rotate.go (a run), loop.go (this process's part of it), claim.go, watch.go, life.go (one server, from leaving to its end), boot.go (its boot, until it serves),
// gate.go (what it has to show), proof.go, release.go, train.go, inputs.go, effects.go (what the interfaces are), machines.go, journal.go, known.go, snapshot.go,
// probe.go, progress.go.
package rotate
