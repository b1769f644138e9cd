package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/policies/request"
)

var pauseVerb = command.Verb{
	Name:    "pause",
	Args:    "--dir DIR --why TEXT [--sign FILE --reason TEXT | --request FILE]",
	Summary: "let no rotation begin, until `fleetctl resume`; what is under way ends",
	Help: `From now on no server leaves, in no process of any controller, also while a run goes on. Servers that are under way are carried to their end. An open
run stays open. A server still ends itself at its deadline: a pause that lasts costs capacity, and ` + "`fleetctl plan`" + ` says when.

It takes a signed request ("fleetctl request make pause pause"; --sign where one person is enough).

Example:

  fleetctl pause --dir lab --why "the provider moves a switch"`,
	Run: func(ctx context.Context, c *command.Call) error { return runPause(ctx, c, true) },
}

var resumeVerb = command.Verb{
	Name:    "resume",
	Args:    "--dir DIR --why TEXT [--sign FILE --reason TEXT | --request FILE]",
	Summary: "let rotations begin again",
	Help: `Ends a pause. The next ` + "`fleetctl rotate`" + `, or the schedule, goes on with the open run.

It takes a signed request ("fleetctl request make pause resume"; --sign where one person is enough).

Example:

  fleetctl resume --dir lab --why "the switch is back"`,
	Run: func(ctx context.Context, c *command.Call) error { return runPause(ctx, c, false) },
}

func runPause(ctx context.Context, c *command.Call, on bool) error {
	order := request.Resume()
	if on {
		order = request.Pause()
	}
	return onStore(ctx, c, func(d state, s store.Store, leave *leaveFlags, why string) error {
		was, err := s.Paused(ctx)
		if err != nil {
			return err
		}
		by, err := d.authorise(ctx, c, s, leave, order)
		if err != nil {
			return err
		}
		if err := s.SetPause(ctx, store.Pause{On: on, By: peopleOf(by), Why: why, At: time.Now()}); err != nil {
			return err
		}
		switch {
		case on && was.On:
			fmt.Fprintf(c.Stdout, "rotations stay paused (they were since %s: %s)\n", was.At.Format(time.RFC3339), was.Why)
		case on:
			fmt.Fprintln(c.Stdout, "no rotation begins until `fleetctl resume`; what is under way ends")
		case was.On:
			fmt.Fprintln(c.Stdout, "rotations begin again")
		default:
			fmt.Fprintln(c.Stdout, "rotations were not paused")
		}
		return nil
	})
}

var cancelVerb = command.Verb{
	Name:    "cancel",
	Args:    "--dir DIR --why TEXT [--sign FILE --reason TEXT | --request FILE]",
	Summary: "let the open run begin nothing more; it ends when what is under way has ended",
	Help: `The open run begins nothing more, in no process of any controller. Servers that are under way are carried to their end, by whoever runs
` + "`fleetctl rotate`" + `; then the run is over. What is due is planned anew by the next one.

It takes a signed request, which binds the run ("fleetctl request make pause cancel --run 7"; --sign where one person is enough).

Example:

  fleetctl cancel --dir lab --why "the wrong release"`,
	Run: func(ctx context.Context, c *command.Call) error {
		return onStore(ctx, c, func(d state, s store.Store, leave *leaveFlags, why string) error {
			open, found, err := s.OpenRun(ctx)
			if err != nil {
				return err
			}
			if !found {
				return hint.New(errors.New("no run is open"), "`fleetctl status` shows what servers do")
			}
			if !open.Cancelled.IsZero() {
				fmt.Fprintf(c.Stdout, "run %d was cancelled at %s by %s\n", open.ID, open.Cancelled.Format(time.RFC3339), open.By)
				return nil
			}
			by, err := d.authorise(ctx, c, s, leave, request.Cancel(open.ID))
			if err != nil {
				return err
			}
			if err := s.CancelRun(ctx, open.ID, peopleOf(by)+": "+why, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(c.Stdout, "run %d begins nothing more; it ends when what is under way has ended\n", open.ID)
			return nil
		})
	},
}

// onStore is what the verbs share that ask something of rotations.
func onStore(ctx context.Context, c *command.Call, do func(d state, s store.Store, leave *leaveFlags, why string) error) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	why := fs.String("why", "", "`text` that everybody is shown who asks why")
	leave := leaveFlagsOf(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkWhy(*why), leave.check()); err != nil {
		return err
	}
	d := state(*dir)
	s, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	return errors.Join(do(d, s, leave, *why), s.Close())
}
