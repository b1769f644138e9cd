package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

var imageUseVerb = command.Verb{
	Name:    "image use",
	Args:    "--dir DIR [--sign FILE --reason TEXT | --request FILE] VERSION",
	Summary: "make a signed release the one that rebuilt servers boot",
	Help: `Verifies DIR/public/releases/VERSION like ` + "`fleetctl image verify`" + ` and makes it current: where the policy has a [rotation.train], its train begins, else every rebuilt server boots it. An older one than the current is
refused, as is one that is marked bad: to go back, sign the older image again under a higher version. So is one below the min_version of the policy in force, and one that
the fleet's public ledger does not hold: ` + "`fleetctl image publish`" + ` comes first.

It takes a signed request, which binds version and digest ("fleetctl request make image-use use --release 7"; --sign where one person is enough).

Example:

  fleetctl image use --dir lab 7`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		leave := leaveFlagsOf(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() != 1 {
			return command.Usagef("one VERSION is needed")
		}
		v, err := strconv.ParseUint(fs.Arg(0), 10, 64)
		if err != nil || v == 0 {
			return command.Usagef("%q is no version", fs.Arg(0))
		}
		if err := leave.check(); err != nil {
			return err
		}
		d := state(*dir)
		t, trustPolicy, err := d.trust()
		if err != nil {
			return err
		}
		old, err := d.current()
		if err != nil {
			return err
		}
		if v < old {
			return command.Refuse(hint.New(fmt.Errorf("%s: version %d is older than %d, which is in use", release.Older, v, old),
				"build and sign it again under a version above %d", old))
		}
		where := d.releaseDir(fs.Arg(0))
		s, data, err := releaseStatement(t, where, time.Now())
		if err != nil {
			return err
		}
		if s.Version != v {
			return command.Refuse(fmt.Errorf("%s says version %d", where, s.Version))
		}
		if err := d.checkLeast(ctx, c, t, s); err != nil {
			return err
		}
		if err := checkParts(s, where); err != nil {
			return err
		}
		if err := d.checkUKI(c, t, trustPolicy, s, where); err != nil {
			return err
		}
		if _, err := checkLogged(t, data, where); err != nil {
			return err
		}
		digest := fmt.Sprintf("%x", sha256.Sum256(data))
		if err := d.checkMark(ctx, v, digest); err != nil {
			return err
		}
		by, err := d.authorise(ctx, c, nil, leave, request.ImageUse(v, digest))
		if err != nil {
			return err
		}
		if err := d.use(ctx, store.Use{Version: v, Digest: digest, By: peopleOf(by), At: time.Now()}); err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "release %d is in use\n", v)
		return nil
	},
}

// checkLeast refuses a release that the policy in force does not let run. A bundle that is not there or not yet signed is not in force.
func (d state) checkLeast(ctx context.Context, c *command.Call, t *trust.Trust, s *release.Statement) error {
	seen, err := d.policySeen(ctx)
	if err != nil {
		return err
	}
	b, err := d.bundle(t, seen, time.Now())
	refused := (*bundle.Refusal)(nil)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &refused) && refused.Reason == bundle.Unsigned:
		fmt.Fprintf(c.Stderr, "fleetctl: note: not compared with a policy's min_version: no signed policy is in force\n")
		return nil
	case err != nil:
		return err
	}
	return allowed(s, b.Policy.Image.MinVersion)
}
