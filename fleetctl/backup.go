package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/inventory/store/keeper"
	"mayfly/policies/request"
)

// Bounds of a backup, and of what is not known of lives since.
const (
	maxBackup   = 1 << 30
	maxLife     = 64 << 10
	epochMargin = 512 // that the next life's number jumps where the signer's word is not to be had; the signer takes 1024
)

var backupVerb = command.Verb{
	Name:    "backup",
	Args:    "--dir DIR --out FILE",
	Summary: "write all that the store holds into a file",
	Help: `The file (0600) holds servers and lives, hashes of tickets, orders, the journal, logins and what is known of releases; no key, and nothing
of the signer's. It ends with a digest.

Example:

  fleetctl backup --dir lab --out lab.backup`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		out := fs.String("out", "", "`file` to write")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *out == "" {
			return command.Usagef("--out names the file to write")
		}
		s, err := state(*dir).openReadOnly(ctx)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := errors.Join(s.Export(ctx, &b), s.Close()); err != nil {
			return err
		}
		if err := durable.WriteFile(*out, b.Bytes(), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "%x  %s\n", sha256.Sum256(b.Bytes()), *out)
		return nil
	},
}

var restoreVerb = command.Verb{
	Name:    "restore",
	Args:    "--dir DIR [--sign FILE --reason TEXT | --request FILE] FILE",
	Summary: "fill an empty store with a backup",
	Help: `Unused tickets are revoked, and no number of a life is given again: the next one is beyond all that the signer signed for. The signer's
ledger, the trust policy and used requests are not touched. Servers that run go on: nothing is restarted. Takes a request of two people.

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
	if err := d.jump(content); err != nil {
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
	return d.restore(ctx, c, content)
}

// jump lets no number of a life be given again: the next one is beyond what the signer signed for, and what the backup knows.
func (d state) jump(content *store.Content) error {
	for i := range content.Servers {
		v := &content.Servers[i]
		var life struct{ Epoch, Signed uint64 }
		data, err := durable.ReadRegular(d.path("signer", "lives", v.Name+".json"), maxLife)
		switch {
		case err == nil:
			if err := json.Unmarshal(data, &life); err != nil {
				return fmt.Errorf("the signer's life of %q: %w", v.Name, err)
			}
			v.Floor = max(v.Floor, v.Epoch+1, life.Epoch+1, life.Signed+1)
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			v.Floor = max(v.Floor, v.Epoch+epochMargin)
		default:
			return err
		}
	}
	return nil
}

// restore fills the store.
func (d state) restore(ctx context.Context, c *command.Call, content *store.Content) error {
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
	if err := keeper.Remember(string(d), address); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "restored %d servers; unused tickets are revoked\n", len(content.Servers))
	return nil
}
