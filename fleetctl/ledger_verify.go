package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/ledger"
	judge "mayfly/rebuild/ledger"
)

var ledgerVerifyVerb = command.Verb{
	Name:    "ledger verify",
	Args:    "--ledger DIR|URL --trust FILE [--trust-chain DIR] [--state FILE] [--witness-threshold N] [--max-age DURATION] [--attested] [-o table|json]",
	Summary: "check from the public ledger alone that no server outlived its day, and that every release that ran was logged",
	Help: `For anybody, with nothing but the fleet's trust.json and a copy of the ledger, or its URL. Every entry is read and hashed again up to
a checkpoint that the ledger's key and enough witnesses signed. Then: every release was signed by people and builders whom the trust policy
of its time names, one of each version; every life began under a release that was logged before, and was allowed to boot; none may run
for longer than its release says; no server lived twice at once. It shows who runs now, since when at most, and until when.

--state FILE keeps the checkpoint that was seen: the next time, the ledger has to continue it. --max-age asks for shorter lives than the
releases do, --attested for a TPM's proof of each, --witness-threshold for more witnesses than the trust policy. The trust policies that lead
to and from FILE are read from "trust" beside the ledger, or from --trust-chain.

Exit code 3 and a reason code for everything that does not hold. docs/formats/ledger.md says what each means, and what the ledger can not show.

Example:

  fleetctl ledger verify --ledger http://192.0.2.1:8080/ledger/ --trust trust.json --state seen.checkpoint`,
	Run: runLedgerVerify,
}

// Reason codes of a ledger that does not hold as a whole, beside those of policies/ledger and rebuild/ledger.
const (
	ledgerBroken = "log_broken" // the entries are not those that were signed
	ledgerForked = "log_forked" // it does not continue what was seen before
	ledgerStale  = "log_stale"  // no witness has seen it for too long
)

// verifiedLedger is what `fleetctl ledger verify -o json` prints.
type verifiedLedger struct {
	Fleet    string            `json:"fleet"`
	Origin   string            `json:"origin"`
	Size     uint64            `json:"size"`
	Root     string            `json:"root"`          // base64
	Cosigned uint64            `json:"cosigned_size"` // entries that enough witnesses have seen
	By       []ledger.Cosigned `json:"cosigned"`
	Seen     *uint64           `json:"seen_size,omitempty"` // by --state, before
	judge.Report
}

func runLedgerVerify(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	where := flags.String("ledger", "", "`directory` or URL of the ledger")
	trustFile := flags.String("trust", "", "`file` with a trust policy of the fleet that you believe")
	steps := flags.String("trust-chain", "", "`directory` of the fleet's trust policies")
	stateFile := flags.String("state", "", "`file` that remembers the checkpoint")
	threshold := flags.Int("witness-threshold", 0, "witnesses that must have cosigned, if more than the trust policy's `number`")
	stale := flags.Duration("stale", 24*time.Hour, "longest `time` since witnesses have seen the ledger")
	maxAge := flags.Duration("max-age", 0, "longest life, if shorter than the releases' `duration`")
	attested := flags.Bool("attested", false, "every life has to be attested")
	form := outputFlag(flags)
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := errors.Join(noArguments(flags), checkFormat(*form)); err != nil {
		return err
	}
	if *maxAge < 0 || *stale <= 0 || *threshold < 0 {
		return command.Usagef("--max-age, --stale and --witness-threshold are not negative")
	}
	v, err := openLedgerView(ctx, *where, *trustFile, *steps)
	if err != nil {
		return err
	}
	v.keys.Threshold = max(v.keys.Threshold, *threshold)
	old, err := v.remembered(*stateFile)
	if err != nil {
		return err
	}
	found, signed, err := v.verify(judge.Rules{Policies: v.policies, MaxAge: *maxAge, Attested: *attested}, old, time.Now())
	if err != nil {
		return err
	}
	if err := showLedger(c, *form, found); err != nil {
		return err
	}
	if err := v.fresh(found.By, *stale, time.Now()); err != nil {
		return err
	}
	if found.Wrong > 0 {
		return command.Refuse(hint.New(fmt.Errorf("%d entries do not hold: %s", found.Wrong, strings.Join(codes(found.Violations), ", ")),
			"keep the ledger as evidence, and ask the fleet's operators; docs/formats/ledger.md has each code"))
	}
	if *stateFile != "" {
		if err := durable.WriteFile(*stateFile, signed, 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.Stderr, "fleetctl: ledger: %d entries hold, %d of them seen by witnesses\n", found.Size, found.Cosigned)
	return nil
}

// remembered is the checkpoint that was seen before, or nil.
func (v ledgerView) remembered(file string) (*ledger.Head, error) {
	if file == "" {
		return nil, nil
	}
	data, err := durable.ReadFile(file, audit.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h, err := v.keys.Signed(data)
	if err != nil {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %s: %w", file, ledgerForked, err), "it holds a checkpoint of this ledger as it was seen; if it is whole, the ledger has been begun anew"))
	}
	return &h, nil
}

// verify reads the whole ledger. It begins again when the ledger moved on so far that the bundle of its checkpoint is gone.
func (v ledgerView) verify(rules judge.Rules, old *ledger.Head, now time.Time) (found verifiedLedger, signed []byte, err error) {
	for range ledgerTries {
		if found, signed, err = v.verifyOnce(rules, old, now); !errors.Is(err, fs.ErrNotExist) {
			return found, signed, err
		}
	}
	return found, signed, command.Refuse(fmt.Errorf("%s: %w", ledgerBroken, err))
}

func (v ledgerView) verifyOnce(rules judge.Rules, old *ledger.Head, now time.Time) (verifiedLedger, []byte, error) {
	newest, cosigned, signed, err := v.heads()
	if err != nil {
		return verifiedLedger{}, nil, err
	}
	sizes := []uint64{newest.Size, cosigned.Size}
	if old != nil {
		if old.Size > newest.Size {
			return verifiedLedger{}, nil, command.Refuse(fmt.Errorf("%s: it has %d entries, and had %d before: it was cut off, or is another", ledgerForked, newest.Size, old.Size))
		}
		sizes = append(sizes, old.Size)
	}
	rules.Now = now
	if at, ok := v.when(cosigned.Cosigned, true); ok {
		rules.Seen = []judge.Seen{{Size: cosigned.Size, Time: at}}
	}
	if old != nil {
		if at, ok := v.when(old.Cosigned, false); ok {
			rules.Unseen = []judge.Seen{{Size: old.Size, Time: at}}
		}
	}
	checker := judge.New(rules)
	err = audit.Walk(v.source.read, sizes, func(index uint64, text []byte) error { checker.Add(index, text); return nil },
		func(size uint64, root tlog.Hash) error {
			switch {
			case old != nil && size == old.Size && root != old.Root:
				return command.Refuse(fmt.Errorf("%s: its first %d entries are not those that were seen before", ledgerForked, size))
			case size == cosigned.Size && root != cosigned.Root:
				return command.Refuse(fmt.Errorf("%s: its first %d entries are not those that witnesses have seen", ledgerBroken, size))
			case size == newest.Size && root != newest.Root:
				return command.Refuse(fmt.Errorf("%s: its %d entries are not those that its key signed", ledgerBroken, size))
			}
			return nil
		})
	if errors.Is(err, audit.ErrForged) {
		err = command.Refuse(fmt.Errorf("%s: %w", ledgerBroken, err))
	}
	if err != nil {
		return verifiedLedger{}, nil, err
	}
	found := verifiedLedger{Fleet: v.trust.Fleet, Origin: newest.Origin, Size: newest.Size, Root: base64.StdEncoding.EncodeToString(newest.Root[:]),
		Cosigned: cosigned.Size, By: cosigned.Cosigned, Report: checker.Report(now)}
	if old != nil {
		found.Seen = &old.Size
	}
	return found, signed, nil
}

// when is the time of cosignatures that fewer than the threshold of lying witnesses cannot move: to a later one, or to an earlier one.
func (v ledgerView) when(by []ledger.Cosigned, later bool) (time.Time, bool) {
	if v.keys.Threshold == 0 || len(by) < v.keys.Threshold {
		return time.Time{}, false
	}
	times := make([]time.Time, 0, len(by))
	for _, c := range by {
		times = append(times, c.Time)
	}
	slices.SortFunc(times, func(a, b time.Time) int {
		if later {
			return a.Compare(b)
		}
		return b.Compare(a)
	})
	return times[v.keys.Threshold-1], true
}

// fresh asks that as many witnesses as are needed have seen the ledger lately: an old copy of it shows nothing about today.
func (v ledgerView) fresh(by []ledger.Cosigned, longest time.Duration, now time.Time) error {
	if v.keys.Threshold == 0 {
		return nil
	}
	times := make([]time.Time, 0, len(by))
	for _, c := range by {
		times = append(times, c.Time)
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	if at := times[v.keys.Threshold-1]; now.Sub(at) > longest {
		return command.Refuse(hint.New(fmt.Errorf("%s: witnesses have seen it at %s, and it is %s", ledgerStale, at.Format(time.RFC3339), now.UTC().Format(time.RFC3339)),
			"take a newer copy, or find out who keeps the witnesses from it"))
	}
	return nil
}

func codes(all []judge.Violation) []string {
	var list []string
	for _, v := range all {
		if !slices.Contains(list, v.Reason) {
			list = append(list, v.Reason)
		}
	}
	return list
}

func showLedger(c *command.Call, form string, found verifiedLedger) error {
	if form == "json" {
		return show(c.Stdout, form, found, nil, nil)
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	var by []string
	for _, w := range found.By {
		by = append(by, fmt.Sprintf("%s %s", w.Witness, w.Time.Format(time.RFC3339)))
	}
	longest := (time.Duration(found.Longest) * time.Second).String()
	summary := [][]string{
		{"entries", number(found.Size)}, {"cosigned", number(found.Cosigned) + " " + strings.Join(by, ", ")},
		{"releases", strconv.Itoa(len(found.Releases))},
		{"lives", fmt.Sprintf("%d: %d attested, %d claimed, %d unverified", found.Lives, found.Attested, found.Claimed, found.Unverified)},
		{"longest", longest}, {"running", strconv.Itoa(len(found.Running))}, {"wrong", number(found.Wrong)},
	}
	if err := show(c.Stdout, form, nil, []string{"LEDGER", found.Origin}, summary); err != nil {
		return err
	}
	var rows [][]string
	for _, r := range found.Running {
		rows = append(rows, []string{r.Server, number(r.Epoch), number(r.Release), r.Evidence, (time.Duration(r.Age) * time.Second).String(), r.Deadline.Format(time.RFC3339)})
	}
	if len(rows) > 0 {
		fmt.Fprintln(c.Stdout)
		if err := show(c.Stdout, form, nil, []string{"SERVER", "LIFE", "RELEASE", "EVIDENCE", "AGE AT MOST", "ENDS"}, rows); err != nil {
			return err
		}
	}
	rows = nil
	for _, w := range found.Violations {
		rows = append(rows, []string{number(w.Index), w.Reason, w.Server, w.Detail})
	}
	if len(rows) > 0 {
		fmt.Fprintln(c.Stdout)
		return show(c.Stdout, form, nil, []string{"ENTRY", "REASON", "SERVER", "DETAIL"}, rows)
	}
	return nil
}
