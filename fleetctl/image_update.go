package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

var imageUpdateVerb = command.Verb{
	Name:    "image update",
	Args:    "--dir DIR --lock FILE --key FILE",
	Summary: "propose a release of today's packages, signed as a builder",
	Help: `Unattended upgrades, for an image: run it from cron. It moves the lock file to today's packages as "fleetctl image lock --update" does, builds the image
twice, puts the release in place under the next version, and signs it with a builder's key ("I made these bytes from the lock file"). Nothing
boots it before other builders made the same and people approved; it says who. When nothing has changed it proposes nothing, and
a second run of one that was cut short goes on where that one ended. Exit code 3 when a package would go back to an older version.

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
	b, err := newBuilder(t, *key)
	if err != nil {
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
	o.lock, o.twice = next, true
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
	builders, err := b.sign(filepath.Join(d.releases(), strconv.FormatUint(o.version, 10), release.StatementFile))
	if err != nil {
		return err
	}
	// Last: until the lock file has moved, the next run begins here again.
	if err := durable.WriteFile(*lockFile, next, 0o644); err != nil {
		return err
	}
	return showProposal(c, t, *output, *lockFile, o.version, builders, changes)
}

// newestRelease is the newest release's version, and whether it was made from this lock file.
func (d state) newestRelease(lock []byte) (version uint64, made bool, err error) {
	entries, err := os.ReadDir(d.releases())
	if err != nil {
		return 0, false, err
	}
	for _, e := range entries {
		if v, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
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

// builder signs for having built a release.
type builder struct {
	trust *trust.Trust
	name  string
	seal  func(data []byte) ([]byte, error)
}

// newBuilder loads a key, which has to be a builder's.
func newBuilder(t *trust.Trust, keyFile string) (*builder, error) {
	s, err := loadSigner(keyFile, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return nil, err
	}
	line := trust.FormatKey(s.PublicKey())
	i := slices.IndexFunc(t.Builders, func(p trust.Person) bool { return slices.Contains(p.Keys, line) })
	if i < 0 {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s is no builder's key", keyFile), "the builders are %s; `fleetctl trust propose` adds one", personNames(t.Builders)))
	}
	return &builder{t, t.Builders[i].Name, func(data []byte) ([]byte, error) { return sshsig.Sign(s, release.BuildNamespace, data) }}, nil
}

func personNames(people []trust.Person) string {
	var out []string
	for _, p := range people {
		out = append(out, p.Name)
	}
	if len(out) == 0 {
		return "nobody"
	}
	return strings.Join(out, ", ")
}

// sign adds the builder's signature to a statement's, if it is not there, and returns the builders whose signatures count.
func (b *builder) sign(path string) ([]string, error) {
	data, err := read(path, "the release was just made")
	if err != nil {
		return nil, err
	}
	sigs, err := readSignatures(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	have, err := b.built(data, sigs)
	if err != nil || slices.Contains(have, b.name) {
		return have, err
	}
	block, err := b.seal(data)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", path, err)
	}
	if len(sigs) > 0 && !bytes.HasSuffix(sigs, []byte("\n")) {
		sigs = append(sigs, '\n')
	}
	sigs = append(sigs, block...)
	if have, err = b.built(data, sigs); err != nil {
		return nil, err
	}
	if !slices.Contains(have, b.name) {
		return nil, errors.New("the signature that was just made does not verify")
	}
	return have, durable.WriteFile(signatures(path), sigs, 0o644)
}

// built tells whose signatures count, whether they are enough or not.
func (b *builder) built(data, sigs []byte) ([]string, error) {
	have, err := b.trust.Built(release.BuildNamespace, data, sigs)
	var few *trust.NotApproved
	if errors.As(err, &few) {
		return few.Have, nil
	}
	return have, err
}

// showProposal tells what was proposed, what is in it, and who has to look at it.
func showProposal(c *command.Call, t *trust.Trust, output, lock string, version uint64, builders []string, changes []image.Change) error {
	if version == 0 {
		fmt.Fprintf(c.Stderr, "fleetctl: nothing has changed since %s was made: nothing is proposed\n", lock)
	} else {
		fmt.Fprintf(c.Stderr, "fleetctl: release %d is proposed, built and signed by %s (%d of %d builders)\n", version, strings.Join(builders, ", "), len(builders), t.BuilderThreshold)
		fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl image sign --release %d` by %d of %s, then `fleetctl image use %d`\n", version, t.Threshold, personNames(t.Approvers), version)
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
