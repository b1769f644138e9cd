package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/term"

	"mayfly/fleetctl/users"
	"mayfly/internal/account"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/internal/sealed"
	"mayfly/policies/request"
)

const secretStory = `Passwords of BMCs are in no file that people read: fleet.toml says password = "sealed:NAME", DIR/secrets/NAME.age holds the password,
encrypted, and DIR/secrets.key, which only the user who runs "fleetctl rotate" can read, opens it.`

var secretSealVerb = command.Verb{
	Name:    "secret seal",
	Args:    "--dir DIR [--sign FILE --reason TEXT | --request FILE] NAME",
	Summary: "keep the password of a BMC, encrypted",
	Help: `Reads the password from standard input: one line, or without echo from a terminal. A secret of that name is replaced. The first time it
makes DIR/secrets.key.

It takes a signed request ("fleetctl request make secret NAME"; --sign where one person is enough), which says nothing of the password.

` + secretStory + `

Example:

  fleetctl secret seal --dir lab se-1-bmc < password`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		leave := leaveFlagsOf(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() != 1 {
			return command.Usagef("want one NAME; a secret is never an argument")
		}
		name := fs.Arg(0)
		if _, err := sealed.Name(sealed.Prefix + name); err != nil {
			return command.Usagef("NAME %q is not lower-case letters, digits and -", name)
		}
		if _, err := os.Stat(*dir); err != nil {
			return hint.New(fmt.Errorf("opening the state directory: %w", err), "--dir names it")
		}
		if err := leave.check(); err != nil {
			return err
		}
		if t, err := users.Load(*dir); err != nil {
			return err
		} else if t.Separate {
			if err := state(*dir).actAs(c, users.Serve); err != nil {
				return err
			}
		} else if changed, err := account.ActAsOwner(*dir); err != nil {
			return err
		} else if changed {
			fmt.Fprintf(c.Stderr, "fleetctl: acting as %s, whose %s is\n", account.Name(os.Geteuid()), *dir)
		}
		secret, err := readSecret(c, name)
		if err != nil {
			return err
		}
		defer clear(secret)
		if _, err := state(*dir).authorise(ctx, c, nil, leave, request.Secret(name)); err != nil {
			return err
		}
		if err := state(*dir).secrets().Seal(name, secret); err != nil {
			return err
		}
		fmt.Fprintf(c.Stderr, "fleetctl: sealed; in fleet.toml: password = %q\n", sealed.Prefix+name)
		return nil
	},
}

// readSecret reads one line, from a terminal without echo.
func readSecret(c *command.Call, name string) ([]byte, error) {
	if f, ok := c.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(c.Stderr, "password of %s: ", name)
		secret, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.Stderr)
		return secret, err
	}
	line, err := bufio.NewReader(io.LimitReader(c.Stdin, sealed.MaxSecret+2)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if len(line) == 0 {
		return nil, command.Usagef("standard input holds no secret")
	}
	return line, nil
}

var secretListVerb = command.Verb{
	Name:    "secret list",
	Args:    "--dir DIR [-o json]",
	Summary: "name the sealed passwords",
	Help: `Says which secrets there are, when each was sealed, and whether DIR/secrets.key opens it. It shows no secret; nothing does.

` + secretStory + `

Example:

  fleetctl secret list --dir lab`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		dir, output := dirFlag(fs), outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		list, err := state(*dir).secrets().List()
		if err != nil {
			return err
		}
		var rows [][]string
		for _, s := range list {
			rows = append(rows, []string{s.Name, s.Time.Format(time.RFC3339), strconv.FormatBool(s.Good)})
		}
		if list == nil {
			list = []sealed.Sealed{}
		}
		return show(c.Stdout, *output, list, []string{"SECRET", "SEALED", "OPENS"}, rows)
	},
}
