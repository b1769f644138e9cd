package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/fleetctl/users"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/keeper"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/offer"
)

// maxFile bounds the files of a state directory that are read whole.
const maxFile = 8 << 20

// state is a state directory (docs/manual.md#state-directory).
type state string

func (d state) path(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

func (d state) fleetFile() string       { return d.path("fleet.toml") }
func (d state) policyFile() string      { return d.path("policy.toml") }
func (d state) trustFile() string       { return d.path("trust.json") }
func (d state) bundleFile() string      { return d.path("bundle.json") }
func (d state) nextFile() string        { return d.path("bundle-next.json") }
func (d state) storeFile() string       { return d.path(keeper.File) }
func (d state) auditLogs() string       { return d.path("audit") } // of rebuilt bastions
func (d state) machines() string        { return d.path("machines") }
func (d state) offers() offer.Dir       { return offer.Dir(d.path("offers")) } // what machines elsewhere boot from: not in public, for it holds tickets
func (d state) powerPlugins() string    { return d.path("power-plugins") }
func (d state) caFile() string          { return d.path("tls-ca.pem") }          // not in signer, which only the signer reads
func (d state) operatorsCAFile() string { return signer.OperatorsCA(string(d)) } // whose certificates open the page
func (d state) hostCAsFile() string     { return d.path("ssh-host-cas.json") }   // as tls-ca.pem
func (d state) currentFile() string     { return d.path("release") }             // not in public: who writes there must not choose
func (d state) public() string          { return d.path("public") }
func (d state) clientFile() string      { return filepath.Join(d.public(), "client.json") }
func (d state) knownHostsFile() string  { return filepath.Join(d.public(), "known_hosts") }
func (d state) listFile() string        { return filepath.Join(d.public(), "list.json") }
func (d state) chainDir() string        { return filepath.Join(d.public(), "trust") } // trust policies that follow one another
func (d state) ledger() string          { return signer.LedgerDir(string(d)) }
func (d state) releases() string        { return filepath.Join(d.public(), "releases") }

// signatures is the file of a file's detached signatures.
func signatures(path string) string { return path + ".sig" }

// fleet reads fleet.toml, which takes effect only through a signed bundle.
func (d state) fleet() (inventory.Fleet, error) {
	data, err := read(d.fleetFile(), "write the fleet's fleet.toml first; docs/manual.md#fleettoml describes it")
	if err != nil {
		return inventory.Fleet{}, err
	}
	return inventory.Parse(d.fleetFile(), data)
}

// policy reads policy.toml, checks it against the fleet, and verifies the evidence of its keys.
func (d state) policy(f inventory.Fleet) (policies.Policy, error) {
	data, err := read(d.policyFile(), "write the fleet's policy.toml first; docs/manual.md#policytoml describes it")
	if err != nil {
		return policies.Policy{}, err
	}
	p, err := policies.Parse(d.policyFile(), data, f, zonesExist)
	if err != nil {
		return p, err
	}
	return p.Verified(f, time.Now()), nil
}

// trust reads the trust policy in force. One that another has followed is refused: it was put back, or `fleetctl trust apply` has yet to end.
func (d state) trust() (*trust.Trust, []byte, error) {
	t, data, err := d.trustAsItIs()
	if err != nil {
		return nil, nil, err
	}
	next, sigs, err := chain.Step(d.chainDir(), t.Version+1)
	if err != nil {
		return nil, nil, fmt.Errorf("looking for what follows %s: %w", d.trustFile(), err)
	}
	if next == nil {
		return t, data, nil
	}
	if _, err := trust.Advance(t, next, sigs); err != nil {
		return t, data, nil // junk, which `fleetctl trust apply` and `trust verify` name: it stops nobody else
	}
	return nil, nil, command.Refuse(hint.New(fmt.Errorf("%s: %s: version %d was in force, and %s follows it", d.trustFile(), trust.Older, t.Version, chain.File(d.chainDir(), t.Version+1)),
		"`fleetctl trust apply` takes the steps that are there; if it was not you who stopped halfway, somebody put an older trust policy back: find out who"))
}

// trustAsItIs reads trust.json, whatever has followed it.
func (d state) trustAsItIs() (*trust.Trust, []byte, error) {
	data, err := readBounded(d.trustFile(), "`fleetctl init` makes it, once; `fleetctl trust apply` changes it", trust.MaxSize)
	if err != nil {
		return nil, nil, err
	}
	t, err := trust.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.trustFile(), err)
	}
	return t, data, nil
}

// bundle opens the signed policy bundle: the only policy and inventory that any verb acts on. One older than least is refused.
func (d state) bundle(t *trust.Trust, least uint64, now time.Time) (*bundle.Bundle, error) {
	data, sigs, err := d.bundleBytes()
	if err != nil {
		return nil, err
	}
	b, err := bundle.Open(t, data, sigs, now, least)
	if r := (*bundle.Refusal)(nil); errors.As(err, &r) && r.Reason == bundle.Older {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", d.bundleFile(), err), "%s", olderHint))
	}
	if err != nil {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", d.bundleFile(), err),
			"`fleetctl policy bundle` makes a bundle, `fleetctl policy sign` signs it, once by each of %d people", t.Threshold))
	}
	return b, nil
}

const olderHint = "a newer policy was in force: put it back, or sign the older one again under a higher version; nothing was touched"

// policySeen is the newest policy version that serve or rotate ever acted under, read without changing the store.
func (d state) policySeen(ctx context.Context) (uint64, error) {
	t, err := users.Load(string(d))
	if err != nil {
		return 0, err
	}
	if r := t.RoleOf(os.Geteuid()); t.Separate && (r == users.Signer || r == users.Checkin) {
		return 0, nil // the store is not theirs to read; the signer remembers a version of its own
	}
	s, err := d.openReadOnly(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	v, err := s.PolicyVersion(ctx)
	return v, errors.Join(err, s.Close())
}

// actUnder remembers durably that b is acted under, before anything is. An older one is refused.
func actUnder(ctx context.Context, s store.Store, b *bundle.Bundle) error {
	err := s.ActUnder(ctx, b.Version)
	if errors.Is(err, store.ErrPolicyOlder) {
		return command.Refuse(hint.New(fmt.Errorf("%s: %w", bundle.Older, err), "%s", olderHint))
	}
	return err
}

func (d state) bundleBytes() (data, sigs []byte, err error) {
	if data, err = read(d.bundleFile(), "`fleetctl policy bundle` makes it"); err != nil {
		return nil, nil, err
	}
	sigs, err = readSignatures(d.bundleFile())
	return data, sigs, err
}

// openStore opens the store, and makes it on first use.
func (d state) openStore(ctx context.Context) (store.Store, error) {
	if _, err := os.Stat(string(d)); err != nil {
		return nil, hint.New(fmt.Errorf("opening the state directory: %w", err), "--dir names it")
	}
	t, err := users.Load(string(d))
	if err != nil {
		return nil, err
	}
	if _, err := t.Become(users.Serve); err != nil { // root would leave files that serve cannot write
		return nil, err
	}
	address, err := d.storeAddress()
	if err != nil {
		return nil, err
	}
	return keeper.Open(ctx, string(d), address)
}

// openReadOnly opens a store that is there, to read it. One that is not there is fs.ErrNotExist.
func (d state) openReadOnly(ctx context.Context) (store.Store, error) {
	address, err := d.storeAddress()
	if err != nil {
		return nil, err
	}
	return keeper.OpenReadOnly(ctx, string(d), address)
}

// storeAddress is where the bundle says that the store is. It is read before the bundle is verified, for the store says how old a bundle
// may be: keeper sees to it that another bundle does not lead to another store.
func (d state) storeAddress() (inventory.StoreAddress, error) {
	data, err := readBounded(d.bundleFile(), "", maxFile)
	if err == nil {
		if b, err := bundle.Parse(data); err == nil {
			return inventory.ParseStoreAddress(b.Inventory.Controller.Store)
		}
	}
	used, err := keeper.Used(string(d)) // whoever reads the bundle says what is wrong with it
	if err != nil {
		return inventory.StoreAddress{}, err
	}
	return inventory.ParseStoreAddress(used)
}

// servers are what the store knows, read without changing it.
func (d state) servers(ctx context.Context, c *command.Call) (servers []store.Server, err error) {
	err = d.reading(ctx, c, func(s store.Store) error {
		servers, err = s.Servers(ctx)
		return err
	})
	return servers, err
}

// reading reads from the store without changing it. A store that is not there knows nothing, and the talk says so.
func (d state) reading(ctx context.Context, c *command.Call, read func(store.Store) error) error {
	s, err := d.openReadOnly(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(c.Stderr, "fleetctl: %s is not there yet: no server was ever booted from here; `fleetctl serve` makes it\n", d.storeFile())
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(read(s), s.Close())
}

// read reads a bounded file; how says what makes it, when it is not there.
func read(path, how string) ([]byte, error) { return readBounded(path, how, maxFile) }

func readBounded(path, how string, limit int) ([]byte, error) {
	f, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.New(err, "%s; --dir names the state directory", how)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(data) > limit {
		return nil, hint.New(fmt.Errorf("reading %s: longer than %d bytes", path, limit), "this is not one of mayfly's files; see what lies there")
	}
	return data, nil
}

// openFile opens a regular file for reading. It does not wait for the other end of a pipe that somebody laid in its place.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = hint.New(fmt.Errorf("reading %s: not a regular file", path), "see what lies there: ls -l %s", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readSignatures reads a file's detached signatures; none, if nobody has signed it yet.
func readSignatures(path string) ([]byte, error) {
	data, err := readBounded(signatures(path), "", trust.MaxSignatureBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
