package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/fleetctl/signer"
	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/tunnel/checkin"
)

var initVerb = command.Verb{
	Name:    "init",
	Args:    "--dir DIR --approver NAME=REQUEST... [--threshold N] [--recovery NAME=REQUEST... [--recovery-threshold N]] [--builder NAME=REQUEST... [--builder-threshold N]] [--witness NAME=PUBFILE... [--witness-threshold N]] [--secure-boot FILE...] [--users]",
	Summary: "make a fleet's trust policy and the signer's keys, once",
	Help: `The ceremony from which all else follows. Makes, from DIR/fleet.toml and the enrolment requests of the approvers and of the recovery people, the
trust policy (DIR/trust.json: whose signatures count, and how many people it takes), the signer's keys (DIR/signer), the certificate of the
fleet's TLS CA (DIR/tls-ca.pem), what the public needs (DIR/public/client.json for apps, DIR/public/known_hosts for ssh, DIR/public/trust),
and a record for paper (DIR/records/trust-1.txt) to be read aloud, compared, signed and kept with the recovery keys. It refuses to overwrite any of them.

A REQUEST is what bastion-agent enroll writes: a key in a PIV card or FIDO2 authenticator, the proof of that, and an answer to a challenge of
` + "`fleetctl key challenge`" + `. What each proves is shown. A NAME given twice is one person with two keys; one key, or one PIV card, that
belongs to two people is refused. Where fleet.toml says test = true, a bare public key is taken as well; then the trust policy says so, and
every record of a login, a ticket or a certificate does.

--recovery names people whose keys lie in safes: if fewer approvers than the threshold are left, enough of them name others
(fleetctl trust propose). A fleet that is no test needs them. --hardware names a TOML file of rules for the keys, as [hardware] of policy.toml has them.

--builder names who makes a release again from its lock file and signs that it is the same, bit for bit; at least one in a fleet that is no test.
--witness names who says which policy is the newest (fleetctl witness), each with an Ed25519 key: a bastion loads no policy that
fewer than --witness-threshold of them confirm. More than half of them where nothing is said; a fleet that is no test needs at least one.

--secure-boot names the certificate under which images are signed for Secure Boot (` + "`fleetctl image secureboot-keys`" + ` makes one).

--users, as root, makes signer, serve and checkin users of their own: it gives each what is its own of DIR, and DIR/users.toml names them (mayfly-signer,
mayfly-serve, mayfly-checkin and the group mayfly, if it is not there yet). Without it they are one user (fleetctl doctor).

Example:

  fleetctl init --dir lab --approver ana=ana.json --approver bo=bo.json --approver cy=cy.json --threshold 2 \
    --recovery safe-a=safe-a.json --recovery safe-b=safe-b.json --recovery-threshold 2 --witness ida=ida.pub`,
	Run: runInit,
}

// defaultThreshold is how many people it takes where nothing is said.
const defaultThreshold = 2

// genesis is what the ceremony was told.
type genesis struct {
	dir                                                              *string
	approvers, recovery, builders, witnesses                         *[]string
	threshold, recoveryThreshold, builderThreshold, witnessThreshold *int
	hardware                                                         *string
	secureBoot                                                       *[]string
	users                                                            *bool
}

func genesisFlags(fs *flag.FlagSet) genesis {
	return genesis{
		dir:               dirFlag(fs),
		approvers:         manyFlag(fs, "approver", "`NAME=REQUEST`: an approver's enrolment request; at least as many people as the threshold"),
		threshold:         fs.Int("threshold", defaultThreshold, "`people` whose signatures a release or policy needs"),
		recovery:          manyFlag(fs, "recovery", "`NAME=REQUEST`: the request of one whose key lies in a safe"),
		recoveryThreshold: fs.Int("recovery-threshold", -1, "`people` of the recovery that name other approvers; more than half, if not given"),
		builders:          manyFlag(fs, "builder", "`NAME=REQUEST`: the request of one who makes releases again, on a machine of their own"),
		builderThreshold:  fs.Int("builder-threshold", -1, "`builders` whose signatures a release needs; more than half, if not given"),
		witnesses:         manyFlag(fs, "witness", "`NAME=PUBFILE`: a witness's public key"),
		witnessThreshold:  fs.Int("witness-threshold", -1, "`witnesses` that must confirm a policy; more than half, if not given"),
		hardware:          fs.String("hardware", "", "`file` of rules for the keys' hardware, TOML"),
		users:             fs.Bool("users", false, "as root: signer, serve and checkin are users of their own"),
		secureBoot:        manyFlag(fs, "secure-boot", "`FILE`: a certificate (PEM) in servers' firmware that images are signed under"),
	}
}

// quorum is the threshold that was given, or more than half.
func quorum(what string, given, of int) (int, error) {
	if given < 0 && of > 0 {
		return of/2 + 1, nil
	}
	if given = max(given, 0); given > of {
		return 0, hint.New(command.Usagef("a %s threshold of %d cannot be met by %d", what, given, of), "give --%s NAME=FILE once for each", what)
	}
	return given, nil
}

// trust is the trust policy as far as it needs no keys of the signer, and the challenges that were answered for it.
func (g genesis) trust(d state, f inventory.Fleet, now time.Time) (*trust.Trust, []hardkey.Challenge, error) {
	var met answered
	approvers, err := d.readPeople("approver", *g.approvers, f.Name, f.Test, &met, now)
	if err != nil {
		return nil, nil, err
	}
	recovery, err := d.readPeople("recovery", *g.recovery, f.Name, f.Test, &met, now)
	if err != nil {
		return nil, nil, err
	}
	builders, err := d.readPeople("builder", *g.builders, f.Name, f.Test, &met, now)
	if err != nil {
		return nil, nil, err
	}
	t := &trust.Trust{Kind: trust.Kind, Fleet: f.Name, Test: f.Test, Version: 1, Builders: builders.join(nil), Approvers: approvers.join(nil), Threshold: *g.threshold,
		Recovery: trust.Recovery{People: recovery.join(nil)}}
	if t.Witnesses, err = witnessKeys(*g.witnesses); err != nil {
		return nil, nil, err
	}
	if t.WitnessThreshold, err = quorum("witness", *g.witnessThreshold, len(t.Witnesses)); err != nil {
		return nil, nil, err
	}
	if t.BuilderThreshold, err = quorum("builder", *g.builderThreshold, len(t.Builders)); err != nil {
		return nil, nil, err
	}
	if t.Recovery.Threshold, err = quorum("recovery", *g.recoveryThreshold, len(t.Recovery.People)); err != nil {
		return nil, nil, err
	}
	if t.Threshold < 1 || t.Threshold > len(t.Approvers) {
		return nil, nil, hint.New(command.Usagef("a threshold of %d cannot be met by %d approvers", t.Threshold, len(t.Approvers)),
			"give --approver NAME=REQUEST once for each person")
	}
	if t.WitnessThreshold == 0 && !f.Test {
		return nil, nil, command.Refuse(hint.New(errors.New("nobody would say whether a policy is the newest one"),
			"give --witness NAME=PUBFILE, with the key that `fleetctl witness` will run with; a fleet for tests says test = true in fleet.toml"))
	}
	if t.Recovery.Threshold == 0 && !f.Test {
		return nil, nil, command.Refuse(hint.New(fmt.Errorf("nobody could replace the approvers, once fewer than %d are left", t.Threshold),
			"give --recovery NAME=REQUEST, with keys that go into safes; a fleet for tests says test = true in fleet.toml"))
	}
	if t.BuilderThreshold == 0 && !f.Test {
		return nil, nil, command.Refuse(hint.New(errors.New("nobody would say that a release is what its lock file makes"),
			"give --builder NAME=REQUEST for each who builds releases again; a fleet for tests says test = true in fleet.toml"))
	}
	if t.SecureBoot, err = secureBoot(nil, *g.secureBoot); err != nil {
		return nil, nil, err
	}
	if t.Hardware, err = readHardware(*g.hardware); err != nil {
		return nil, nil, err
	}
	if err := t.CheckPeople(); err != nil { // before anything is made
		if rejection := (*hardkey.Rejection)(nil); errors.As(err, &rejection) {
			return nil, nil, command.Refuse(fmt.Errorf("naming the people: %w", err)) // which has its own mend
		}
		if strings.Contains(err.Error(), trust.CardShared+": ") {
			return nil, nil, command.Refuse(hint.New(fmt.Errorf("naming the people: %w", err), "give each person cards that nobody else has; nothing was made"))
		}
		return nil, nil, hint.New(fmt.Errorf("naming the people: %w", err), hardkey.NameRule+"; give each person keys and cards that nobody else has; nothing was made")
	}
	return t, met.list, nil
}

func runInit(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	g := genesisFlags(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	d := state(*g.dir)
	f, err := d.fleet()
	if err != nil {
		return err
	}
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return err
	}
	return errors.Join(d.genesis(c, g, f, time.Now()), unlock())
}

// genesis makes all that a fleet begins with. The caller holds the directory.
func (d state) genesis(c *command.Call, g genesis, f inventory.Fleet, now time.Time) error {
	t, challenges, err := g.trust(d, f, now)
	if err != nil {
		return err
	}
	for _, path := range []string{d.trustFile(), d.path("signer"), d.caFile(), d.clientFile(), d.knownHostsFile(), d.chainDir(), d.recordsDir()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			if _, err := os.Lstat(d.trustFile()); errors.Is(err, os.ErrNotExist) {
				return hint.New(fmt.Errorf("%s is there already, and %s is not: an earlier `fleetctl init` did not get to its end, or the trust policy was lost", path, d.trustFile()),
					"if no fleet was ever run from here: remove signer, public, records, tls-ca.pem and ssh-host-cas.json of %s, and begin anew; if one was, put its trust.json back: public/trust has it", *g.dir)
			}
			return hint.New(fmt.Errorf("%s is there already: a fleet's trust is made once", path),
				"use another --dir for another fleet; `fleetctl trust propose` changes whom this one trusts")
		}
	}
	if err := os.MkdirAll(d.releases(), 0o755); err != nil {
		return fmt.Errorf("making the public directory: %w", err)
	}
	keys, err := signer.Init(string(d), f.Domain, now)
	if err != nil {
		return err
	}
	if err := writePublic(d, f, keys, t); err != nil {
		return err
	}
	if err := durable.WriteFile(d.caFile(), keys.TLSCA, 0o644); err != nil {
		return err
	}
	if err := durable.WriteFile(d.operatorsCAFile(), keys.Operators, 0o644); err != nil {
		return err
	}
	t.TicketKeys, t.ListKeys, t.LedgerKeys = []string{keys.TicketKey}, []string{keys.ListKey}, []string{keys.LedgerKey}
	data, err := t.Marshal()
	if err != nil {
		return err
	}
	if err := chain.Write(d.chainDir(), t.Version, data, nil); err != nil {
		return err
	}
	record, err := d.writeRecord(t, data, "fleetctl init, the first of this fleet", now)
	if err != nil {
		return err
	}
	undo, err := d.answered(challenges...)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.trustFile(), data, 0o644); err != nil {
		return errors.Join(err, undo())
	}
	if *g.users {
		if err := d.separate(); err != nil {
			return err
		}
	}
	sayTrust(c, t)
	fmt.Fprintf(c.Stdout, "record for paper: %s\n", record)
	fmt.Fprintf(c.Stderr, "fleetctl: next: print the record, read its SHA-256 aloud, have everybody sign it; then `fleetctl policy bundle`, and `fleetctl policy sign` by %d people\n", t.Threshold)
	return nil
}

// sayTrust shows whom a trust policy trusts, and why.
func sayTrust(c *command.Call, t *trust.Trust) {
	if t.Test {
		fmt.Fprintf(c.Stderr, "fleetctl: warning: TEST FLEET: software keys and virtual hardware count; nothing here is worth trusting\n")
	}
	fmt.Fprintf(c.Stdout, "trust policy of fleet %s: %d of %d people\n", t.Fleet, t.Threshold, len(t.Approvers))
	sayPeople(c, t, t.Approvers)
	if t.Recovery.Threshold > 0 {
		fmt.Fprintf(c.Stdout, "recovery: %d of %d people\n", t.Recovery.Threshold, len(t.Recovery.People))
		sayPeople(c, t, t.Recovery.People)
	} else {
		fmt.Fprintf(c.Stderr, "fleetctl: warning: no recovery: when fewer than %d approvers are left, nobody can change anything any more\n", t.Threshold)
	}
	if t.BuilderThreshold > 0 {
		fmt.Fprintf(c.Stdout, "builders: %d of %d\n", t.BuilderThreshold, len(t.Builders))
		sayPeople(c, t, t.Builders)
	} else {
		fmt.Fprintln(c.Stderr, "fleetctl: warning: no builder: nobody but the approvers says what a release was made from")
	}
	if t.WitnessThreshold > 0 {
		fmt.Fprintf(c.Stdout, "%d of %d witnesses confirm a policy\n", t.WitnessThreshold, len(t.Witnesses))
	} else {
		fmt.Fprintln(c.Stderr, "fleetctl: warning: no witness: nobody says whether a policy is the newest one")
	}
}

func sayPeople(c *command.Call, t *trust.Trust, people []trust.Person) {
	for _, p := range people {
		for i, key := range p.Keys {
			fmt.Fprintf(c.Stdout, "  %s: %s: %s\n", p.Name, policies.Fingerprint(key), proves(t, p, i))
		}
	}
}

// readHardware reads rules for keys' hardware; no file is no rules but the defaults.
func readHardware(file string) (h trust.Hardware, err error) {
	if file == "" {
		return h, nil
	}
	data, err := readBounded(file, "--hardware names a file with the keys of [hardware]", tomlfile.MaxSize)
	if err == nil {
		_, err = tomlfile.Decode(file, data, &h)
	}
	return h, err
}

// witnessKeys reads NAME=PUBFILE arguments.
func witnessKeys(args []string) (witnesses []trust.Person, err error) {
	for _, a := range args {
		name, key, err := publicKey("witness", a)
		if err != nil {
			return nil, err
		}
		if key.Type() != ssh.KeyAlgoED25519 {
			return nil, hint.New(command.Refuse(fmt.Errorf("witness %s: a key of type %s", name, key.Type())),
				"a witness signs by itself, with a key that `ssh-keygen -t ed25519` made")
		}
		witnesses = addKey(witnesses, name, key)
	}
	return witnesses, nil
}

// publicKey reads one NAME=PUBFILE argument.
func publicKey(role, arg string) (name string, key ssh.PublicKey, err error) {
	name, file, ok := strings.Cut(arg, "=")
	if !ok || name == "" || file == "" {
		return "", nil, command.Usagef("--%s %q: it is NAME=PUBFILE", role, arg)
	}
	data, err := read(file, role+": a public key is a file that ssh-keygen made")
	if err != nil {
		return "", nil, fmt.Errorf("%s %s: %w", role, name, err)
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil || len(strings.TrimSpace(string(rest))) > 0 {
		return "", nil, hint.New(fmt.Errorf("%s %s: %s is not one public key", role, name, file), "give the file that ends in .pub")
	}
	return name, key, nil
}

// addKey gives a person, who may be new, one more key.
func addKey(people []trust.Person, name string, key ssh.PublicKey) []trust.Person {
	i := slices.IndexFunc(people, func(p trust.Person) bool { return p.Name == name })
	if i < 0 {
		people = append(people, trust.Person{Name: name})
		i = len(people) - 1
	}
	people[i].Keys = append(people[i].Keys, trust.FormatKey(key))
	return people
}

// writePublic writes what apps and engineers need: whom to trust and whom to ask.
func writePublic(d state, f inventory.Fleet, keys signer.Public, t *trust.Trust) error {
	if f.BastionsOnly() { // no apps
		return d.publishHostCAs(f, signer.FirstHostCAs(keys.HostCA))
	}
	client := checkin.ClientConfig{
		Fleet:    f.Name,
		Domain:   f.Domain,
		CA:       string(keys.TLSCA),
		Checkin:  checkinAddress(f),
		Name:     f.FQDN(inventory.NameCheckin),
		ListKeys: []string{keys.ListKey},
		Ledger:   &checkin.Ledger{Keys: []string{keys.LedgerKey}, Witnesses: []checkin.Witness{}, Threshold: t.WitnessThreshold},
	}
	for _, w := range t.Witnesses {
		client.Ledger.Witnesses = append(client.Ledger.Witnesses, checkin.Witness{Name: w.Name, Keys: w.Keys})
	}
	data, err := canonical.Marshal(client)
	if err != nil {
		return fmt.Errorf("encoding client.json: %w", err)
	}
	if err := durable.WriteFile(d.clientFile(), data, 0o644); err != nil {
		return err
	}
	return d.publishHostCAs(f, signer.FirstHostCAs(keys.HostCA))
}

// checkinAddress is where check-in listens.
func checkinAddress(f inventory.Fleet) string {
	return netip.AddrPortFrom(f.Controller.Address, f.Controller.CheckinPort).String()
}
