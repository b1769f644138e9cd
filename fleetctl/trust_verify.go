package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
)

var trustVerifyVerb = command.Verb{
	Name:    "trust verify",
	Args:    "--dir DIR [--root FILE] [--sha256 HEX] [-o table|json]",
	Summary: "check every step from the first trust policy to the one in force",
	Help: `Goes from a trust policy that you believe, step by step, to DIR/trust.json, and shows each step: what changed, by whom, and whether with
keys from safes. What you believe is FILE, or DIR/public/trust/1.json; --sha256 compares it with the number on the paper record, where white
space does not matter. Exit 3 when a step does not follow.

Example:

  fleetctl trust verify --dir lab --sha256 "$(cat from-the-paper)"`,
	Run: runTrustVerify,
}

// shownStep is one line of `fleetctl trust verify`.
type shownStep struct {
	Version uint64   `json:"version"`
	How     string   `json:"how"` // "root", "approvers" or "recovery"
	Old     []string `json:"old,omitempty"`
	New     []string `json:"new,omitempty"`
	SHA256  string   `json:"sha256"`
	Changes []string `json:"changes,omitempty"`
}

func runTrustVerify(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir, form := dirFlag(flags), outputFlag(flags)
	root := flags.String("root", "", "`file` of the trust policy that is believed")
	sum := flags.String("sha256", "", "`number` from the paper record, that the root must have")
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := errors.Join(noArguments(flags), checkFormat(*form)); err != nil {
		return err
	}
	d := state(*dir)
	if *root == "" {
		*root = chain.File(d.chainDir(), 1)
	}
	data, err := readBounded(*root, "--root names the trust.json that you believe", trust.MaxSize)
	if err != nil {
		return err
	}
	if want := strings.ToLower(strings.Join(strings.Fields(*sum), "")); want != "" && want != trust.Sum(data) {
		return command.Refuse(hint.New(fmt.Errorf("%s has sha256 %s, and the paper says %s", *root, trust.Sum(data), want),
			"compare once more; if it stays so, this is not the trust policy that was signed on paper: stop, and find out since when"))
	}
	t, err := trust.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", *root, err)
	}
	_, now, err := d.trust()
	if err != nil {
		return err
	}
	steps := []trust.Change(nil)
	if trust.Sum(now) != trust.Sum(data) {
		if _, steps, err = chain.Reach(t, now, d.chainDir()); err != nil {
			return command.Refuse(fmt.Errorf("from %s to %s: %w", *root, d.trustFile(), err))
		}
	}
	list := []shownStep{{Version: t.Version, How: "root", SHA256: trust.Sum(data)}}
	rows := [][]string{{strconv.FormatUint(t.Version, 10), "root", "", "", trust.Sum(data)}}
	for _, s := range steps {
		list = append(list, shownStep{s.Trust.Version, s.How, s.Old, s.New, s.Trust.Sum(), changes(t, s.Trust)})
		rows = append(rows, []string{strconv.FormatUint(s.Trust.Version, 10), s.How, strings.Join(s.Old, " "), strings.Join(s.New, " "), s.Trust.Sum()})
		t = s.Trust
	}
	if data, sigs, err := chain.Step(d.chainDir(), t.Version+1); err != nil || data != nil { // trust() has looked: it does not follow
		if err == nil {
			_, err = trust.Advance(t, data, sigs)
		}
		fmt.Fprintf(c.Stderr, "fleetctl: warning: %s lies behind what is in force, and does not follow it: %v\n", chain.File(d.chainDir(), t.Version+1), err)
	}
	return show(c.Stdout, *form, list, []string{"VERSION", "HOW", "OLD", "NEW", "SHA256"}, rows)
}
