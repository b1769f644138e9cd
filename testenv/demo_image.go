package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/canonical"
	"mayfly/policies/trust"
	"mayfly/testenv/dnsroot"
	"mayfly/testenv/pivcard"
	"mayfly/testenv/softkey"
)

// envTestCache names a directory in which tests share packages and images.
const envTestCache = "MAYFLY_TEST_CACHE"

// approvers of the lab.
var approvers = []string{"ana", "bo", "cy"}

const threshold = 2

// builder makes the release again, by itself. Its key is in software.
const builder = "workshop"

// releaseVersion is the lab's release.
const releaseVersion = "1"

// image makes the fleet's files and trust, locks today's packages, and builds the image twice. A release statement names its fleet,
// so `fleetctl init` has to come first; the step "trust" looks at what it made.
func (d *demo) image(ctx context.Context) error {
	if err := d.makeFleet(ctx); err != nil {
		return err
	}
	packages := d.packages()
	// The cards get ready while packages come over the network.
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- d.people(waiting) }()
	locked := d.must("packages locked by hash", func() (string, error) {
		if _, err := d.e.output(ctx, d.e.bin("fleetctl"), "image", "lock", "--packages", packages, "--out", d.e.path("image.lock")); err != nil {
			return "", err
		}
		data, err := os.ReadFile(d.e.path("image.lock"))
		if err != nil {
			return "", err
		}
		if !strings.Contains(string(data), "linux-image") || !strings.Contains(string(data), "openssh-server") {
			return "", errors.New("the lock file names neither a kernel nor an SSH server")
		}
		return fmt.Sprintf("%d lines, %d bytes", strings.Count(string(data), "\n"), len(data)), nil
	})
	if locked != nil {
		cancel()
	}
	if err := errors.Join(locked, <-ready); err != nil {
		return err
	}
	if err := d.ceremony(ctx); err != nil {
		return err
	}
	return d.must("image built twice, the same bit for bit", func() (string, error) {
		out, err := d.fleetctl(ctx, "image", "build", "--lock", d.e.path("image.lock"), "--packages", packages, "--version", releaseVersion,
			"--source", d.e.module, "--twice", "-o", "json")
		if err != nil {
			return "", err
		}
		var built struct {
			Same    bool `json:"built_twice_the_same"`
			Release struct {
				Root, Stub, Kernel struct {
					Size   int64
					SHA256 string
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &built); err != nil {
			return "", fmt.Errorf("reading what fleetctl printed: %w", err)
		}
		if !built.Same {
			return "", errors.New("fleetctl does not say that both builds are the same")
		}
		r := built.Release
		return fmt.Sprintf("kernel %.1f MB, stub %.1f MB, root %.1f MB, root's hash %.16s…", mb(r.Kernel.Size), mb(r.Stub.Size), mb(r.Root.Size), r.Root.SHA256), nil
	})
}

// packages is the store of packages.
func (d *demo) packages() string {
	if shared := os.Getenv(envTestCache); shared != "" {
		return filepath.Join(shared, "packages")
	}
	return d.e.path("packages")
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// makeFleet lays software keys, DNS zone, fleet.toml and policy.toml, and makes the lab.
func (d *demo) makeFleet(ctx context.Context) error {
	if err := d.e.build(ctx, d.c.Stderr); err != nil {
		return err
	}
	for _, dir := range []string{d.e.fleet(), d.e.fleet("statements"), d.e.path("keys"), d.e.path("dns"), d.e.path("bastion"), d.e.path("ssh"), d.e.path("run")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the environment: %w", err)
		}
	}
	var taps []string
	for _, m := range slices.Concat(machines, gates()) {
		if d.e.engine == "" || m == gate { // a container's device is made with it
			taps = append(taps, m.Tap)
		}
	}
	if err := d.e.lab.Create(taps); err != nil {
		return fmt.Errorf("making the network: %w", err)
	}
	now := time.Now()
	zone, err := dnsroot.Sign(zoneRecords(), rootServer, now)
	if err != nil {
		return fmt.Errorf("making the DNS root: %w", err)
	}
	if err := d.e.makeTPMs(ctx); err != nil {
		return err
	}
	fleet, err := d.e.fleetText(zone.Anchor)
	if err != nil {
		return err
	}
	var issuers []pivcard.DeviceIssuer
	if d.e.lacking == "" {
		if issuers, err = d.layCards(); err != nil {
			return err
		}
	}
	people, err := d.softwareKeys()
	if err != nil {
		return err
	}
	policy, err := d.e.policyText(people, issuers, now)
	if err != nil {
		return err
	}
	for path, data := range map[string][]byte{
		d.e.path("dns", "root.zone"): zone.Zone, d.e.fleet("fleet.toml"): fleet, d.e.fleet("policy.toml"): policy,
	} {
		if err := d.write(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// people has those who hold cards enrol. Where there can be no cards, it says so.
func (d *demo) people(ctx context.Context) error {
	if d.e.hasCards() {
		return d.must("engineer and approvers hold virtual YubiKeys in the real pcscd", func() (string, error) { return d.makeCards(ctx) })
	}
	d.say("  SOFTWARE KEYS in place of virtual YubiKeys, of engineer and approvers: %s", d.e.lacking)
	d.r.add("engineer and approvers hold software keys in place of virtual YubiKeys", d.e.lacking, nil, 0)
	return nil
}

// ceremony runs `fleetctl init` with the approvers' keys, and puts the engineer's card into the policy.
func (d *demo) ceremony(ctx context.Context) error {
	args := []string{"init", "--threshold", fmt.Sprint(threshold), "--witness", witnessName + "=" + d.e.path("keys", witnessName) + ".pub",
		"--builder", builder + "=" + d.e.path("keys", builder) + ".pub"}
	for _, name := range approvers {
		args = append(args, "--approver", name+"="+d.e.request(name))
	}
	if !d.e.hasCards() {
		_, err := d.fleetctl(ctx, args...)
		return err
	}
	if _, err := d.fleetctl(ctx, append(args, "--hardware", d.e.path("cards", "rules.toml"))...); err != nil {
		return err
	}
	_, err := d.fleetctl(ctx, "key", "add", d.e.request(engineer))
	return err
}

// softwareKeys makes the keys that are in no card, and returns the engineers with those that are theirs.
func (d *demo) softwareKeys() (people []person, err error) {
	plain := []string{witnessName, stranger, builder}
	if !d.e.hasCards() {
		plain = append(plain, approvers...)
	}
	for _, name := range plain {
		if err := softwareKey(d.e.path("keys", name), name+" (software test key)"); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{engineer, colleague} {
		p := person{Name: name}
		if name == colleague || !d.e.hasCards() {
			k, err := softkey.New(rand.Reader)
			if err != nil {
				return nil, err
			}
			if err := k.Save(d.e.path("keys", name)); err != nil {
				return nil, err
			}
			p.Key = k.Authorized()
		}
		people = append(people, p)
	}
	return people, nil
}

// softwareKey writes an Ed25519 key pair in OpenSSH's form, 0600.
func softwareKey(path, comment string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making key %s: %w", path, err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return fmt.Errorf("making key %s: %w", path, err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("making key %s: %w", path, err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment + "\n"
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("making key %s: %w", path, err)
	}
	if err := os.WriteFile(path+".pub", []byte(line), 0o644); err != nil {
		return fmt.Errorf("making key %s: %w", path, err)
	}
	return nil
}

// trust signs release and policy with two of three people, and sees that less is refused.
func (d *demo) trust(ctx context.Context) error {
	d.r.check("trust policy: 2 of 3 people, marked as test", func() (string, error) {
		data, err := os.ReadFile(d.e.fleet("trust.json"))
		if err != nil {
			return "", err
		}
		t, err := trust.Parse(data)
		if err != nil {
			return "", err
		}
		if len(t.Approvers) != len(approvers) || t.Threshold != threshold || !t.Test {
			return "", fmt.Errorf("got %d approvers, threshold %d, test %v", len(t.Approvers), t.Threshold, t.Test)
		}
		again, err := canonical.Marshal(t)
		if err != nil || !slices.Equal(again, data) {
			return "", fmt.Errorf("trust.json is not in canonical form: %v", err)
		}
		proven := 0
		for _, p := range t.Approvers {
			for _, s := range p.Shown {
				if s.Kind == hardkey.KindPIV {
					proven++
				}
			}
		}
		if !d.e.hasCards() {
			return "ana, bo and cy hold software keys; trust.json says test", nil
		}
		if proven != len(approvers) {
			return "", fmt.Errorf("%d keys of approvers have a card's evidence", proven)
		}
		return "ana, bo and cy hold cards, whose evidence is in trust.json, which says test", nil
	})
	release := d.e.fleet("public", "releases", releaseVersion)
	sign := func(what []string, name string) (string, error) {
		return d.fleetctl(ctx, append(what, "--key", d.e.approverKey(name))...)
	}
	image := []string{"image", "sign", "--release", releaseVersion}
	if _, err := sign(image, "ana"); err != nil {
		return err
	}
	d.r.check("a release with one signature is refused", func() (string, error) {
		return d.refusedBy(ctx, "image", "verify", "--release", release)
	})
	d.r.check("a second signature of the same person is refused", func() (string, error) {
		return d.refusedBy(ctx, append(image, "--key", d.e.approverKey("ana"))...)
	})
	if _, err := sign(image, "bo"); err != nil {
		return err
	}
	d.r.check("a release that nobody made again is refused", func() (string, error) {
		return d.refusedBy(ctx, "image", "verify", "--release", release)
	})
	if err := d.must("release made again by a builder, the same bit for bit", func() (string, error) {
		_, err := d.fleetctl(ctx, "image", "rebuild", "--release", releaseVersion, "--packages", d.packages(), "--source", d.e.module, "--key", d.e.path("keys", builder))
		return "kernel, stub, root and unified kernel image; signed as " + builder, err
	}); err != nil {
		return err
	}
	d.r.check("a release that the public ledger does not hold is refused", func() (string, error) {
		return d.refusedBy(ctx, "image", "use", releaseVersion)
	})
	if err := d.must("release signed by two of three, in the ledger under a witness's cosignature, and in use", func() (string, error) {
		if err := d.startPublishing(ctx); err != nil {
			return "", err
		}
		if _, err := d.fleetctl(ctx, "image", "publish", "--release", releaseVersion); err != nil {
			return "", err
		}
		// As an outsider would: public keys, and what the witnesses say now.
		if _, err := d.fleetctl(ctx, "image", "verify", "--trust", "trust.json", "--release", release, "--witness", witnessURL); err != nil {
			return "", err
		}
		out, err := d.fleetctl(ctx, "image", "use", releaseVersion)
		return strings.TrimSpace(out), err
	}); err != nil {
		return err
	}
	if _, err := d.fleetctl(ctx, "policy", "check"); err != nil {
		return err
	}
	if _, err := d.fleetctl(ctx, "policy", "bundle"); err != nil {
		return err
	}
	if _, err := sign([]string{"policy", "sign"}, "bo"); err != nil {
		return err
	}
	d.r.check("a policy with one signature does not load", func() (string, error) {
		return d.refusedBy(ctx, "plan")
	})
	return d.must("policy signed by two of three, and loads", func() (string, error) {
		if _, err := sign([]string{"policy", "sign"}, "cy"); err != nil {
			return "", err
		}
		out, err := d.fleetctl(ctx, "plan", "-o", "json")
		if err != nil {
			return "", err
		}
		for _, m := range machines {
			if !strings.Contains(out, m.Name) {
				return "", fmt.Errorf("the plan does not name %s", m.Name)
			}
		}
		return "bo and cy signed; the first plan names all servers", nil
	})
}
