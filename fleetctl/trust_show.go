package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/policies"
	"mayfly/policies/trust"
)

var trustShowVerb = command.Verb{
	Name:    "trust show",
	Args:    "--dir DIR [--record] [-o table|json]",
	Summary: "show whose signatures count, and why, and what waits for signatures",
	Help: `Shows the trust policy in force: people, keys, what each key proves, thresholds, and its SHA-256 to compare with the record on paper. Where a
change waits for signatures, it shows that as well. --record prints the record for paper.

Example:

  fleetctl trust show --dir lab`,
	Run: runTrustShow,
}

// shownTrust is `fleetctl trust show -o json`.
type shownTrust struct {
	Fleet             string     `json:"fleet"`
	Test              bool       `json:"test"`
	Version           uint64     `json:"version"`
	SHA256            string     `json:"sha256"`
	Threshold         int        `json:"threshold"`
	RecoveryThreshold int        `json:"recovery_threshold"`
	BuilderThreshold  int        `json:"builder_threshold"`
	WitnessThreshold  int        `json:"witness_threshold"`
	Keys              []shownKey `json:"keys"`
	SecureBoot        []string   `json:"secure_boot,omitempty"`
	Next              *shownNext `json:"next,omitempty"`
}

type shownKey struct {
	Role        string         `json:"role"` // approver, recovery, builder, witness or ledger
	Name        string         `json:"name"`
	Fingerprint string         `json:"fingerprint"`
	Type        string         `json:"type"`
	Proof       *hardkey.Proof `json:"proof,omitempty"`
	Text        string         `json:"text"`
}

type shownNext struct {
	Version  uint64   `json:"version"`
	SHA256   string   `json:"sha256"`
	Changes  []string `json:"changes"`
	Standing []string `json:"standing"`
}

func runTrustShow(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir, form := dirFlag(flags), outputFlag(flags)
	record := flags.Bool("record", false, "print the record for paper")
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := errors.Join(noArguments(flags), checkFormat(*form)); err != nil {
		return err
	}
	d := state(*dir)
	t, data, err := d.trust()
	if err != nil {
		return err
	}
	if *record {
		kept, err := read(d.recordFile(t.Version), "`fleetctl init` and `fleetctl trust apply` make it")
		if errors.Is(err, fs.ErrNotExist) {
			kept, err = []byte(trustRecord(t, data, "a copy, made later", time.Now())), nil
		}
		if err != nil {
			return err
		}
		_, err = c.Stdout.Write(kept)
		return err
	}
	s := shownTrust{Fleet: t.Fleet, Test: t.Test, Version: t.Version, SHA256: trust.Sum(data), Threshold: t.Threshold,
		RecoveryThreshold: t.Recovery.Threshold, BuilderThreshold: t.BuilderThreshold, WitnessThreshold: t.WitnessThreshold, Keys: shownKeys(t), SecureBoot: t.SecureBoot}
	var rows [][]string
	for _, k := range s.Keys {
		rows = append(rows, []string{k.Role, k.Name, k.Fingerprint, k.Type, k.Text})
	}
	if _, err := os.Lstat(d.nextTrustFile()); err == nil {
		n, err := d.nextTrust()
		if err != nil {
			return err
		}
		s.Next = &shownNext{n.next.Version, trust.Sum(n.data), changes(n.old, n.next), n.standing()}
	}
	if *form == "table" {
		fmt.Fprintf(c.Stdout, "trust policy %s of fleet %s, sha256 %s\n", strconv.FormatUint(t.Version, 10), t.Fleet, s.SHA256)
		for _, sum := range t.SecureBoot {
			fmt.Fprintf(c.Stdout, "certificate for Secure Boot: sha256 %s\n", sum)
		}
		fmt.Fprintf(c.Stdout, "approvers: %d of %d; recovery: %d of %d; builders: %d of %d; witnesses: %d of %d\n", t.Threshold, len(t.Approvers),
			t.Recovery.Threshold, len(t.Recovery.People), t.BuilderThreshold, len(t.Builders), t.WitnessThreshold, len(t.Witnesses))
	}
	if err := show(c.Stdout, *form, s, []string{"ROLE", "NAME", "KEY", "TYPE", "PROVES"}, rows); err != nil || *form == "json" {
		return err
	}
	if s.Next != nil {
		fmt.Fprintf(c.Stdout, "trust policy %d waits for signatures, sha256 %s\n  %s\n", s.Next.Version, s.Next.SHA256,
			strings.Join(append(s.Next.Changes, s.Next.Standing...), "\n  "))
	}
	return nil
}

func shownKeys(t *trust.Trust) (keys []shownKey) {
	for _, r := range []struct {
		role   string
		people []trust.Person
	}{{"approver", t.Approvers}, {"recovery", t.Recovery.People}, {"builder", t.Builders}, {"witness", t.Witnesses}} {
		for _, p := range r.people {
			for i, line := range p.Keys {
				kind, _, _ := strings.Cut(line, " ")
				k := shownKey{Role: r.role, Name: p.Name, Fingerprint: policies.Fingerprint(line), Type: kind, Text: proves(t, p, i)}
				if r.role == "witness" {
					k.Text = "a service signs with it"
				}
				if proof, rejected := t.Prove(p, i); p.ShownFor(i).Kind != "" && rejected == nil {
					k.Proof = &proof
				}
				keys = append(keys, k)
			}
		}
	}
	for _, line := range t.LedgerKeys {
		kind, _, _ := strings.Cut(line, " ")
		keys = append(keys, shownKey{Role: "ledger", Name: "signer", Fingerprint: policies.Fingerprint(line), Type: kind, Text: "the fleet's public ledger is signed with it"})
	}
	return keys
}
