package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/rebuild/release"
)

var imageSignVerb = command.Verb{
	Name:    "image sign",
	Args:    "--dir DIR --release DIR|VERSION --key FILE [--older-trust]",
	Summary: "add one person's signature to a release",
	Help: `Shows what the release's statement says, checks its files against it, and adds a signature over the statement's exact bytes to
release.json.sig. FILE is an approver's private key (mode 0600), or the public key of one that an ssh-agent holds: then touch
the hardware key when it blinks. A second signature of the same person is refused: the threshold counts people. A builder's key is refused:
builders say that they made the same bytes, and ` + "`fleetctl image rebuild`" + ` signs once they have.

A unified kernel image that holds an older trust policy than the one in force is refused: on servers that boot it by UEFI those count again whom the
fleet has taken out since. --older-trust signs it all the same.

Example:

  fleetctl image sign --dir lab --release 7 --key ~/.ssh/id_ed25519_sk.pub`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		name := fs.String("release", "", "`directory` of the release, or its version")
		key := fs.String("key", "", "`file` of the approver's private key, or public key in the agent")
		older := olderTrustFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *name == "" || *key == "" {
			return command.Usagef("--release and --key are needed")
		}
		d := state(*dir)
		t, trustPolicy, err := d.trust()
		if err != nil {
			return err
		}
		if name, ok, err := builderOf(t, *key); err != nil {
			return err
		} else if ok {
			return command.Refuse(hint.New(fmt.Errorf("%s is builder %s's key: a builder signs what was built again", *key, name),
				"`fleetctl image rebuild --key` builds it again, compares every bit, and signs then"))
		}
		where := d.releaseDir(*name)
		path := filepath.Join(where, release.StatementFile)
		data, err := read(path, "`fleetctl image build` makes a release")
		if err != nil {
			return err
		}
		s, err := release.Parse(data)
		if err != nil {
			return command.Refuse(fmt.Errorf("%s: %w", path, err))
		}
		if s.Fleet != t.Fleet {
			return command.Refuse(fmt.Errorf("%s is of fleet %q, the trust policy of %q", path, s.Fleet, t.Fleet))
		}
		if err := checkParts(s, where); err != nil {
			return err
		}
		b := d.believed(t, trustPolicy)
		inside, err := b.checkUKI(c, s, where)
		if err != nil {
			return err
		}
		if err := b.notOlder(inside, filepath.Join(where, release.UKIFile), *older); err != nil {
			return err
		}
		fmt.Fprintf(c.Stderr, "fleetctl: release %d of fleet %s, until %s: root %.12s, stub %.12s, kernel %.12s\n",
			s.Version, s.Fleet, s.NotAfter.Format(time.RFC3339), s.Root.SHA256, s.Stub.SHA256, s.Kernel.SHA256)
		fmt.Fprintf(c.Stderr, "fleetctl: valid from %s, lives of at most %s, policies from version %d, lock %.12s, kernel command line %q\n",
			s.NotBefore.Format(time.RFC3339), time.Duration(s.MaxAge)*time.Second, s.MinPolicy, s.Lock, s.Cmdline)
		fmt.Fprintf(c.Stderr, "fleetctl: profile %s; once it is published none older than release %d boots\n", s.Profile, s.Least)
		if inside != nil {
			fmt.Fprintf(c.Stderr, "fleetctl: %s holds trust policy %d, sha256 %s; %d is in force\n", release.UKIFile, inside.Version, inside.Sum(), t.Version)
		}
		a, err := approve(d.signers(t), release.Namespace, path, data, *key)
		if err != nil {
			return err
		}
		a = a.present(c)
		a.report(c, t, path)
		sigs, err := readSignatures(path)
		if err != nil {
			return err
		}
		if n := notBuilt(t, data, sigs); n > 0 {
			fmt.Fprintf(c.Stderr, "fleetctl: next: %d more builders build it again and sign: `fleetctl image rebuild`\n", n)
		}
		return nil
	},
}
