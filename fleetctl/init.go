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
	Args:    "--dir DIR --approver NAME=PUBFILE... [--threshold N]",
	Summary: "make a fleet's trust policy and the signer's keys, once",
	Help: `Makes, from DIR/fleet.toml and the public keys of the approvers, the trust policy (DIR/trust.json: whose
signatures count, and how many people it takes), the signer's keys (DIR/signer), the certificate of the fleet's TLS CA
(DIR/tls-ca.pem), and what the public needs (DIR/public/client.json for apps, DIR/public/known_hosts for ssh). It refuses to overwrite any of them.

A NAME given twice is one person with two keys. Keys that software can hold are refused, unless fleet.toml says
test = true; then the trust policy says so too, and every record of a login, a ticket or a certificate says so.

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
	if *threshold < 1 || *threshold > len(people) {
		return hint.New(command.Usagef("a threshold of %d cannot be met by %d approvers", *threshold, len(people)),
			"give --approver NAME=PUBFILE once for each person")
	}
	if len(software) > 0 && !f.Test {
		return command.Refuse(hint.New(fmt.Errorf("keys that software can hold: %s", strings.Join(software, ", ")),
			"make hardware keys with `ssh-keygen -t ed25519-sk`; a fleet for tests says test = true in fleet.toml"))
	}
	for _, path := range []string{d.trustFile(), d.path("signer"), d.caFile(), d.clientFile(), d.knownHostsFile()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return hint.New(fmt.Errorf("%s is there already: a fleet's trust is made once", path),
				"use another --dir for another fleet")
		}
	}
	t := &trust.Trust{Kind: trust.Kind, Fleet: f.Name, Test: f.Test, Version: 1, Approvers: people, Threshold: *threshold}
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
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl policy bundle`, then `fleetctl policy sign` by %d people\n", t.Threshold)
	return nil
}

// approverKeys reads NAME=PUBFILE arguments, and names those keys that no hardware is needed for.
func approverKeys(args []string) (people []trust.Person, software []string, err error) {
	for _, a := range args {
		name, file, ok := strings.Cut(a, "=")
		if !ok || name == "" || file == "" {
			return nil, nil, command.Usagef("--approver %q: it is NAME=PUBFILE", a)
		}
		data, err := read(file, "an approver's public key is a file that ssh-keygen made")
		if err != nil {
			return nil, nil, fmt.Errorf("approver %s: %w", name, err)
		}
		key, _, _, rest, err := ssh.ParseAuthorizedKey(data)
		if err != nil || len(strings.TrimSpace(string(rest))) > 0 {
			return nil, nil, hint.New(fmt.Errorf("approver %s: %s is not one public key", name, file), "give the file that ends in .pub")
		}
		switch key.Type() {
		case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		case ssh.KeyAlgoED25519:
			software = append(software, fmt.Sprintf("%s (%s)", file, key.Type()))
		default:
			return nil, nil, hint.New(command.Refuse(fmt.Errorf("approver %s: %s is a key of type %s", name, file, key.Type())),
				"sk-ssh-ed25519@openssh.com keys are made with `ssh-keygen -t ed25519-sk`")
		}
		line := trust.FormatKey(key)
		i := slices.IndexFunc(people, func(p trust.Person) bool { return p.Name == name })
		if i < 0 {
			people = append(people, trust.Person{Name: name})
			i = len(people) - 1
		}
		people[i].Keys = append(people[i].Keys, line)
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
