package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/release"
)

var imageVerifyVerb = command.Verb{
	Name:    "image verify",
	Args:    "(--dir DIR | --trust FILE [--trust-chain DIR]) --release DIR|VERSION [--witness URL...] [-o table|json]",
	Summary: "check a release as a server's stub would, and every file of it",
	Help: `Checks, with nothing but public keys: the signatures of approvers and builders over the release's statement; what it says (fleet, version,
validity); size and hash of every file, and the lock file; that the unified kernel image holds the same kernel, stub, command line and a
trust policy of this fleet, and, if it is signed for Secure Boot, by whom; that the fleet's public ledger holds the release, under a checkpoint
that enough witnesses cosigned; and what lies beside it: SBOM and provenance. It shows each check; exit code 3 when one of them is refused.

An outsider needs trust.json (--trust), the directory of trust policies that follow it (--trust-chain; "trust" beside the file if left out), and
the release's directory; no state directory. The first line says which version of the trust policy that came to: compare it with what the fleet
says, since whoever leaves out a step leaves out whom it took out. With --witness it also asks witnesses, under a nonce, whether the release may boot now, as
a server does; validity is then judged by their time, and not by this machine's clock.

Example:

  fleetctl image verify --trust trust.json --release releases/7 --witness http://192.0.2.7:8700`,
	Run: runImageVerify,
}

// Outcomes of a check.
const (
	checkOK      = "ok"
	checkRefused = "refused"
	checkAbsent  = "absent" // of what a release need not have
)

// verifiedCheck is a line of `fleetctl image verify`.
type verifiedCheck struct {
	Check   string `json:"check"`
	Outcome string `json:"outcome"` // "ok", "refused" or "absent"
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail"`
}

// verifiedRelease is `fleetctl image verify -o json`.
type verifiedRelease struct {
	Verified bool               `json:"verified"`
	SHA256   string             `json:"sha256"` // of release.json
	Trust    verifiedTrust      `json:"trust"`
	Release  *release.Statement `json:"release,omitempty"` // nothing before enough people and builders signed it
	Ledger   *release.Proven    `json:"ledger,omitempty"`
	Checks   []verifiedCheck    `json:"checks"`
}

// verifiedTrust is the trust policy that a release was held against.
type verifiedTrust struct {
	Version uint64 `json:"version"`
	SHA256  string `json:"sha256"`
	Inside  uint64 `json:"inside,omitempty"` // version of the one in the unified kernel image
}

func runImageVerify(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir, output := dirFlag(fs), outputFlag(fs)
	name := fs.String("release", "", "`directory` of the release, or its version")
	trustFile := fs.String("trust", "", "`file` of the trust policy that is believed, in place of --dir")
	steps := fs.String("trust-chain", "", "`directory` of the trust policies that follow it")
	urls := manyFlag(fs, "witness", "`URL` of a witness to ask; may be given more than once")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return err
	}
	if *name == "" {
		return command.Usagef("--release is needed")
	}
	d := state(*dir)
	v := &verification{call: c, witnesses: *urls, dir: d.releaseDir(*name), now: time.Now()}
	var err error
	if *trustFile != "" {
		v.dir = *name
		err = v.believe(*trustFile, *steps)
	} else {
		var data []byte
		v.trust, data, err = d.trust()
		v.believed = d.believed(v.trust, data)
	}
	if err != nil {
		return err
	}
	refused, err := v.verify(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{}
	for _, k := range v.result.Checks {
		rows = append(rows, []string{k.Check, k.Outcome, k.Reason, k.Detail})
	}
	if err := show(c.Stdout, *output, v.result, []string{"CHECK", "OUTCOME", "REASON", "DETAIL"}, rows); err != nil {
		return err
	}
	return refused
}

// believe reads an outsider's trust policy, and goes on to the newest that follows it.
func (v *verification) believe(file, steps string) error {
	data, err := readBounded(file, "--trust names the trust.json that you believe", trust.MaxSize)
	if err != nil {
		return err
	}
	root, err := trust.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if steps == "" {
		steps = filepath.Join(filepath.Dir(file), "trust")
	} else if err := isDirectory(steps); err != nil { // a name with a mistake in it would leave out who was taken out since
		return hint.New(err, "--trust-chain names the directory of trust policies that follow --trust; without it %q beside that file, if it is there", "trust")
	}
	newest, _, err := chain.Follow(root, steps)
	if err != nil {
		return command.Refuse(hint.New(err, "the trust policies there do not follow the one that you believe"))
	}
	data, err = newest.Marshal()
	v.trust, v.believed = newest, believed{trust: newest, bytes: data, chain: steps, root: root}
	return err
}

// isDirectory wants a directory that can be read.
func isDirectory(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// verification is what a release is held against, and how far it has come.
type verification struct {
	call      *command.Call
	trust     *trust.Trust
	believed  believed
	dir       string // of the release
	witnesses []string
	now       time.Time
	result    verifiedRelease
}

// note keeps the outcome of a check. A refusal does not end the others.
func (v *verification) note(check, detail string, err error) error {
	if err == nil {
		v.result.Checks = append(v.result.Checks, verifiedCheck{Check: check, Outcome: checkOK, Detail: detail})
		return nil
	}
	k := verifiedCheck{Check: check, Outcome: checkRefused, Detail: shortened(err)}
	words := strings.Split(k.Detail, ": ")
	if i := slices.IndexFunc(words, isCode); i >= 0 {
		k.Reason = words[i]
		k.Detail = strings.Join(slices.Delete(words, i, i+1), ": ")
	}
	v.result.Checks = append(v.result.Checks, k)
	return err
}

func (v *verification) absent(check, detail string) {
	v.result.Checks = append(v.result.Checks, verifiedCheck{Check: check, Outcome: checkAbsent, Detail: detail})
}

// isCode reports whether a word is a reason code.
func isCode(s string) bool {
	return strings.Contains(s, "_") && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' })
}
