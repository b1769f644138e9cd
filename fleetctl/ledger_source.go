package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	judge "mayfly/rebuild/ledger"
)

// Bounds of reading a ledger from afar.
const (
	ledgerFileLimit  = 30 * time.Second // for one file
	ledgerHeaderSize = 16 << 10
	ledgerTries      = 3 // while the log moves on under its reader
)

// ledgerSource is a ledger in a directory or at a URL, with the trust policies of its fleet beside it.
type ledgerSource struct {
	read  audit.Source
	trust func(version uint64) (data, sigs []byte, err error)
}

// openLedgerSource finds a ledger. steps is where the trust policies lie; empty: "trust" beside the ledger.
func openLedgerSource(ctx context.Context, where, steps string) (ledgerSource, error) {
	if where == "" {
		return ledgerSource{}, command.Usagef("--ledger is needed: a directory, or a URL such as http://192.0.2.1:8080/ledger/")
	}
	if !strings.Contains(where, "://") {
		if !audit.IsLog(where) {
			return ledgerSource{}, hint.New(fmt.Errorf("no ledger in %s", where), "the controller has it in DIR/public/ledger")
		}
		if steps == "" {
			steps = filepath.Join(filepath.Dir(filepath.Clean(where)), "trust")
		}
		return ledgerSource{audit.Directory(where), stepsIn(steps)}, nil
	}
	base, err := url.Parse(where)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.Fragment != "" || base.User != nil {
		return ledgerSource{}, command.Usagef("--ledger %q: want a directory, or a URL such as http://192.0.2.1:8080/ledger/", where)
	}
	if !strings.HasSuffix(base.Path, "/") {
		base.Path += "/"
	}
	s := ledgerSource{read: fetcher(ctx, base)}
	if steps != "" {
		s.trust = stepsIn(steps)
		return s, nil
	}
	policies := fetcher(ctx, base.ResolveReference(&url.URL{Path: "../trust/"}))
	s.trust = func(version uint64) (data, sigs []byte, err error) {
		data, err = policies(filepath.Base(chain.File("", version)), trust.MaxSize)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, nil
		}
		if err == nil {
			sigs, err = policies(filepath.Base(chain.SignatureFile("", version)), trust.MaxSignatureBytes)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // unsigned, as who goes through them will say
		}
		return data, sigs, err
	}
	return s, nil
}

func stepsIn(dir string) func(version uint64) (data, sigs []byte, err error) {
	return func(version uint64) (data, sigs []byte, err error) { return chain.Step(dir, version) }
}

// fetcher reads files below a URL. All that comes is checked by signatures and hashes; the bounds are for what could keep a reader busy.
func fetcher(ctx context.Context, base *url.URL) audit.Source {
	client := &http.Client{
		Timeout: ledgerFileLimit,
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			MaxResponseHeaderBytes: ledgerHeaderSize,
			MaxConnsPerHost:        2,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(path string, limit int64) ([]byte, error) {
		at := base.ResolveReference(&url.URL{Path: path}).String()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
		if err != nil {
			return nil, err
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		switch {
		case res.StatusCode == http.StatusNotFound:
			return nil, fmt.Errorf("%s: %w", at, fs.ErrNotExist)
		case res.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("%s: %s", at, res.Status)
		}
		data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		if int64(len(data)) > limit {
			return nil, fmt.Errorf("%s: longer than %d bytes", at, limit)
		}
		return data, nil
	}
}

// ledgerView is a ledger's head, believed by the trust policy.
type ledgerView struct {
	source   ledgerSource
	trust    *trust.Trust // the newest that follows the one that was given
	policies judge.Policies
	keys     ledger.Keys
}

// openLedgerView goes from a trust policy that is believed to the newest, and takes that one's keys.
func openLedgerView(ctx context.Context, where, trustFile, steps string) (ledgerView, error) {
	if trustFile == "" {
		return ledgerView{}, command.Usagef("--trust is needed: a trust.json of the fleet that you believe")
	}
	data, err := readBounded(trustFile, "the fleet gives its trust.json to whoever is to check it", trust.MaxSize)
	if err != nil {
		return ledgerView{}, err
	}
	t, err := trust.Parse(data)
	if err != nil {
		return ledgerView{}, fmt.Errorf("%s: %w", trustFile, err)
	}
	s, err := openLedgerSource(ctx, where, steps)
	if err != nil {
		return ledgerView{}, err
	}
	v := ledgerView{source: s}
	if v.policies, v.trust, err = judge.Chain(t, s.trust); err != nil {
		return ledgerView{}, command.Refuse(hint.New(fmt.Errorf("trust policies: %w", err), "--trust-chain names a directory with N.json and N.json.sig, as the controller's public/trust is"))
	}
	if v.keys, err = ledger.KeysOf(v.trust); err != nil {
		return ledgerView{}, err
	}
	return v, nil
}

// heads reads the newest checkpoint, and the newest that enough witnesses cosigned, which may be the same. Where nobody is asked to cosign, the first is enough.
func (v ledgerView) heads() (newest, cosigned ledger.Head, signed []byte, err error) {
	if signed, err = v.source.read(audit.CheckpointFile, audit.MaxCheckpoint); err != nil {
		return newest, cosigned, nil, fmt.Errorf("reading the ledger's checkpoint: %w", err)
	}
	if newest, err = v.keys.Signed(signed); err != nil {
		return newest, cosigned, nil, err
	}
	witnessed, err := v.source.read(audit.WitnessedFile, audit.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		witnessed, err = signed, nil
	}
	if err != nil {
		return newest, cosigned, nil, fmt.Errorf("reading the ledger's cosigned checkpoint: %w", err)
	}
	if cosigned, err = v.keys.Checkpoint(witnessed); err != nil {
		return newest, cosigned, nil, err
	}
	if cosigned.Size > newest.Size {
		newest, signed = cosigned, witnessed
	}
	return newest, cosigned, signed, nil
}
