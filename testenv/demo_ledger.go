package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"mayfly/internal/command"
	"mayfly/testenv/netlab"
)

// ledgerView is what `fleetctl ledger verify -o json` says that the demo looks at.
type ledgerView struct {
	Lives    uint64 `json:"lives"`
	Attested uint64 `json:"attested"`
	Wrong    uint64 `json:"wrong"`
	Running  []struct {
		Server string `json:"server"`
	} `json:"running"`
}

// verifyLedger reads the public ledger as anybody would: from its address, with the trust policy alone.
func (d *demo) verifyLedger(ctx context.Context, more ...string) (ledgerView, error) {
	at := "http://" + netip.AddrPortFrom(netlab.Controller, bootPort).String() + "/ledger/"
	out, err := d.fleetctlPlain(ctx, append([]string{"ledger", "verify", "--ledger", at, "--trust", d.e.fleet("trust.json"), "-o", "json"}, more...)...)
	var v ledgerView
	if err == nil {
		err = json.Unmarshal([]byte(out), &v)
	}
	return v, err
}

// fleetctlPlain runs the command where there is no fleet's directory.
func (d *demo) fleetctlPlain(ctx context.Context, args ...string) (string, error) {
	cmd := d.e.command(ctx, d.e.bin("fleetctl"), args...)
	cmd.Dir = os.TempDir()
	return outputOf(cmd, d.e.lab.Core.Start)
}

// ledger sees that the public ledger has every life, under its release, and that nobody can change a byte of it.
func (d *demo) ledger(ctx context.Context) {
	d.r.check("the public ledger: every life ended in time, under a logged release", func() (string, error) {
		v, err := d.verifyLedger(ctx)
		if err != nil {
			return "", err
		}
		if v.Wrong != 0 || len(v.Running) != len(machines) || v.Lives < uint64(2*len(machines)) {
			return "", fmt.Errorf("%d lives, %d running, %d wrong", v.Lives, len(v.Running), v.Wrong)
		}
		return fmt.Sprintf("%d lives, %d of them running, read from tiles alone", v.Lives, len(v.Running)), nil
	})
	d.r.check("a ledger with a changed byte is refused", func() (string, error) { return d.forgedLedger(ctx) })
}

// forgedLedger changes the name of a server in a copy of the ledger.
func (d *demo) forgedLedger(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp(d.e.path("run"), "ledger-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(filepath.Join(dir, "ledger"), os.DirFS(d.e.fleet("public", "ledger"))); err != nil {
		return "", err
	}
	name, forged := []byte(machines[0].Name), []byte(strings.ToUpper(machines[0].Name))
	changed := 0
	err = filepath.WalkDir(filepath.Join(dir, "ledger", "tile"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, name) {
			return err
		}
		changed++
		return os.WriteFile(path, bytes.Replace(data, name, forged, 1), 0o600)
	})
	if err != nil || changed == 0 {
		return "", errors.Join(err, fmt.Errorf("%d files of the copy name %s", changed, name))
	}
	_, err = d.fleetctlPlain(ctx, "ledger", "verify", "--ledger", filepath.Join(dir, "ledger"), "--trust", d.e.fleet("trust.json"), "--trust-chain", d.e.fleet("public", "trust"))
	var f *failure
	if !errors.As(err, &f) || f.code != command.Refused {
		return "", fmt.Errorf("the copy: %w", orDone(err))
	}
	return errorLine(f.said), nil
}
