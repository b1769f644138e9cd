package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pelletier/go-toml/v2"

	"mayfly/fleetctl/users"
	"mayfly/internal/account"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// actAs makes root the user whose this is to do, where the controller's processes are users of their own; others are refused.
func (d state) actAs(c *command.Call, r users.Role) error {
	t, err := users.Load(string(d))
	if err != nil {
		return err
	}
	changed, err := t.Become(r)
	if changed {
		fmt.Fprintf(c.Stderr, "fleetctl: acting as %s, whose this is\n", account.Name(os.Geteuid()))
	}
	return err
}

// separate has the state directory laid out for the users of DIR/users.toml, which it writes with the usual names where there is none.
func (d state) separate() error {
	if os.Geteuid() != 0 {
		return command.Refuse(hint.New(errors.New("only root gives files to other users"), "run this as root, or leave --users out: then all processes are one user"))
	}
	path := d.path(users.File)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := users.Default.Resolve(); err != nil {
			return err // before anything says that they are apart
		}
		data, err := toml.Marshal(users.Default)
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		if err := durable.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	t, err := users.Load(string(d))
	if err != nil {
		return err
	}
	return t.LayOut(string(d))
}

var doctorVerb = command.Verb{
	Name:    "doctor",
	Args:    "--dir DIR [--fix] [-o json]",
	Summary: "say whether the state directory keeps the controller's processes apart",
	Help: `Looks at owners and modes of everything in the state directory that it may look at, as signer, serve and checkin do when they start: they refuse to
(exit code 3) what this finds. As root it sees all. --fix gives everything to its owner, as root, and then looks again; find out first who changed it.

Where DIR/users.toml is not there, all processes are one user, and who takes one of them over has the keys of all. "fleetctl init --users" and, in a
directory that is there, "fleetctl doctor --fix --users" make them three.

Example:

  fleetctl doctor --dir /var/lib/mayfly`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		dir, output := dirFlag(fs), outputFlag(fs)
		fix := fs.Bool("fix", false, "as root: give everything to its owner")
		apart := fs.Bool("users", false, "with --fix: from now on signer, serve and checkin are users of their own")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		if *apart && !*fix {
			return command.Usagef("--users changes the directory: with --fix")
		}
		d := state(*dir)
		if _, err := os.Stat(*dir); err != nil {
			return hint.New(fmt.Errorf("opening the state directory: %w", err), "--dir names it")
		}
		t, err := users.Load(*dir)
		if err != nil {
			return err
		}
		if *fix && (*apart || t.Separate) {
			if err := d.separate(); err != nil {
				return err
			}
			if t, err = users.Load(*dir); err != nil {
				return err
			}
		}
		found, err := t.Check(*dir)
		if err != nil {
			return err
		}
		return tellDoctor(c, *output, t, found)
	},
}

func tellDoctor(c *command.Call, output string, t users.Table, found []users.Finding) error {
	rows := [][]string{}
	for _, f := range found {
		rows = append(rows, []string{f.Path, f.What, f.Mend})
	}
	if found == nil {
		found = []users.Finding{}
	}
	if err := show(c.Stdout, output, map[string]any{"separate": t.Separate, "findings": found}, []string{"PATH", "WHAT", "MEND"}, rows); err != nil {
		return err
	}
	if !t.Separate {
		fmt.Fprintln(c.Stderr, "fleetctl: note: one user for all processes: who takes one of them over has the keys of all; `fleetctl doctor --fix --users` makes them three")
	}
	if len(found) > 0 {
		return &users.Refused{Reason: users.WrongLayout, Err: fmt.Errorf("%d places are not as they have to be", len(found))}
	}
	return nil
}
