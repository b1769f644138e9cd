package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/request"
	"mayfly/policies/statement"
)

var drainVerb = command.Verb{
	Name:    "drain",
	Args:    "SERVER --dir DIR --reason TEXT [--sign FILE | --request FILE]",
	Summary: "take a VPN server out of traffic for an engineer; it comes back by a rebuild only",
	Help: `Drains the server, waits until no user is left (bounded), and has the signer say so in a drained statement, which the bastion asks for
under a grant with drained = true. From its first step the server is tainted: the next ` + "`fleetctl rotate`" + ` after the statement's end wipes
and rebuilds it, nothing else brings it back, and until then nobody rebuilds it under the engineer. The signer signs no list that
names it and no ticket for it meanwhile. Refused (exit code 3) where its region would fall under its floor, with the arithmetic.

It takes a signed request, which the signer verifies: --sign with your own hardware key where the policy's [[operator]] lets one person, else
"fleetctl request make drain", signed by several, and --request with the same --for.

` + "`fleetctl signer` and `fleetctl serve`" + ` have to run. Interrupted, the same command goes on.

Example:

  fleetctl drain se-1 --dir lab --reason "disk full" --for 30m --sign ~/.ssh/id_yubikey.pub`,
	Run: runDrain,
}

func runDrain(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	leave := leaveFlagsOf(fs)
	reason := leave.reason
	length := fs.Duration("for", time.Hour, "how `long` the engineer has, at most 1h")
	out := outFlag(fs)
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(checkFormat(*output), span(*length, statement.MaxDrained-policies.DrainedMargin)); err != nil {
		return err
	}
	if fs.NArg() != 1 || *reason == "" {
		return command.Usagef("one SERVER and --reason are needed")
	}
	if err := statement.CheckReason(*reason); err != nil {
		return command.Usagef("--reason: %v", err)
	}
	if err := leave.check(); err != nil {
		return err
	}
	d, name := state(*dir), fs.Arg(0)
	_, b, err := d.decides(ctx, time.Now())
	if err != nil {
		return err
	}
	if s, ok := b.Inventory.RebuiltServer(name); !ok || s.Role != inventory.RoleVPN {
		return command.Refuse(hint.New(fmt.Errorf("no VPN server %q in the signed inventory", name), "fleetctl status lists the servers that are rebuilt; fleet.toml says which role each has"))
	}
	keys := &drainedBy{keys: signer.Dial(string(d)), span: *length}
	asked := func() (err error) {
		now, order := time.Now(), request.Drain(name, *length)
		if keys.leave, err = leave.take(c, b, order, now); err != nil {
			return err
		}
		// The signer is asked when the last user has left.
		return foresee(c, b, order, keys.leave, now, now.Add(time.Duration(b.Policy.Rotation.DrainLimit)))
	}
	if *leave.key == "" {
		if err := asked(); err != nil {
			return err
		}
		asked = nil
	}
	s, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(d.drain(ctx, c, s, asked, &rotate.Drainer{Store: s, Bundle: b, Signer: keys, Talk: c.Stderr}, name, *reason, *length, d.out(*out), *output), s.Close())
	return refusedDrain(err)
}

// drain asks for a touch, where asked does, when nothing else can refuse any more.
func (d state) drain(ctx context.Context, c *command.Call, s store.Store, asked func() error, r *rotate.Drainer, name, reason string, length time.Duration, out, output string) error {
	if err := actUnder(ctx, s, r.Bundle); err != nil {
		return err
	}
	if err := s.Sync(ctx, r.Bundle.Inventory, time.Now()); err != nil {
		return err
	}
	if err := r.Check(ctx, name, length, time.Now()); err != nil { // what is refused needs no controller
		return err
	}
	ca, err := read(d.caFile(), "`fleetctl init` makes it")
	if err != nil {
		return err
	}
	k := r.Bundle.Inventory.Controller
	if err := answers(ctx, netip.AddrPortFrom(k.Address, k.JoinPort), pki.VerifyName(ca, r.Bundle.Inventory.FQDN(inventory.NameController))); err != nil {
		return fmt.Errorf("the server could not be told: %w", err)
	}
	conn, err := net.DialTimeout("unix", d.path(signer.SocketName), controllerLimit)
	if err != nil {
		return hint.New(fmt.Errorf("no statement without the signer: %w", err), "start `fleetctl signer` first; nothing was touched")
	}
	if err := conn.Close(); err != nil {
		return err
	}
	if asked != nil {
		if err := asked(); err != nil {
			return err
		}
	}
	got, err := r.Drain(ctx, name, reason, length)
	if err != nil {
		return err
	}
	path := filepath.Join(out, fmt.Sprintf("drained-%s-%d.json", got.Server, got.Epoch))
	if err := writeStatement(path, got.Statement, got.Signature); err != nil {
		return err
	}
	if output == "json" {
		return show(c.Stdout, output, struct {
			rotate.Drained
			File string `json:"file"`
		}{got, path}, nil, nil)
	}
	fmt.Fprintf(c.Stdout, "%s: life %d of %s is drained until %s; then it is rebuilt\n", path, got.Epoch, got.Server, got.Expires.Add(-policies.DrainedMargin).Format(time.RFC3339))
	if got.Forced {
		fmt.Fprintln(c.Stderr, "fleetctl: drain: the drain's bound passed, some users were cut off")
	}
	return nil
}

// drainedBy asks the signer by people's leave.
type drainedBy struct {
	keys  *signer.Client
	span  time.Duration
	leave *request.Signed
}

var _ rotate.Statements = (*drainedBy)(nil)

func (d *drainedBy) Drained(ctx context.Context, server string, epoch uint64, expires time.Time) (data, sig []byte, err error) {
	return d.keys.Drained(ctx, server, epoch, expires, d.span, d.leave)
}

// refusedDrain adds the mend to a refusal.
func refusedDrain(err error) error {
	var refused *rotate.Refused
	if errors.As(err, &refused) {
		return hint.New(err, "`fleetctl status` shows what serves; wait until others are back, or choose another server; nothing was touched")
	}
	return err
}
