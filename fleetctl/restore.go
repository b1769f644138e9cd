package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/inventory/store/keeper"
	"mayfly/policies/request"
)

const maxNamed = 20 // servers that a line names

var restoreVerb = command.Verb{
	Name:    "restore",
	Args:    "--dir DIR [--sign FILE --reason TEXT | --request FILE] FILE",
	Summary: "fill an empty store with a backup",
	Help: `Unused tickets are revoked, and no number of a life is given again: the next one is beyond all that the signer signed for. Lives that began
after the backup are taken up from the signer's own records, so their servers are let in as they are: nothing is restarted. What is not known
is named, and those servers are refused until they are rebuilt. The signer's ledger, the trust policy and used requests are not touched. A run
that was open is over. Takes a request of two people.

Example:

  fleetctl restore --dir lab --request restore.json lab.backup`,
	Run: runRestore,
}

func runRestore(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir := dirFlag(flags)
	leave := leaveFlagsOf(flags)
	if err := c.Parse(flags); err != nil {
		return err
	}
	path, err := oneArgument(flags, "FILE")
	if err != nil {
		return err
	}
	if err := leave.check(); err != nil {
		return err
	}
	d := state(*dir)
	data, err := readBounded(path, "`fleetctl backup` makes it", maxBackup)
	if err != nil {
		return err
	}
	content, err := store.ReadContent(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	lives, err := signer.Lives(string(d)) // before this process becomes a user who may not read them
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	if _, err := d.bundle(t, content.Policy, time.Now()); err != nil { // never under an older policy than the backup's
		return err
	}
	sum := sha256.Sum256(data)
	if _, err := d.authorise(ctx, c, nil, leave, request.Restore(hex.EncodeToString(sum[:]))); err != nil {
		return err
	}
	took := content.TakeUp(lives, time.Now())
	if err := d.restore(ctx, content); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "restored %d servers; unused tickets are revoked\n", len(content.Servers))
	say(c, took)
	return nil
}

// say says what a restore made of the lives that went on after the backup.
func say(c *command.Call, f store.TakenUp) {
	if f.Lost {
		fmt.Fprintln(c.Stdout, "the signer's lives are not there to be read: a server whose life began after the backup is refused until it is rebuilt; `fleetctl status` shows it as silent")
	}
	for _, x := range []struct {
		names []string
		what  string
	}{
		{f.Newer, "taken up in a newer life than the backup's"},
		{f.Between, "quarantined, since a next life was being made when the store was lost (`fleetctl rotate --retry` goes on)"},
		{f.Unknown, "in a life that the signer does not say enough of: refused until rebuilt"},
	} {
		if n := len(x.names); n > 0 {
			more := ""
			if n > maxNamed {
				more = fmt.Sprintf(" and %d more", n-maxNamed)
			}
			fmt.Fprintf(c.Stdout, "%s: %s%s\n", x.what, strings.Join(x.names[:min(n, maxNamed)], ", "), more)
		}
	}
	if len(f.Releases) > 0 {
		fmt.Fprintf(c.Stdout, "paused: lives boot release %s, which the backup does not have in use: `fleetctl image use`, then `fleetctl resume`\n", strings.Join(f.Releases, ", "))
	}
}

// restore fills the store.
func (d state) restore(ctx context.Context, content *store.Content) error {
	address, err := d.storeAddress()
	if err != nil {
		return err
	}
	s, err := keeper.OpenToImport(ctx, string(d), address)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	err = content.Write(&b)
	if err == nil {
		err = s.Import(ctx, &b)
	}
	if errors.Is(err, store.ErrNotEmpty) {
		err = command.Refuse(hint.New(err, "a restore is into a store that knows nothing: take the old one away first"))
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	return keeper.Remember(string(d), address)
}
