package softkey

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/command"
)

const disclaimer = `The key is software. A policy accepts it only as "test:ROOT" in a fleet with test = true.`

// Verbs are the commands "softkey new" and "softkey serve".
func Verbs() []command.Verb {
	return []command.Verb{{
		Name:    "softkey new",
		Args:    "FILE",
		Summary: "make a software security key for tests, FILE and FILE.pub",
		Help:    "Prints the public key as a policy enrols it.\n" + disclaimer,
		Run:     runNew,
	}, {
		Name:    "softkey serve",
		Args:    "--socket PATH [--touch always|verified|never] FILE...",
		Summary: "hold software security keys behind an ssh-agent socket",
		Help: "Runs until interrupted and prints a line on stderr when it listens. Use it with SSH_AUTH_SOCK=PATH.\n" +
			"With --touch never it signs without user presence, as a server must refuse.\n" + disclaimer,
		Run: runServe,
	}}
}

func runNew(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return command.Usagef("want one file")
	}
	path := fs.Arg(0)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making software key %s: the file is there already", path)
	}
	key, err := New(rand.Reader)
	if err != nil {
		return err
	}
	if err := key.Save(path); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.Stdout, key.Authorized(), Comment)
	return err
}

func runServe(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	socket := fs.String("socket", "", "listen at this `path`")
	touch := Always
	fs.TextVar(&touch, "touch", Always, "whether signatures carry a touch: `always`, verified (with a PIN as well) or never")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if *socket == "" || fs.NArg() == 0 {
		return command.Usagef("want --socket PATH and at least one key file")
	}
	var signers []ssh.Signer
	for _, path := range fs.Args() {
		key, err := Load(path)
		if err != nil {
			return err
		}
		signers = append(signers, key.Signer(touch))
	}
	l, err := Listen(*socket)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Stderr, "softkey: %d software keys, touch %s, ready at %s\n", len(signers), touch, *socket)
	return NewAgent(signers...).Serve(ctx, l)
}
