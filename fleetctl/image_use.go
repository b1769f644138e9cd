package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/release"
)

var imageUseVerb = command.Verb{
	Name:    "image use",
	Args:    "--dir DIR VERSION",
	Summary: "make a signed release the one that rebuilt servers boot",
	Help: `Verifies DIR/public/releases/VERSION like ` + "`fleetctl image verify`" + ` and makes it current. An older one than the current is
refused: to go back, sign the older image again under a higher version.

Example:

  fleetctl image use --dir lab 7`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
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
		d := state(*dir)
		t, _, err := d.trust()
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
		s, _, err := statement(t, where, time.Now())
		if err != nil {
			return err
		}
		if s.Version != v {
			return command.Refuse(fmt.Errorf("%s says version %d", where, s.Version))
		}
		if err := checkParts(s, where); err != nil {
			return err
		}
		if err := durable.WriteFile(d.currentFile(), []byte(strconv.FormatUint(v, 10)+"\n"), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "release %d is in use\n", v)
		return nil
	},
}
