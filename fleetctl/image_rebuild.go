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
	"strconv"
	"strings"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

var imageRebuildVerb = command.Verb{
	Name:    "image rebuild",
	Args:    "--dir DIR --release DIR|VERSION [--lock FILE] [--source DIR] [--key FILE [--older-trust]]",
	Summary: "build a release again from its lock file and the source, compare every bit, and sign as a builder",
	Help: `Builds the programs and the image again, from the source tree and the release's lock file, and compares what comes out with the release's
statement: kernel, stub, root, command line, and the unified kernel image; and with sbom.spdx.json, where that lies beside it. Only if all are the same, bit for bit, it adds a signature to
release.json.sig with a builder's key, which says just that. A builder does this on a machine of their own, with packages that this machine
has fetched, and needs of the release no more than release.json and image.lock.

FILE is the builder's private key (mode 0600), or the public key of one that an ssh-agent holds. Without --key it compares and signs
nothing: anybody may. Exit 3 when anything differs; ` + "`fleetctl image diff`" + ` shows where.

The unified kernel image may hold the trust policy in force, or one that it goes back to by the hashes that each names, which is told. Under an older
one than that in force a builder signs only with --older-trust.

Example:

  fleetctl image rebuild --dir lab --release 7 --source . --key ~/.ssh/id_ed25519_sk.pub`,
	Run: runImageRebuild,
}

// buildDiffers is the reason of a release that another build does not make.
const buildDiffers = "build_differs"

// maxTrustTries bounds how many trust policies are tried for the one that a unified kernel image has inside.
const maxTrustTries = 16

// rebuiltRelease is `fleetctl image rebuild -o json`.
type rebuiltRelease struct {
	Release  uint64     `json:"release"`
	Same     bool       `json:"same"`
	Inside   uint64     `json:"trust_inside,omitempty"` // version of the trust policy in the unified kernel image
	InForce  uint64     `json:"trust_in_force"`
	Compared []compared `json:"compared"`
	SignedBy string     `json:"signed_by,omitempty"`
}

type compared struct {
	What  string `json:"what"`
	Is    string `json:"is"`
	Built string `json:"built"`
}

func runImageRebuild(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir, output, packages := dirFlag(flags), outputFlag(flags), packagesFlag(flags)
	name := flags.String("release", "", "`directory` of the release, or its version")
	lockFile := flags.String("lock", "", "lock `file`; the release's own if left out")
	source := flags.String("source", ".", "`directory` of mayfly's source tree")
	key := flags.String("key", "", "`file` of the builder's private key, or public key in the agent")
	older := olderTrustFlag(flags)
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := errors.Join(noArguments(flags), checkFormat(*output)); err != nil {
		return err
	}
	if *name == "" {
		return command.Usagef("--release is needed")
	}
	d := state(*dir)
	t, trustPolicy, err := d.trust()
	if err != nil {
		return err
	}
	if *key != "" {
		if _, err := mustBuilder(t, *key); err != nil { // before a build, and not after it
			return err
		}
	}
	store, err := packageStore(*packages)
	if err != nil {
		return err
	}
	r, err := d.rebuild(ctx, c, t, trustPolicy, rebuilding{release: *name, lock: *lockFile, source: *source, store: store, key: *key, olderTrust: *older})
	if err != nil {
		return err
	}
	if err := showRebuilt(c, *output, r.rebuiltRelease); err != nil {
		return err
	}
	return r.refused()
}

// rebuilding is what a release is built again from, and the key to sign with.
type rebuilding struct {
	release string // directory or version
	lock    string // file; the release's own if empty
	source  string
	store   string
	key     string // a builder's; empty: compare only
	again   bool   // that the builder has signed already is no error

	olderTrust bool // sign even where the image holds a trust policy before the one in force
}

// rebuildOutcome is what came of it.
type rebuildOutcome struct {
	rebuiltRelease
	statement string   // its path
	builders  []string // whose signatures count now
	tooOld    error    // why it is not signed although it is the same
}

// refused is the refusal of a release that was not built.
func (r rebuildOutcome) refused() error {
	if r.Same {
		return r.tooOld
	}
	return command.Refuse(hint.New(fmt.Errorf("%s: %s: this build is not what the statement says", r.statement, buildDiffers),
		"compare source, lock file and Go version with who built it; `fleetctl image diff` compares the files; nothing was signed"))
}

// rebuild is the one way to a builder's signature: it builds a release anew, from the packages themselves, compares all that the statement says of the
// bytes, and signs only what came out the same.
func (d state) rebuild(ctx context.Context, c *command.Call, t *trust.Trust, trustPolicy []byte, o rebuilding) (r rebuildOutcome, err error) {
	where := d.releaseDir(o.release)
	if o.lock == "" {
		o.lock = filepath.Join(where, release.LockFile)
	}
	s, data, lock, err := rebuildable(t, where, o.lock)
	if err != nil {
		return r, err
	}
	r.statement = filepath.Join(where, release.StatementFile)
	if v, err := strconv.ParseUint(o.release, 10, 64); err == nil && v != s.Version {
		return r, command.Refuse(fmt.Errorf("%s: %s: it is about release %d", r.statement, buildDiffers, s.Version))
	}
	work, err := os.MkdirTemp("", "mayfly-rebuild-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	tree, err := d.passHistory(ctx, c, o.source, work)
	if err != nil {
		return r, err
	}
	out := filepath.Join(work, "image")
	built, _, err := buildOnce(ctx, c, image.Inputs{Lock: lock, Store: o.store, Fresh: true}, tree, out)
	if err != nil {
		return r, err
	}
	b := d.believed(t, trustPolicy)
	again, inside, err := b.restate(s, built, out)
	if err != nil {
		return r, err
	}
	r.rebuiltRelease = rebuiltRelease{Release: s.Version, InForce: t.Version, Compared: compareStatements(s, again)}
	if r.Same, err = sameStatement(again, data); err != nil {
		return r, err
	}
	// Nobody signs the bill of materials, and which package a file is from only a build can tell: where one lies there, it has to be this build's.
	listed, err := readBounded(filepath.Join(where, release.SBOMFile), "", image.MaxSBOM)
	if err == nil {
		sum := fmt.Sprintf("%x", sha256.Sum256(listed))
		r.Compared = append(r.Compared, compared{release.SBOMFile, sum, built.SBOM.SHA256})
		r.Same = r.Same && sum == built.SBOM.SHA256
	} else if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if !r.Same {
		return r, nil
	}
	if inside != nil {
		r.Inside = inside.Version
		fmt.Fprintf(c.Stderr, "fleetctl: %s holds trust policy %d; %d is in force\n", release.UKIFile, inside.Version, t.Version)
		if o.key != "" {
			r.tooOld = b.notOlder(inside, filepath.Join(where, release.UKIFile), o.olderTrust)
		}
		if r.tooOld != nil {
			return r, nil // the comparison was made, and nothing is signed
		}
	}
	fmt.Fprintf(c.Stderr, "fleetctl: release %d is what its lock file and this source make, bit for bit\n", s.Version)
	if o.key == "" {
		return r, nil
	}
	name, err := mustBuilder(t, o.key)
	if err != nil {
		return r, err
	}
	signed, err := approve(asBuilders(t), release.BuildNamespace, r.statement, data, o.key)
	if already, ok := errors.AsType[*alreadySigned](err); ok && o.again {
		signed, err = approval{people: already.people, person: name}, nil
	}
	if err != nil {
		return r, err
	}
	r.SignedBy, r.builders = name, signed.people
	fmt.Fprintf(c.Stderr, "fleetctl: %s: built and signed by %s (%d of %d builders)\n", r.statement, strings.Join(r.builders, ", "), len(r.builders), t.BuilderThreshold)
	return r, nil
}

// rebuildable reads a statement, whoever signed it, and the lock file that it names.
func rebuildable(t *trust.Trust, where, lockFile string) (s *release.Statement, data, lock []byte, err error) {
	path := filepath.Join(where, release.StatementFile)
	if data, err = read(path, "`fleetctl image build` makes a release"); err != nil {
		return nil, nil, nil, err
	}
	if s, err = release.Parse(data); err != nil {
		return nil, nil, nil, command.Refuse(fmt.Errorf("%s: %s: %w", path, release.Malformed, err))
	}
	if s.Fleet != t.Fleet {
		return nil, nil, nil, command.Refuse(fmt.Errorf("%s: %s: of fleet %q, the trust policy is of %q", path, release.OtherFleet, s.Fleet, t.Fleet))
	}
	if lock, err = read(lockFile, "it is image.lock of the release"); err != nil {
		return nil, nil, nil, err
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(lock)); sum != s.Lock {
		return nil, nil, nil, command.Refuse(hint.New(fmt.Errorf("%s: %s: SHA-256 %s, the statement says %s", lockFile, release.PartAltered, sum, s.Lock), "take the lock file that lies beside the statement"))
	}
	return s, data, lock, nil
}

// restate is the statement with what was built in the place of what it says. A unified kernel image has a trust policy of the fleet inside: the one
// in force, or one before it that it goes back to, if the statement is that old; it is returned, too.
func (b believed) restate(s *release.Statement, built image.Result, out string) (_ *release.Statement, inside *trust.Trust, err error) {
	again := *s
	again.Kernel, again.Stub, again.Root, again.Cmdline, again.Lock, again.Profile = built.Kernel, built.Stub, built.Root, built.Cmdline, built.Lock, built.Profile
	again.UKI, again.UKIAuthenticode, again.KernelAuthenticode = nil, "", ""
	if s.UKI == nil && len(built.EFIStub) == 0 {
		return &again, nil, nil
	}
	data := b.bytes
	inside = b.trust
	for range maxTrustTries {
		if err := makeUKI(out, built, data, &again); err != nil {
			return nil, nil, err
		}
		if s.UKI == nil || again.UKI == nil {
			return &again, nil, nil
		}
		if *again.UKI == *s.UKI {
			return &again, inside, nil
		}
		if inside, data, err = chain.Before(inside, b.chain); err != nil {
			break // what came before that nobody here knows
		}
	}
	return &again, nil, nil // which differs
}

// sameStatement reports whether a statement is the one in data, to the last byte.
func sameStatement(s *release.Statement, data []byte) (bool, error) {
	again, err := s.Marshal()
	return bytes.Equal(again, data), err
}

// compareStatements are the parts of two statements, side by side.
func compareStatements(s, again *release.Statement) []compared {
	uki := func(s *release.Statement) string {
		if s.UKI == nil {
			return "none"
		}
		return s.UKI.SHA256
	}
	return []compared{
		{release.KernelFile, s.Kernel.SHA256, again.Kernel.SHA256}, {release.StubFile, s.Stub.SHA256, again.Stub.SHA256}, {release.RootFile, s.Root.SHA256, again.Root.SHA256},
		{release.UKIFile, uki(s), uki(again)}, {release.LockFile, s.Lock, again.Lock}, {"profile", s.Profile, again.Profile}, {"cmdline", s.Cmdline, again.Cmdline},
		{"kernel_authenticode", s.KernelAuthenticode, again.KernelAuthenticode}, {"uki_authenticode", s.UKIAuthenticode, again.UKIAuthenticode},
	}
}

func showRebuilt(c *command.Call, form string, r rebuiltRelease) error {
	var rows [][]string
	for _, x := range r.Compared {
		rows = append(rows, []string{x.What, strconv.FormatBool(x.Is == x.Built), x.Is, x.Built})
	}
	return show(c.Stdout, form, r, []string{"PART", "SAME", "STATEMENT", "BUILT"}, rows)
}

// builderOf is the builder whose key a file holds, if it is one's.
func builderOf(t *trust.Trust, keyFile string) (name string, ok bool, err error) {
	s, err := loadSigner(keyFile, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return "", false, err
	}
	name, ok = owner(asBuilders(t), s.PublicKey())
	return name, ok, nil
}

// mustBuilder refuses a key that is no builder's.
func mustBuilder(t *trust.Trust, keyFile string) (string, error) {
	name, ok, err := builderOf(t, keyFile)
	if err == nil && !ok {
		err = command.Refuse(hint.New(fmt.Errorf("%s is no builder's key", keyFile), "the builders are %s; approvers sign with `fleetctl image sign`", builderNames(t)))
	}
	return name, err
}

// nextSteps is what a release still needs before a server may boot it.
func nextSteps(t *trust.Trust, version uint64) string {
	return fmt.Sprintf("next: `fleetctl image sign --release %d` by %d of %s, `fleetctl image rebuild --release %d` by %d of the builders %s, `fleetctl image publish --release %d`, and `fleetctl image use %d`",
		version, t.Threshold, strings.Join(names(t), ", "), version, t.BuilderThreshold, builderNames(t), version, version)
}

// asBuilders is the trust policy with the builders in the approvers' place: for counting who signed as a builder, and for nothing else.
func asBuilders(t *trust.Trust) *trust.Trust {
	b := *t
	b.Approvers, b.Threshold = t.Builders, t.BuilderThreshold
	return &b
}

func builderNames(t *trust.Trust) string {
	if len(t.Builders) == 0 {
		return "nobody: `fleetctl trust propose --builder` names some"
	}
	return strings.Join(names(asBuilders(t)), ", ")
}

// notBuilt says how many builders have still to build a release again.
func notBuilt(t *trust.Trust, data, sigs []byte) int {
	people, err := t.Built(release.BuildNamespace, data, sigs)
	if err == nil {
		return 0
	}
	return max(t.BuilderThreshold, 1) - len(have(people, err))
}
