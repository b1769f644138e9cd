package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/policies/trust"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

var imageUpdateVerb = command.Verb{
	Name:    "image update",
	Args:    "--dir DIR --lock FILE --key FILE",
	Summary: "propose a release of today's packages, signed as a builder",
	Help: `Unattended upgrades, for an image: run it from cron. It moves the lock file to today's packages as "fleetctl image lock --update" does, builds the image,
puts the release in place under the next version, builds it a second time from the packages and compares, and signs it with a builder's key ("I made these bytes from the lock file"). Nothing
boots it before other builders made the same and people approved; it says who. When nothing has changed it proposes nothing. Where the
newest release is of the same lock file already (a run that was cut short, or another builder's) it proposes no second one: it builds that one again,
and signs if it is the same, as "fleetctl image rebuild" does. Exit code 3 when it is not, or when a package, the kernel, Go or the
epoch would go back.

Example:

  fleetctl image update --dir lab --lock image.lock --key builder.pub`,
	Run: runImageUpdate,
}

func runImageUpdate(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	lockFile := fs.String("lock", "", "lock `file` to move")
	key := fs.String("key", "", "`file` of the builder's private key, or public key in the agent")
	packages := packagesFlag(fs)
	o := orderFlags(fs)
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output), o.check()); err != nil {
		return err
	}
	if *lockFile == "" || *key == "" {
		return command.Usagef("--lock and --key are needed")
	}
	d := state(*dir)
	t, trustPolicy, err := d.trust()
	if err != nil {
		return err
	}
	old, err := readLock(*lockFile)
	if err != nil {
		return err
	}
	if _, err := mustBuilder(t, *key); err != nil {
		return err
	}
	if err := os.MkdirAll(d.releases(), 0o755); err != nil {
		return err
	}
	unlock, err := lockDirectory(d.releases()) // two updates at once would propose twice
	if err != nil {
		return err
	}
	defer unlock()
	if o.store, err = packageStore(*packages); err != nil {
		return err
	}
	next, changes, err := newLock(ctx, old, o.store, false)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		return showProposal(c, t, *output, *lockFile, 0, nil, changes)
	}
	o.lock = next
	version, made, err := d.newestRelease(next)
	if err != nil {
		return err
	}
	if o.version = version; !made {
		o.version++
		if _, _, err := d.makeRelease(ctx, c, t, trustPolicy, o); err != nil {
			return err
		}
	}
	// A release that was there already may be anybody's, and one that was just made was built once: either is built again before it is signed.
	r, err := d.rebuild(ctx, c, t, trustPolicy, rebuilding{release: strconv.FormatUint(o.version, 10), source: o.source, store: o.store, key: *key, again: true})
	if err == nil {
		err = r.refused()
	}
	if err != nil {
		return err
	}
	// Last: until the lock file has moved, the next run begins here again.
	if err := durable.WriteFile(*lockFile, next, 0o644); err != nil {
		return err
	}
	return showProposal(c, t, *output, *lockFile, o.version, r.builders, changes)
}

// newestRelease is the newest release's version, and whether it was made from this lock file.
func (d state) newestRelease(lock []byte) (version uint64, made bool, err error) {
	entries, err := os.ReadDir(d.releases())
	if err != nil {
		return 0, false, err
	}
	for _, e := range entries {
		if v, err := strconv.ParseUint(e.Name(), 10, 63); err == nil && e.Name() == strconv.FormatUint(v, 10) { // "007" is no release's directory
			version = max(version, v)
		}
	}
	if version == 0 {
		return 0, false, nil
	}
	path := filepath.Join(d.releases(), strconv.FormatUint(version, 10), release.StatementFile)
	data, err := read(path, "every release has one")
	if err != nil {
		return 0, false, err
	}
	s, err := release.Parse(data)
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	return version, s.Lock == fmt.Sprintf("%x", sha256.Sum256(lock)), nil
}

// showProposal tells what was proposed, what is in it, and who has to look at it.
func showProposal(c *command.Call, t *trust.Trust, output, lock string, version uint64, builders []string, changes []image.Change) error {
	if version == 0 {
		fmt.Fprintf(c.Stderr, "fleetctl: nothing has changed since %s was made: nothing is proposed\n", lock)
	} else {
		fmt.Fprintf(c.Stderr, "fleetctl: release %d is proposed, built and signed by %s (%d of %d builders)\n", version, strings.Join(builders, ", "), len(builders), t.BuilderThreshold)
		fmt.Fprintln(c.Stderr, "fleetctl: "+nextSteps(t, version))
	}
	rows := [][]string{}
	for _, ch := range changes {
		rows = append(rows, []string{ch.Input, dash(ch.Old), dash(ch.New), ch.What})
	}
	return show(c.Stdout, output, struct {
		Proposed  uint64         `json:"proposed"` // the release's version; 0: nothing
		Lock      string         `json:"lock"`
		Builders  []string       `json:"builders"`
		Approvers []string       `json:"approvers"` // who may approve it
		Threshold int            `json:"threshold"`
		Changes   []image.Change `json:"changes"`
	}{version, lock, append([]string{}, builders...), names(t), t.Threshold, changes}, []string{"INPUT", "OLD", "NEW", "WHAT"}, rows)
}
