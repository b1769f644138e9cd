package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/statement"
	"mayfly/policies/trust"
)

var breakGlassOpenVerb = command.Verb{
	Name:    "break-glass open",
	Args:    "--dir DIR --name NAME --reason TEXT --key FILE",
	Summary: "open a break-glass identity, as one of several people",
	Help: `The first person writes the opening and signs it; everybody else calls the same with their own key and signs the same file. When as
many approvers have signed as the trust policy asks, the bastion lets the identity in within a second, and says so loudly. The
opening ends by itself, at most an hour after it was written; whoever is in is cut then. Removing the file closes it at once.

Example:

  fleetctl break-glass open --dir lab --name glass --for 30m --reason "every engineer's key is lost" --key ~/.ssh/id_ed25519_sk.pub`,
	Run: runBreakGlassOpen,
}

func runBreakGlassOpen(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	name := fs.String("name", "", "`name` of the identity")
	reason := fs.String("reason", "", "`text` that every record of it shows; the first person gives it")
	length := fs.Duration("for", 30*time.Minute, "how `long` from now, at most 1h; the first person says")
	key := fs.String("key", "", "`file` of the approver's private key, or public key in the agent")
	out := outFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), span(*length, statement.MaxBreakGlass)); err != nil {
		return err
	}
	if *name == "" || *key == "" {
		return command.Usagef("--name and --key are needed")
	}
	d, now := state(*dir), time.Now().UTC().Truncate(time.Second)
	t, b, err := d.decides(ctx, now)
	if err != nil {
		return err
	}
	identities := []string{}
	for _, g := range b.Policy.BreakGlass {
		identities = append(identities, g.Name)
	}
	if !slices.Contains(identities, *name) {
		return command.Refuse(hint.New(fmt.Errorf("no break-glass identity %q in the signed policy", *name), "it has: %s", strings.Join(identities, ", ")))
	}
	s, err := loadSigner(*key, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	if _, ok := owner(t, s.PublicKey()); !ok {
		return command.Refuse(hint.New(fmt.Errorf("%s is no approver's key", ssh.FingerprintSHA256(s.PublicKey())), "the approvers are %s", strings.Join(names(t), ", ")))
	}
	path, data, err := unfinished(t, d.out(*out), *name, now)
	if err != nil {
		return err
	}
	if path != "" {
		if err := agrees(path, data, *reason, given(fs, "for"), *length); err != nil {
			return err
		}
	}
	if path == "" {
		if *reason == "" {
			return command.Usagef("--reason is needed: nobody has begun an opening of %s", *name)
		}
		if path, data, err = newOpening(d.out(*out), b.Fleet, *name, *reason, now, *length); err != nil {
			return err
		}
	}
	st, err := statement.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(c.Stderr, "%s", data) // its one form, made to be read
	a, err := approve(t, statement.NamespaceBreakGlass, path, data, *key)
	if err != nil {
		return err
	}
	a.report(c, t, path)
	if len(a.people) >= t.Threshold {
		fmt.Fprintf(c.Stdout, "%s is open until %s\n", *name, statement.Expires(st).Format(time.RFC3339))
	}
	return nil
}

// unfinished finds the opening of an identity that waits for signatures, if somebody has begun one. One that is open already is refused.
func unfinished(t *trust.Trust, dir, name string, now time.Time) (path string, data []byte, err error) {
	files, err := readStatements(t, dir, now)
	if err != nil {
		return "", nil, err
	}
	for _, f := range files {
		b, ok := f.opened.Statement.(statement.BreakGlass)
		if !ok || b.Name != name || !now.Before(b.Expires) || b.Fleet != t.Fleet {
			continue
		}
		if f.err == nil {
			return "", nil, command.Refuse(hint.New(fmt.Errorf("%s is open until %s already", name, b.Expires.Format(time.RFC3339)), "removing %s closes it", f.path))
		}
		if word(f.err) == statement.Unsigned {
			path, data = f.path, f.data
		}
	}
	return path, data, nil
}

// agrees refuses to sign an opening that is not what this person asks for: what they wrote would be lost without a word.
func agrees(path string, data []byte, reason string, lengthGiven bool, length time.Duration) error {
	st, err := statement.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	b, ok := st.(statement.BreakGlass)
	if !ok {
		return fmt.Errorf("%s: not an opening", path)
	}
	mend := "leave --reason and --for out to sign it as it is; or remove %s, and begin another"
	if reason != "" && reason != b.Reason {
		return command.Refuse(hint.New(fmt.Errorf("the opening of %s that waits has another reason: %q", b.Name, b.Reason), mend, path))
	}
	if whole := b.Expires.Sub(b.Made); lengthGiven && length != whole {
		return command.Refuse(hint.New(fmt.Errorf("the opening of %s that waits is for %s, until %s", b.Name, whole, b.Expires.Format(time.RFC3339)), mend, path))
	}
	return nil
}

// given tells whether a flag is on the command line.
func given(fs *flag.FlagSet, name string) (found bool) {
	fs.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// newOpening writes an opening that nobody has signed yet.
func newOpening(dir, fleet, name, reason string, now time.Time, length time.Duration) (path string, data []byte, err error) {
	id, err := statement.NewID()
	if err != nil {
		return "", nil, err
	}
	data, err = statement.Marshal(statement.BreakGlass{Kind: statement.KindBreakGlass, Fleet: fleet, ID: id, Name: name, Reason: reason, Made: now, Expires: now.Add(length)})
	if err != nil {
		return "", nil, command.Usagef("%v", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("making the directory of statements: %w", err)
	}
	path = filepath.Join(dir, "break-glass-"+name+"-"+id+".json")
	return path, data, durable.WriteFile(path, data, 0o644)
}

var breakGlassStatusVerb = command.Verb{
	Name:    "break-glass status",
	Args:    "--dir DIR",
	Summary: "show which break-glass identities are sealed, being opened, and open",
	Help: `Reads the directory of statements as the bastion does, under the signed policy in force, and changes nothing.

Example:

  fleetctl break-glass status --dir lab`,
	Run: runBreakGlassStatus,
}

// glassRow is one line of `fleetctl break-glass status`.
type glassRow struct {
	Name    string     `json:"name"`
	State   string     `json:"state"`   // "sealed", "signing" or "open"
	Opening string     `json:"opening"` // id
	Expires *time.Time `json:"expires"` // null while it is sealed
	By      []string   `json:"by"`      // who has signed
	Need    int        `json:"need"`    // people
	Reason  string     `json:"reason"`
}

func runBreakGlassStatus(ctx context.Context, c *command.Call) error {
	l, err := listStatements(ctx, c)
	if err != nil {
		return err
	}
	list := []glassRow{}
	var rows [][]string
	for _, g := range l.bundle.Policy.BreakGlass {
		r := glassRow{Name: g.Name, State: "sealed", By: []string{}, Need: l.trust.Threshold}
		for _, f := range l.files {
			o, ok := f.opened.Statement.(statement.BreakGlass)
			if !ok || o.Name != g.Name || !l.now.Before(o.Expires) || r.State == "open" {
				continue
			}
			state, by := "open", f.opened.Signers
			if f.err != nil {
				var few *trust.NotApproved
				if !errors.As(f.err, &few) {
					continue
				}
				state, by = "signing", few.Have
			}
			r.State, r.Opening, r.Expires, r.By, r.Reason = state, o.ID, &o.Expires, append([]string{}, by...), o.Reason
		}
		list = append(list, r)
		until := "-"
		if r.Expires != nil {
			until = r.Expires.Format(time.RFC3339)
		}
		rows = append(rows, []string{r.Name, r.State, until, strconv.Itoa(len(r.By)) + " of " + strconv.Itoa(r.Need), strings.Join(r.By, " "), r.Reason})
	}
	return show(c.Stdout, l.form, list, []string{"NAME", "STATE", "UNTIL", "SIGNED", "BY", "REASON"}, rows)
}
