package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/policies/request"
	"mayfly/policies/statement"
	"mayfly/rebuild/release"
)

var imageBadVerb = command.Verb{
	Name:    "image bad",
	Args:    "--dir DIR --why TEXT [--sign FILE --reason TEXT | --request FILE] VERSION",
	Summary: "mark a release bad, for good: nothing boots it any more, and servers that run it go back",
	Help: `What is bad stays bad. An open run whose servers boot it begins nothing more and ends; the next ` + "`fleetctl rotate`" + ` brings the servers that
run the release back to the newest good one. The gate of a train marks a release bad by itself; this verb is for what people find.

It takes a signed request, which binds version and digest ("fleetctl request make image-use bad --release 8"; --sign where one person is enough).

Example:

  fleetctl image bad --dir lab --why "leaks memory" 8`,
	Run: runImageBad,
}

func runImageBad(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	why := fs.String("why", "", "`text` that everybody is shown who asks why")
	leave := leaveFlagsOf(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	word, err := oneArgument(fs, "VERSION")
	if err != nil {
		return err
	}
	v, err := strconv.ParseUint(word, 10, 64)
	if err != nil || v == 0 {
		return command.Usagef("%q is no version", word)
	}
	if err := errors.Join(checkWhy(*why), leave.check()); err != nil {
		return err
	}
	d := state(*dir)
	// Whatever is wrong with the release: its bytes say which it is.
	data, err := readBounded(d.releaseDir(word)+"/"+release.StatementFile, "`fleetctl image build` makes a release", release.MaxStatement)
	if err != nil {
		return err
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(data))
	s, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	err = func() error {
		by, err := d.authorise(ctx, c, s, leave, request.ImageBad(v, digest))
		if err != nil {
			return err
		}
		if err := s.MarkRelease(ctx, store.Mark{Version: v, Digest: digest, Mark: store.Bad, Why: *why, By: peopleOf(by), At: time.Now()}); err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "release %d is bad, for good: %s\n", v, *why)
		known, err := rotate.ReadKnown(ctx, s)
		if err == nil && known.Use.Version == v && known.Good() == 0 {
			fmt.Fprintln(c.Stderr, "fleetctl: image bad: it is in use, and no release is known to be good: servers boot nothing until `fleetctl image use` names another")
		}
		return err
	}()
	return errors.Join(err, s.Close())
}

// checkMark refuses a release that is marked bad.
func (d state) checkMark(ctx context.Context, version uint64, digest string) error {
	var marks []store.Mark
	err := d.ifThere(ctx, func(s store.Store) (err error) {
		marks, err = s.Marks(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range marks {
		if m.Version == version && m.Digest == digest && m.Mark == store.Bad {
			return command.Refuse(hint.New(fmt.Errorf("%s: release %d is marked bad, since %s: %s", rotate.ReleaseBad, version, m.At.Format(time.RFC3339), m.Why),
				"build, sign and publish another release: what is bad stays bad"))
		}
	}
	return nil
}

// checkWhy asks for a reason that fits on a line.
func checkWhy(why string) error {
	if why == "" {
		return command.Usagef("--why is needed: people will ask")
	}
	if err := statement.CheckReason(why); err != nil {
		return command.Usagef("--why: %v", err)
	}
	return nil
}

// peopleOf names by whose leave something is done.
func peopleOf(d request.Decision) string {
	var names []string
	for _, p := range d.People {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return "nobody had to sign"
	}
	return strings.Join(names, ", ")
}
