package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/policies/trust"
	"mayfly/tunnel/checkin"
)

var initVerb = command.Verb{
	Name:    "init",
	Args:    "--dir DIR --approver NAME=PUBFILE... [--threshold N] [--witness NAME=PUBFILE... [--witness-threshold N]]",
	Summary: "make a fleet's trust policy and the signer's keys, once",
	Help: `Makes, from DIR/fleet.toml and the public keys of the approvers, the trust policy (DIR/trust.json: whose
signatures count, and how many people it takes), the signer's keys (DIR/signer), the certificate of the fleet's TLS CA
(DIR/tls-ca.pem), and what the public needs (DIR/public/client.json for apps, DIR/public/known_hosts for ssh). It refuses to overwrite any of them.

A NAME given twice is one person with two keys. Keys that software can hold are refused, unless fleet.toml says
test = true; then the trust policy says so too, and every record of a login, a ticket or a certificate says so.

--witness names who says which policy is the newest (fleetctl witness), each with an Ed25519 key: a bastion loads no policy that
fewer than --witness-threshold of them confirm. More than half of them where nothing is said; a fleet that is no test needs at least one.

Example:

  fleetctl init --dir lab --approver ana=ana.pub --approver bo=bo.pub --approver cy=cy.pub --threshold 2`,
	Run: runInit,
}

// defaultThreshold is how many people it takes where nothing is said.
const defaultThreshold = 2

func runInit(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	threshold := fs.Int("threshold", defaultThreshold, "`people` whose signatures a release or policy needs")
	var approvers []string
	fs.Func("approver", "`NAME=PUBFILE`: an approver's public key; at least as many people as the threshold", func(s string) error {
		approvers = append(approvers, s)
		return nil
	})
	var witnessArgs []string
	fs.Func("witness", "`NAME=PUBFILE`: a witness's public key", func(s string) error {
		witnessArgs = append(witnessArgs, s)
		return nil
	})
	witnessThreshold := fs.Int("witness-threshold", -1, "`witnesses` that must confirm a policy; more than half, if not given")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	d := state(*dir)
	f, err := d.fleet()
	if err != nil {
		return err
	}
	people, software, err := approverKeys(approvers)
	if err != nil {
		return err
	}
	witnesses, err := witnessKeys(witnessArgs)
	if err != nil {
		return err
	}
	if *witnessThreshold < 0 && len(witnesses) > 0 {
		*witnessThreshold = len(witnesses)/2 + 1
	}
	if *witnessThreshold = max(*witnessThreshold, 0); *witnessThreshold > len(witnesses) {
		return hint.New(command.Usagef("a witness threshold of %d cannot be met by %d witnesses", *witnessThreshold, len(witnesses)),
			"give --witness NAME=PUBFILE once for each")
	}
	if *threshold < 1 || *threshold > len(people) {
		return hint.New(command.Usagef("a threshold of %d cannot be met by %d approvers", *threshold, len(people)),
			"give --approver NAME=PUBFILE once for each person")
	}
	if len(software) > 0 && !f.Test {
		return command.Refuse(hint.New(fmt.Errorf("keys that software can hold: %s", strings.Join(software, ", ")),
			"make hardware keys with `ssh-keygen -t ed25519-sk`; a fleet for tests says test = true in fleet.toml"))
	}
	if *witnessThreshold == 0 && !f.Test {
		return command.Refuse(hint.New(errors.New("nobody would say whether a policy is the newest one"),
			"give --witness NAME=PUBFILE, with the key that `fleetctl witness` will run with; a fleet for tests says test = true in fleet.toml"))
	}
	for _, path := range []string{d.trustFile(), d.path("signer"), d.caFile(), d.clientFile(), d.knownHostsFile()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return hint.New(fmt.Errorf("%s is there already: a fleet's trust is made once", path),
				"use another --dir for another fleet")
		}
	}
	t := &trust.Trust{Kind: trust.Kind, Fleet: f.Name, Test: f.Test, Version: 1, Approvers: people, Threshold: *threshold,
		Witnesses: witnesses, WitnessThreshold: *witnessThreshold}
	if err := t.CheckPeople(); err != nil { // before anything is made
		return hint.New(fmt.Errorf("naming the approvers: %w", err), "give each person a name of letters, digits and -_.@, and keys that nobody else has; nothing was made")
	}
	if err := os.MkdirAll(d.releases(), 0o755); err != nil {
		return fmt.Errorf("making the public directory: %w", err)
	}
	keys, err := signer.Init(*dir, f.Domain, time.Now())
	if err != nil {
		return err
	}
	if err := writePublic(d, f, keys); err != nil {
		return err
	}
	if err := durable.WriteFile(d.caFile(), keys.TLSCA, 0o644); err != nil {
		return err
	}
	t.TicketKeys, t.ListKeys = []string{keys.TicketKey}, []string{keys.ListKey}
	data, err := t.Marshal()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.trustFile(), data, 0o644); err != nil {
		return err
	}
	if f.Test {
		fmt.Fprintf(c.Stderr, "fleetctl: warning: TEST FLEET: software keys and virtual hardware count; nothing here is worth trusting\n")
	}
	fmt.Fprintf(c.Stdout, "trust policy of fleet %s: %d of %d people\n", f.Name, t.Threshold, len(people))
	for _, p := range people {
		fmt.Fprintf(c.Stdout, "  %s, %d keys\n", p.Name, len(p.Keys))
	}
	if t.WitnessThreshold > 0 {
		fmt.Fprintf(c.Stdout, "%d of %d witnesses confirm a policy\n", t.WitnessThreshold, len(witnesses))
	} else {
		fmt.Fprintln(c.Stderr, "fleetctl: warning: no witness: nobody says whether a policy is the newest one")
	}
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl policy bundle`, then `fleetctl policy sign` by %d people\n", t.Threshold)
	return nil
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

// approverKeys reads NAME=PUBFILE arguments, and names those keys that no hardware is needed for.
func approverKeys(args []string) (people []trust.Person, software []string, err error) {
	for _, a := range args {
		name, key, err := publicKey("approver", a)
		if err != nil {
			return nil, nil, err
		}
		switch key.Type() {
		case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		case ssh.KeyAlgoED25519:
			software = append(software, fmt.Sprintf("%s (%s)", strings.TrimPrefix(a, name+"="), key.Type()))
		default:
			return nil, nil, hint.New(command.Refuse(fmt.Errorf("approver %s: %s is a key of type %s", name, strings.TrimPrefix(a, name+"="), key.Type())),
				"sk-ssh-ed25519@openssh.com keys are made with `ssh-keygen -t ed25519-sk`")
		}
		people = addKey(people, name, key)
	}
	return people, software, nil
}

// writePublic writes what apps and engineers need: whom to trust and whom to ask.
func writePublic(d state, f inventory.Fleet, keys signer.Public) error {
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
