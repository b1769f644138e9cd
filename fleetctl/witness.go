package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"mayfly/fleetctl/witness"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	policywitness "mayfly/policies/witness"
)

var witnessVerb = command.Verb{
	Name:    "witness",
	Args:    "--trust FILE [--trust-chain DIR] --key FILE --state DIR --listen ADDR [--log FILE]...",
	Summary: "run a witness: it says which signed policy and release are the newest",
	Help: `Remembers the newest policy bundle that enough approvers signed, and the newest release that enough approvers and builders did; answers
bastions and booting servers that ask for them, and cosigns the checkpoints of logs. It holds no power over the fleet, and is best run by somebody else, on a machine of theirs; all it needs is
the fleet's trust.json and its own key (Ed25519, mode 0600, made with ssh-keygen), which fleetctl init --witness has named. What it has seen is on
disk in --state before it says so: losing that directory makes it forget, and it must not be put back from an old copy.

It follows the trust policies in --trust-chain, a copy of the controller's public/trust, and never goes back behind one that it has seen.

The checkpoints of the fleet's public ledger, whose keys trust.json names, are cosigned, and those of other logs that --log names, by a
file with one line, the verifier key ("NAME+ID+KEY").
With --tls-certificate and --tls-key it speaks HTTPS; its answers are signed either way. docs/formats/witness.md is its protocol.

It says "fleetctl: witness: ready" on stderr when it listens.

Example:

  fleetctl witness --trust trust.json --key witness --state /var/lib/mayfly-witness --listen 192.0.2.7:8700`,
	Run: runWitness,
}

func runWitness(ctx context.Context, c *command.Call) (err error) {
	fs := c.Flags()
	trustFile := fs.String("trust", "", "the fleet's trust.json")
	steps := fs.String("trust-chain", "", "`directory` of the trust policies that follow it; \"trust\" beside it if left out")
	keyFile := fs.String("key", "", "`file` of the witness's private key")
	dir := fs.String("state", "", "`directory` that is the witness's memory")
	listen := fs.String("listen", "", "`address` and port")
	certificate := fs.String("tls-certificate", "", "`file` of a certificate chain, PEM")
	tlsKey := fs.String("tls-key", "", "`file` of its key, PEM")
	var logFiles []string
	fs.Func("log", "`file` of a log's verifier key; may be given more than once", func(s string) error {
		logFiles = append(logFiles, s)
		return nil
	})
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	if *trustFile == "" || *keyFile == "" || *dir == "" || *listen == "" {
		return command.Usagef("--trust, --key, --state and --listen are needed")
	}
	if (*certificate == "") != (*tlsKey == "") {
		return command.Usagef("--tls-certificate and --tls-key go together")
	}
	data, err := read(*trustFile, "`fleetctl init` makes it, once")
	if err != nil {
		return err
	}
	t, err := trust.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", *trustFile, err)
	}
	key, err := loadSigner(*keyFile, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	logs, err := logKeys(logFiles)
	if err != nil {
		return err
	}
	var config *tls.Config
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *tlsKey)
		if err != nil {
			return hint.New(fmt.Errorf("reading certificate and key: %w", err), "both are PEM files, and belong together")
		}
		config = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	}
	if *steps == "" {
		*steps = filepath.Join(filepath.Dir(*trustFile), "trust")
	}
	w, err := witness.Open(witness.Options{Trust: t, Follow: followed(t, *steps, filepath.Join(*dir, "trust_version")), Key: key, State: *dir, Logs: logs, Log: logger(c.Stderr)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return hint.New(fmt.Errorf("listening for bastions: %w", err), "another process has %s, or the address is not this machine's", *listen)
	}
	fmt.Fprintf(c.Stderr, "fleetctl: witness: ready on %s as %s of fleet %s, policy %d, release %d\n",
		l.Addr(), w.Name(), t.Fleet, w.Newest(policywitness.SubjectPolicy), w.Newest(policywitness.SubjectRelease))
	return w.Serve(ctx, l, config)
}

// followed goes from a trust policy to the newest that lies there, and remembers it, so that nobody leads this witness back.
func followed(root *trust.Trust, dir, seen string) func() (*trust.Trust, []trust.Change, error) {
	var mu sync.Mutex // of the file
	return func() (*trust.Trust, []trust.Change, error) {
		mu.Lock()
		defer mu.Unlock()
		newest, taken, err := chain.Load(root, dir, seen)
		if err != nil {
			return nil, nil, err
		}
		if now := (chain.Seen{Version: newest.Version, Sum: newest.Sum()}); len(taken) > 0 {
			if err := os.MkdirAll(filepath.Dir(seen), 0o700); err != nil {
				return nil, nil, fmt.Errorf("making the witness's directory: %w", err)
			}
			if was, err := chain.ReadSeen(seen); err != nil || was != now {
				if err := errors.Join(err, now.Remember(seen)); err != nil {
					return nil, nil, err
				}
			}
		}
		return newest, taken, nil
	}
}

// logKeys reads files of verifier keys.
func logKeys(files []string) (keys []note.Verifier, err error) {
	for _, file := range files {
		data, err := read(file, "a log's operator gives its verifier key")
		if err != nil {
			return nil, err
		}
		key, err := note.NewVerifier(strings.TrimSpace(string(data)))
		if err != nil {
			return nil, hint.New(fmt.Errorf("%s: no verifier key: %w", file, err), `one line: "NAME+ID+KEY"`)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
