package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

// verify makes every check that can be made, and returns the first refusal among them. What it could not look at is an error of its own.
func (v *verification) verify(ctx context.Context) (refused, err error) {
	path := filepath.Join(v.dir, release.StatementFile)
	data, err := read(path, "`fleetctl image build` makes a release")
	if err != nil {
		return nil, err
	}
	sigs, err := readSignatures(path)
	if err != nil {
		return nil, err
	}
	v.result.SHA256 = witness.Sum(data)
	first := func(err error) {
		if refused == nil && err != nil {
			refused = command.Refuse(hint.New(fmt.Errorf("%s: %w", v.dir, err), "%s", releaseHint(err, v.trust)))
		}
	}
	v.result.Trust = verifiedTrust{Version: v.trust.Version, SHA256: trust.Sum(v.believed.bytes)}
	first(v.note("trust policy", fmt.Sprintf("version %d of fleet %s, sha256 %s", v.result.Trust.Version, v.trust.Fleet, v.result.Trust.SHA256), nil))
	first(v.signatures(data, sigs))
	s, openErr := release.Open(v.trust, data, sigs)
	if openErr != nil {
		if refused == nil { // signed by enough, and not to be used all the same
			first(v.note("statement", "", openErr))
		}
		return refused, nil
	}
	v.result.Release = s
	first(v.note("statement", fmt.Sprintf("release %d of fleet %s, profile %s, none older than %d boots", s.Version, s.Fleet, s.Profile, s.Least), nil))
	for _, p := range parts(s) {
		first(v.note(p.file, fmt.Sprintf("%d bytes, sha256 %s", p.part.Size, p.part.SHA256), v.part(p)))
	}
	first(v.note(release.LockFile, "sha256 "+s.Lock, v.lock(s)))
	first(v.unified(s))
	proven, err := checkLogged(v.trust, data, v.dir)
	v.result.Ledger = proven
	switch {
	case err != nil:
		first(v.note("ledger", "", unwrapped(err)))
	case proven == nil:
		v.absent("ledger", "the trust policy of this test fleet names none")
	default:
		first(v.note("ledger", fmt.Sprintf("record %d of %d in %s, cosigned by %s", proven.Index, proven.Size, proven.Origin, anybody(proven.Witnesses)), nil))
	}
	now, whose, err := v.fresh(ctx, s, data)
	first(err)
	if err == nil {
		first(v.note("validity", fmt.Sprintf("from %s until %s; it is %s by %s", s.NotBefore.Format(time.RFC3339), s.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339), whose), s.At(now)))
	}
	first(v.documents(s))
	v.result.Verified = refused == nil
	return refused, nil
}

// unwrapped is a refusal without what a program says around it.
func unwrapped(err error) error {
	if r, ok := errors.AsType[*release.Refusal](err); ok {
		return r
	}
	return err
}

// signatures counts people and builders.
func (v *verification) signatures(data, sigs []byte) error {
	people, err := v.trust.Approved(release.Namespace, data, sigs)
	if err != nil {
		err = &release.Refusal{Reason: release.Unsigned, Err: err}
	}
	refused := v.note("approvers", fmt.Sprintf("signed by %s (%d needed)", strings.Join(people, ", "), v.trust.Threshold), err)
	builders, err := v.trust.Built(release.BuildNamespace, data, sigs)
	switch {
	case err != nil:
		err = v.note("builders", "", &release.Refusal{Reason: release.Unbuilt, Err: err})
	case len(builders) == 0:
		v.absent("builders", "the trust policy of this test fleet names none")
	default:
		err = v.note("builders", fmt.Sprintf("built again and signed by %s (%d needed)", strings.Join(builders, ", "), v.trust.BuilderThreshold), nil)
	}
	if refused == nil {
		refused = err
	}
	return refused
}

// part compares one file with the statement.
func (v *verification) part(p part) error {
	f, err := openFile(filepath.Join(v.dir, p.file))
	if err != nil {
		return missing(err)
	}
	if err := errors.Join(p.part.Copy(io.Discard, f), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", p.file, err)
	}
	return nil
}

func (v *verification) lock(s *release.Statement) error {
	data, err := read(filepath.Join(v.dir, release.LockFile), "`fleetctl image build` puts it there")
	if err != nil {
		return missing(err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(data)); sum != s.Lock {
		return fmt.Errorf("%s: %w", release.LockFile, &release.Refusal{Reason: release.PartAltered, Err: fmt.Errorf("SHA-256 %s, %s was signed", sum, s.Lock)})
	}
	return nil
}

// unified looks into the unified kernel image, and at who signed it for Secure Boot.
func (v *verification) unified(s *release.Statement) error {
	if s.UKI == nil {
		v.absent("unified kernel image", "the release has none")
		return nil
	}
	var said bytes.Buffer
	call := *v.call
	call.Stderr = &said
	inside, err := v.believed.checkUKI(&call, s, v.dir)
	detail := ""
	if err == nil {
		v.result.Trust.Inside = inside.Version
		detail = fmt.Sprintf("kernel, stub, command line and trust policy %d inside (%d is in force); authenticode %s", inside.Version, v.trust.Version, s.UKIAuthenticode)
		if inside.Version < v.trust.Version {
			detail += "; warning: servers that boot it by UEFI go by the older trust policy"
		}
	}
	if err == nil && said.Len() > 0 {
		detail += "; " + strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(said.String(), "fleetctl: ", "")), "\n", "; ")
	}
	if !exists(filepath.Join(v.dir, release.UKIFile)) {
		err = missing(err)
	}
	return v.note("unified kernel image", detail, err)
}

// fresh asks the witnesses, if any are named, and says what time it is and by whose clock.
func (v *verification) fresh(ctx context.Context, s *release.Statement, data []byte) (now time.Time, whose string, err error) {
	if len(v.witnesses) == 0 {
		v.absent("freshness", "no witness was asked (--witness): a newer release may be out")
		return v.now, "this machine's clock", nil
	}
	q := witness.Ask(v.trust.Fleet, witness.SubjectRelease)
	answers, failed := askWitnesses(ctx, v.witnesses, q)
	verdict := witness.JudgeRelease(v.trust, q, s.Version, witness.Sum(data), answers)
	if !verdict.Fresh {
		err = verdict
		if len(failed) > 0 {
			err = fmt.Errorf("%w; %s", verdict, strings.Join(failed, "; "))
		}
		return time.Time{}, "", v.note("freshness", "", err)
	}
	if verdict.Time.IsZero() {
		v.absent("freshness", verdict.Detail)
		return v.now, "this machine's clock", nil
	}
	return verdict.Time, "the witnesses' clocks", v.note("freshness", fmt.Sprintf("it may boot now, by %s; the newest is %d", strings.Join(verdict.Witnesses, ", "), verdict.Newest), nil)
}

// askWitnesses brings one question to all witnesses at once.
func askWitnesses(ctx context.Context, urls []string, q witness.Question) (answers [][]byte, failed []string) {
	body, err := canonical.Marshal(q)
	if err != nil {
		return nil, []string{err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	type answer struct {
		data []byte
		err  error
	}
	all := make([]chan answer, len(urls))
	for i, url := range urls {
		all[i] = make(chan answer, 1)
		go func() {
			status, data, err := post(ctx, strings.TrimSuffix(url, "/")+witness.PathAnswer, body)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("%s: status %d: %.200q", url, status, data)
			}
			all[i] <- answer{data, err}
		}()
	}
	for _, one := range all {
		if a := <-one; a.err != nil {
			failed = append(failed, a.err.Error())
		} else {
			answers = append(answers, a.data)
		}
	}
	return answers, failed
}

// documents compares what lies beside a release for people to read with the release: nobody signed these.
func (v *verification) documents(s *release.Statement) (refused error) {
	var opened *image.Opened
	for _, d := range []struct {
		file, reason string
		check        func() (string, error)
	}{
		{release.SBOMFile, sbomDiffers, func() (string, error) {
			list, err := opened.SBOM()
			return fmt.Sprintf("%d packages, %d programs, %d modules and %d files, as in the release", len(list.Packages), len(list.Programs), len(list.Modules), list.Files), err
		}},
		{release.ProvenanceFile, provenanceDiffers, func() (string, error) {
			commit, err := opened.Provenance()
			if commit == "" {
				return "parts, packages, modules and programs as in the release; it names no commit", err
			}
			return "parts, packages, modules and programs as in the release; said to be of commit " + commit, err
		}},
	} {
		if !exists(filepath.Join(v.dir, d.file)) {
			v.absent(d.file, "the release has none")
			continue
		}
		var err error
		detail := ""
		if opened == nil {
			opened, err = image.OpenRelease(v.dir, s)
		}
		if err == nil {
			detail, err = d.check()
		}
		if err != nil {
			err = &release.Refusal{Reason: d.reason, Err: err}
		}
		if err = v.note(d.file, detail, err); refused == nil {
			refused = err
		}
	}
	return refused
}

// Reasons of a release's files beside those that servers boot.
const (
	sbomDiffers       = "sbom_differs"       // a bill of materials of something else than the release
	provenanceDiffers = "provenance_differs" // a provenance statement about something else than the release
	partMissing       = "part_missing"       // a file that the statement names is not there
)

// missing gives a file that is not there its reason.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &release.Refusal{Reason: partMissing, Err: err}
	}
	return err
}
