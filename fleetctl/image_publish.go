package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/fleetctl/signer"
	"mayfly/internal/audit"
	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/inclusion"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
)

var imagePublishVerb = command.Verb{
	Name:    "image publish",
	Args:    "--dir DIR --release VERSION [--witness URL...] [-o table|json]",
	Summary: "put a signed release into the public ledger, and bring it to the witnesses",
	Help: `Has ` + "`fleetctl signer`" + ` write the release into the fleet's public ledger, asks the witnesses to cosign the ledger's checkpoint until as many
have as the trust policy's witness_threshold, keeps the proof as release.json.proof beside the release, and sends statement and signatures
to each witness. From then on servers may boot it, and none that is older than the release's "least". Everything before that can be
repeated: what is logged, proven or known already is no error.

Without --witness, the witnesses of fleet.toml are asked. Exit 3 when the ledger or a witness refused the release: another of this version, or a
newer one, was published before.

Example:

  fleetctl image publish --dir lab --release 7 --witness http://192.0.2.7:8700 --witness http://198.51.100.7:8700`,
	Run: runImagePublish,
}

// How long is waited for cosignatures, and how often they are asked for.
const (
	cosignLimit = time.Minute
	cosignPause = time.Second
)

// publishedRelease is `fleetctl image publish -o json`.
type publishedRelease struct {
	Release   uint64          `json:"release"`
	SHA256    string          `json:"sha256"`
	Ledger    *release.Proven `json:"ledger,omitempty"` // nothing where a test fleet has none
	Witnesses []published     `json:"witnesses"`
}

func runImagePublish(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir, output := dirFlag(fs), outputFlag(fs)
	name := fs.String("release", "", "`version` of the release")
	urls := manyFlag(fs, "witness", "`URL` of a witness; may be given more than once")
	wait := fs.Duration("wait", cosignLimit, "how `long` to wait for cosignatures")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return err
	}
	if *name == "" || *wait <= 0 {
		return command.Usagef("--release is needed, and --wait is longer than nothing")
	}
	d := state(*dir)
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	if len(*urls) == 0 {
		f, err := d.fleet()
		if err != nil {
			return err
		}
		*urls = f.Witnesses
	}
	if len(*urls) < t.WitnessThreshold {
		return command.Usagef("%d witnesses are named, and the trust policy asks %d: give --witness URL for each, or name them in fleet.toml", len(*urls), t.WitnessThreshold)
	}
	where := d.releaseDir(*name)
	s, data, sigs, err := publishable(t, where, time.Now())
	if err != nil {
		return err
	}
	if err := checkParts(s, where); err != nil {
		return err
	}
	out := publishedRelease{Release: s.Version, SHA256: trust.Sum(data), Witnesses: []published{}}
	if len(t.LedgerKeys) > 0 {
		p := prover{trust: t, ledger: signer.Dial(string(d)), tiles: signer.LedgerDir(string(d)), witnesses: *urls, limit: *wait,
			say: func(format string, args ...any) { fmt.Fprintf(c.Stderr, "fleetctl: "+format+"\n", args...) }}
		if out.Ledger, err = p.prove(ctx, where, data, sigs); err != nil {
			return err
		}
	}
	var refused, unreachable []string
	for _, url := range *urls {
		p, err := publishRelease(ctx, strings.TrimSuffix(url, "/"), data, sigs)
		if err != nil {
			return err
		}
		out.Witnesses = append(out.Witnesses, p)
		switch p.Outcome {
		case "known":
		case "unreachable":
			unreachable = append(unreachable, url)
		default:
			refused = append(refused, url)
		}
	}
	rows := [][]string{}
	if out.Ledger != nil {
		rows = append(rows, []string{"ledger", "logged", fmt.Sprintf("record %d of %d, cosigned by %s", out.Ledger.Index, out.Ledger.Size, anybody(out.Ledger.Witnesses))})
	}
	for _, p := range out.Witnesses {
		rows = append(rows, []string{p.URL, p.Outcome, p.Detail})
	}
	if err := show(c.Stdout, *output, out, []string{"WHERE", "OUTCOME", "DETAIL"}, rows); err != nil {
		return err
	}
	switch {
	case len(refused) > 0:
		return command.Refuse(hint.New(fmt.Errorf("release %d was not taken by %s", s.Version, strings.Join(refused, ", ")), "the table says why; to go on, sign a release of a higher version"))
	case len(*urls)-len(unreachable) < t.WitnessThreshold:
		return hint.New(fmt.Errorf("%d witnesses know release %d; %d must confirm it", len(*urls)-len(unreachable), s.Version, t.WitnessThreshold), "repeat it when %s can be reached", strings.Join(unreachable, ", "))
	case len(unreachable) > 0:
		fmt.Fprintf(c.Stderr, "fleetctl: warning: not reached: %s; repeat it later: what a witness does not know it cannot confirm\n", strings.Join(unreachable, ", "))
	}
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl image use %d`\n", s.Version)
	return nil
}

func anybody(names []string) string {
	if len(names) == 0 {
		return "nobody, as none is asked for"
	}
	return strings.Join(names, ", ")
}

// publishable reads a release that enough people and builders signed. One whose time has not come may be published: by then witnesses know it.
func publishable(t *trust.Trust, where string, now time.Time) (s *release.Statement, data, sigs []byte, err error) {
	path := filepath.Join(where, release.StatementFile)
	if data, err = read(path, "`fleetctl image build` makes a release"); err != nil {
		return nil, nil, nil, err
	}
	if sigs, err = readSignatures(path); err != nil {
		return nil, nil, nil, err
	}
	if s, err = release.Open(t, data, sigs); err == nil && !now.Before(s.NotAfter) {
		err = s.At(now)
	}
	if err != nil {
		return nil, nil, nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", path, err), "%s", releaseHint(err, t)))
	}
	return s, data, sigs, nil
}

// publishRelease sends a release to one witness.
func publishRelease(ctx context.Context, url string, data, sigs []byte) (published, error) {
	body, err := canonical.Marshal(witness.Publication{Kind: witness.KindPublication, Subject: witness.SubjectRelease, File: string(data), Signatures: string(sigs)})
	if err != nil {
		return published{}, fmt.Errorf("encoding the publication: %w", err)
	}
	if len(body) > witness.MaxRelease {
		return published{}, fmt.Errorf("the publication has %d bytes, and a witness takes %d", len(body), witness.MaxRelease)
	}
	return publishAt(ctx, url, witness.PathRelease, body), nil
}

// releaseLog is the ledger's writer: the signer.
type releaseLog interface {
	LogRelease(ctx context.Context, statement, signatures []byte) (index uint64, proof []byte, err error)
}

// prover gets the proof that a release is in the ledger, under a checkpoint that enough witnesses cosigned.
type prover struct {
	trust     *trust.Trust
	ledger    releaseLog
	tiles     string // directory of the ledger
	witnesses []string
	limit     time.Duration
	say       func(format string, args ...any)
}

// prove writes the proof beside the release. One that is there and holds is kept.
func (p prover) prove(ctx context.Context, where string, data, sigs []byte) (*release.Proven, error) {
	path := filepath.Join(where, release.ProofFile)
	if old, err := readBounded(path, "", inclusion.MaxProof); err == nil {
		if proven, err := release.ReadProof(p.trust, data, old); err == nil {
			return proven, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	index, proof, err := p.ledger.LogRelease(ctx, data, sigs)
	if refusal, ok := errors.AsType[*join.Refusal](err); ok {
		return nil, command.Refuse(fmt.Errorf("logging the release: %w", refusal))
	}
	if err != nil {
		return nil, fmt.Errorf("logging the release: %w", err)
	}
	p.say("record %d of the ledger", index)
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	tick := time.NewTicker(cosignPause)
	defer tick.Stop()
	for {
		proof, err = p.cosigned(ctx, proof)
		if err != nil {
			return nil, err
		}
		proven, short := release.ReadProof(p.trust, data, proof)
		if short == nil {
			return proven, durable.WriteFile(path, proof, 0o644)
		}
		if r, ok := errors.AsType[*release.Refusal](short); !ok || r.Reason != release.LogSplit {
			return nil, command.Refuse(fmt.Errorf("the proof that the signer gave: %w", short))
		}
		select {
		case <-ctx.Done():
			return nil, hint.New(errors.New("too few witnesses cosigned the ledger in time"), "it is logged; repeat this when they can be reached: each is a `fleetctl witness` that follows this fleet's trust policy")
		case <-tick.C:
			p.say("waiting for cosignatures: %v", short)
		}
		if newer, err := audit.Prove(p.tiles, index); err == nil { // the ledger grows, and all must cosign one checkpoint
			proof = newer.Marshal()
		}
	}
}

// cosigned is the proof with what each witness signs under its checkpoint, beside what is there.
func (p prover) cosigned(ctx context.Context, proof []byte) ([]byte, error) {
	parsed, err := inclusion.ParseProof(proof)
	if err != nil {
		return nil, fmt.Errorf("the proof that the signer gave: %w", err)
	}
	var known []note.Verifier
	for _, w := range p.trust.Witnesses {
		for _, line := range w.Keys {
			v, err := witness.NewCosigner(w.Name, line)
			if err != nil {
				return nil, err
			}
			known = append(known, v)
		}
	}
	end := bytes.LastIndex(parsed.Checkpoint, []byte("\n\n"))
	if end < 0 {
		return nil, errors.New("the proof that the signer gave has a checkpoint without signatures")
	}
	signed := bytes.Clone(parsed.Checkpoint)
	for _, url := range p.witnesses {
		lines, err := audit.OfferOnce(ctx, p.tiles, parsed.Checkpoint, url, known)
		if err != nil {
			p.say("%s does not cosign: %v", url, err)
			continue
		}
		for line := range strings.Lines(string(lines)) {
			if !bytes.Contains(signed[end:], []byte(line)) {
				signed = append(signed, line...)
			}
		}
	}
	parsed.Checkpoint = signed
	return parsed.Marshal(), nil
}

// checkLogged refuses a release that the ledger does not show, where the trust policy names one.
func checkLogged(t *trust.Trust, data []byte, where string) (*release.Proven, error) {
	path := filepath.Join(where, release.ProofFile)
	proof, err := readBounded(path, "", inclusion.MaxProof)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	proven, err := release.ReadProof(t, data, proof)
	if err != nil {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", path, err), "`fleetctl image publish --release %s` has it logged in %s, and cosigned by %d witnesses",
			filepath.Base(where), ledger.Origin(t.Fleet), t.WitnessThreshold))
	}
	return proven, nil
}
