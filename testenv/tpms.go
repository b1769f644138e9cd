package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/tpm"
	"mayfly/testenv/debian"
)

// tpmNeeds are what machines with firmware and a TPM take.
var tpmNeeds = []debian.Need{
	{Name: "swtpm", Package: "swtpm"},
	{Name: "/usr/share/OVMF/OVMF_CODE_4M.fd", Package: "ovmf"},
}

// hostNeeds are what the environment's servers take beside the rest.
func (e *environment) hostNeeds() []debian.Need {
	if e.tpm {
		return slices.Concat(demoNeeds, tpmNeeds)
	}
	return slices.Concat(demoNeeds, engineNeeds[e.engine])
}

// tpmFile says that the environment's machines boot by UEFI and have TPMs.
func (e *environment) tpmFile() string { return e.path("tpm") }

// makeTPMs makes the TPM of each machine, whose endorsement key the inventory has to name before a life can begin. Its memory lies where the
// power driver will find it.
func (e *environment) makeTPMs(ctx context.Context) error {
	if !e.tpm {
		return nil
	}
	e.endorsements = map[string]string{}
	for _, m := range machines {
		key, err := endorsementKey(ctx, e.fleet("machines", m.Name, "tpm"))
		if err != nil {
			return fmt.Errorf("making the TPM of %s: %w", m.Name, err)
		}
		e.endorsements[m.Name] = key
	}
	return os.WriteFile(e.tpmFile(), nil, 0o600)
}

// endorsementKey makes a TPM with its memory in dir, and returns the hash of its endorsement key.
func endorsementKey(ctx context.Context, dir string) (key string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	short, err := os.MkdirTemp("", "tpm") // a socket's name is short
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(short)) }()
	socket := filepath.Join(short, "s")
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--flags", "not-need-init,startup-clear",
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+filepath.Join(short, "c"))
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer func() {
		_ = cmd.Process.Kill() // its power is cut: it has written down its seeds
		_ = cmd.Wait()         // says that it was killed
	}()
	var conn net.Conn
	for conn == nil {
		if conn, err = net.Dial("unix", socket); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for swtpm: %w (%w)", err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	id, err := tpm.New(conn, tpm.P256)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	return attest.EndorsementHash(id.EK), nil
}
