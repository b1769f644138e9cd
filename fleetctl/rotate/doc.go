// Package rotate carries out what fleetctl/plan decides: it drains servers, wipes them, boots them with a one-time ticket,
// checks and returns them.
//
// Write-ahead. A server's state in the store is the intent: it is moved, durably, before the effect that the state
// names, and the journal (docs/formats/journal.md) holds an intent and an outcome for each effect. Every effect is
// idempotent with the token (server, epoch), so a controller that dies anywhere, by SIGKILL or a power cut, is replaced by the
// next `fleetctl rotate`, which reads states, journal and machines and goes on. A boot is begun at most once for an epoch:
// where the journal has the intent of a boot and the machine does not run, the next try is a new epoch.
//
// Floor. A server leaves only by Store.MoveChecked or BeginLife, which read every server's state and move this one in one
// transaction.
//
// Failures are tried again Rules.Retries times and then quarantined with the first cause and the console's last lines.
//
// It knows machines, signatures and probes through interfaces of one to three methods; drains, joins and health through the
// store, into which fleetctl serve writes them. It trusts the store, and what it signs is checked again by the signer.
//
// Read rotate.go (the run), life.go (one server, from leaving to its end), boot.go (its boot, until it serves), effects.go (what the
// interfaces are), machines.go, journal.go, snapshot.go, probe.go, lock.go.
package rotate
