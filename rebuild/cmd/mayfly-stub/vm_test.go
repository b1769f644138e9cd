package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mayfly/policies/witness"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

const (
	hour  = time.Hour
	month = 30 * 24 * hour
)

// The image of a fleet's servers boots as far as its own init, which finds no controller here that admits it.
func TestBootServer(t *testing.T) {
	needMachines(t)
	b := newBench(t, "-", "../../..")
	a := attempt{memory: 512}
	a.prepare(t, b, onLoopback(t), "server")
	machines <- struct{}{}
	defer func() { <-machines }()
	m := a.on(t, "user")
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	for _, line := range []string{"mayfly-stub: root\n", "mayfly-stub: root verified after ", "mayfly-stub: switch\n", "mayfly-init: ", "mayfly-init: refused: "} {
		waitConsole(t, ctx, m, func(text string) bool { return strings.Contains(text, line) })
		t.Logf("%.1f s: %s", time.Since(m.start).Seconds(), strings.TrimSpace(line))
	}
	t.Log(waitConsole(t, ctx, m, func(string) bool { return true }))
}

// attempts are what may be served and handed over to a machine, and what comes of it.
func attempts() map[string]attempt {
	noWitness := func(seed byte) knows { return knows{seed: seed, silent: true} }
	frozen := func(seed byte) knows { return knows{seed: seed, version: 9, least: 8, sum: strings.Repeat("ab", 32)} }
	fork := func(seed byte) knows { return knows{seed: seed, sum: strings.Repeat("ab", 32)} }
	return map[string]attempt{
		"good": {check: rightTime},
		"good, over HTTPS, in a test fleet that asks no witness": {trust: loose, mirrors: []behaviour{honest}, https: true},
		"good, of a flaky mirror":                                {mirrors: []behaviour{flaky}},
		"good, one witness of three is missing":                  {witnesses: []knows{{seed: ida}, noWitness(jon), {seed: kim}}},
		"good, the clock was set back":                           {clock: month, mirrors: []behaviour{honest}, https: true, says: []string{"the clock differs by "}, check: rightTime},
		"good, the clock was set ahead":                          {clock: -month, check: rightTime},

		"one signature short":        {approvers: []byte{ana}, want: release.Unsigned},
		"the same person twice":      {approvers: []byte{ana, ana}, want: release.Unsigned},
		"a wrong key":                {approvers: []byte{ana, stranger}, want: release.Unsigned},
		"builders missing":           {builders: []byte{stranger}, want: release.Unbuilt},
		"an approver as the builder": {builders: []byte{ben}, want: release.Unbuilt},

		"altered statement":   {mirrors: []behaviour{altered(release.StatementFile)}, want: notTicketed},
		"altered signatures":  {mirrors: []behaviour{changed(release.SignaturesFile, func(s []byte) []byte { return s[len(s)/2:] })}, want: release.Unsigned},
		"altered proof":       {mirrors: []behaviour{changed(release.ProofFile, func(p []byte) []byte { return p[:len(p)/2] })}, want: release.LogMalformed},
		"altered root":        {mirrors: []behaviour{altered(release.RootFile)}, want: release.PartAltered},
		"truncated root":      {mirrors: []behaviour{changed(release.RootFile, func(r []byte) []byte { return r[:len(r)-4096] })}, want: release.PartTruncated},
		"oversized root":      {mirrors: []behaviour{changed(release.RootFile, func(r []byte) []byte { return append(r, 0) })}, want: release.PartOversize},
		"oversized statement": {mirrors: []behaviour{endless}, want: fetchOversize},

		"older version":       {statement: func(s *release.Statement) { s.Version = 4 }, want: release.Older},
		"a version held back": {witnesses: []knows{{seed: ida}, {seed: jon}, frozen(kim)}, want: witness.ReleaseFrozen},
		"expired": {statement: func(s *release.Statement) {
			s.NotBefore, s.NotAfter = s.NotBefore.Add(-48*hour), s.NotBefore.Add(-24*hour)
		}, want: release.Expired},
		"expired, with an old clock": {clock: 36 * hour, statement: func(s *release.Statement) {
			s.NotBefore, s.NotAfter = s.NotBefore.Add(-48*hour), s.NotBefore.Add(-24*hour)
		}, want: release.Expired},
		"not yet valid":             {statement: func(s *release.Statement) { s.NotBefore, s.NotAfter = s.NotAfter.Add(hour), s.NotAfter.Add(2*hour) }, want: release.NotYet},
		"of another fleet":          {statement: func(s *release.Statement) { s.Fleet = "else" }, want: release.OtherFleet},
		"another than the ticket's": {ticket: func(k *ticket.Ticket) { k.Release = strings.Repeat("00", 32) }, want: notTicketed},

		"unlogged":                             {mirrors: []behaviour{without(release.ProofFile)}, want: release.Unlogged},
		"one cosignature short":                {cosigners: []byte{ida, stranger}, want: release.LogSplit},
		"split view":                           {witnesses: []knows{{seed: ida}, {seed: jon}, fork(kim)}, want: witness.ReleaseForked},
		"stale witnesses":                      {witnesses: []knows{{seed: ida}, {seed: jon, version: 6}, {seed: kim, version: 6}}, want: witness.Missing},
		"witnesses' replayed answers":          {witnesses: []knows{{seed: ida}, {seed: jon, replays: true}, {seed: kim, replays: true}}, want: witness.Missing},
		"a witness's clock behind":             {witnesses: []knows{{seed: ida}, {seed: jon, behind: month}, noWitness(kim)}, want: witness.Missing},
		"witnesses missing":                    {witnesses: []knows{{seed: ida}, noWitness(jon), noWitness(kim)}, want: witness.Missing},
		"witnesses that the ticket leaves out": {ticket: func(k *ticket.Ticket) { k.Witnesses = k.Witnesses[:1] }, want: witness.Missing},

		"everything of 30 days ago": {age: month, clock: month, want: ticket.Expired},
		"everything of 30 days ago, and the witnesses' answers": {age: month, clock: month, want: witness.Missing, unreported: true,
			witnesses: []knows{{seed: ida, behind: month, replays: true}, {seed: jon, behind: month, replays: true}}},
		"the clock is before the image's, and no witness is asked": {trust: loose, clock: time.Since(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)), want: clockBehind},

		"mirrors that have nothing or too much, redirect, stall, reset and lie": {
			mirrors: []behaviour{without(release.StatementFile), endless, redirects, stalls, resets, altered(release.RootFile), honest}, https: true,
			says: []string{"mirror 1: release.json: status 404\n", "mirror 2: release.json: more than ", "mirror 3: release.json: status 302\n", "mirror 4: release.json: ",
				"mirror 5: release.json: ", "mirror 6: root.erofs: part_altered: "},
		},
		"mirrors that lie, each in its way": {mirrors: []behaviour{altered(release.RootFile), changed(release.RootFile, func(r []byte) []byte { return r[:4096] })}, want: fetchFailed,
			says: []string{"part_altered: ", "part_truncated: "}},
		"no mirror has it": {mirrors: []behaviour{redirects, without(release.StatementFile)}, want: fetchFailed},

		"root too big":  {statement: func(s *release.Statement) { s.Root.Size = release.MaxPart }, want: rootTooBig},
		"root unusable": {root: func(r []byte) []byte { clear(r[1024:1152]); return r }, want: rootUnusable},

		"ticket signed by a stranger": {ticketBy: stranger, want: ticket.Unsigned, unreported: true},
		"ticket malformed":            {ticketData: func(k []byte) []byte { return append(k, '\n') }, want: ticket.Malformed, unreported: true},
		"ticket of another fleet":     {ticket: func(k *ticket.Ticket) { k.Fleet = "else" }, want: ticket.OtherFleet, unreported: true},
		"ticket expired":              {ticket: func(k *ticket.Ticket) { k.NotAfter = time.Now().UTC().Add(-hour).Truncate(time.Second) }, want: ticket.Expired},
		"ticket's deadline is over":   {ticket: func(k *ticket.Ticket) { k.Deadline = time.Now().UTC().Add(-time.Minute).Truncate(time.Second) }, want: ticket.Expired},

		"no TPM, and the ticket asks for one": {ticket: func(k *ticket.Ticket) { k.TPM = ticket.TPMRequired }, want: tpmMissing},
	}
}

// rightTime: the machine went on with the witnesses' time.
func rightTime(t *testing.T, _ *attempt, text string) {
	_, after, _ := strings.Cut(text, "root-init: time ")
	first, _, _ := strings.Cut(after, "\n")
	seconds, err := strconv.ParseInt(first, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > bootLimit {
		t.Errorf("the machine's clock said %q (%v), and it is %d", first, err, time.Now().Unix())
	}
}

// measured: the TPM's register is what the three files make of it.
func measured(t *testing.T, a *attempt, text string) {
	var k struct{ Release string }
	if err := json.Unmarshal(a.handOver.Ticket, &k); err != nil {
		t.Fatal(err)
	}
	statement, err := hex.DecodeString(k.Release)
	if err != nil {
		t.Fatal(err)
	}
	policy, own := sha256.Sum256(a.handOver.Trust), sha256.Sum256(a.handOver.Ticket)
	register := make([]byte, sha256.Size)
	for _, sum := range [][]byte{statement, policy[:], own[:]} {
		next := sha256.Sum256(append(register, sum...))
		register = next[:]
	}
	want := fmt.Sprintf("root-init: read /sys/class/tpm/tpm0/pcr-sha256/14 %q\n", fmt.Sprintf("%X\n", register))
	if !strings.Contains(text, want) {
		t.Errorf("the console lacks %q:\n%s", want, text)
	}
}

func TestBoot(t *testing.T) {
	b := newTinyBench(t)
	s := onLoopback(t)
	all := attempts()
	all["good, with a TPM that measures"] = withTPM(t, attempt{ticket: func(k *ticket.Ticket) { k.TPM = ticket.TPMRequired }, check: measured})
	all["good, the network lost in the middle"] = losesNetwork(t)
	others := networks()
	t.Run("case", func(t *testing.T) {
		for name, n := range others {
			t.Run(name, func(t *testing.T) {
				if os.Geteuid() != 0 {
					t.Skip("SKIPPED: needs root: makes network namespaces")
				}
				t.Parallel()
				machines <- struct{}{}
				defer func() { <-machines }()
				n.run(t, b)
			})
			all[name] = n.attempt
		}

		for name, a := range all {
			if _, ok := others[name]; ok {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				machines <- struct{}{}
				defer func() { <-machines }()
				sum := sha256.Sum256([]byte(name))
				a.prepare(t, b, s, fmt.Sprintf("%x", sum[:4]))
				a.run(t, a.on(t, "user"))
			})
		}
	})
	// The driver checks what it starts: an altered kernel or stub never runs.
	for _, part := range []string{"kernel", "stub"} {
		t.Run("altered "+part, func(t *testing.T) {
			var a attempt
			a.prepare(t, b, s, part)
			file := &a.handOver.Kernel
			if part == "stub" {
				file = &a.handOver.Stub
			}
			file.Path = alteredCopy(t, file.Path)
			if err := a.refusedByDriver(t); reasonOf(err) != release.PartAltered {
				t.Errorf("%v, want %s", err, release.PartAltered)
			}
		})
	}
	var table strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a := all[name]
		code, told := a.want, "console, report"
		if code == "" {
			code, told = "(boots)", ""
		}
		if a.unreported {
			told = "console"
		}
		fmt.Fprintf(&table, "%-70s %-22s %s\n", name, code, told)
	}
	for _, part := range []string{"kernel", "stub"} {
		fmt.Fprintf(&table, "%-70s %-22s %s\n", "altered "+part, release.PartAltered, "power driver")
	}
	t.Logf("cases and reason codes:\n%s", &table)
}
