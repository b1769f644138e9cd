package main

import (
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/trust"
)

// ledgerKeys are the keys of the public ledger without those that are dropped, by their fingerprints, and with those in files.
func ledgerKeys(keys, drop, add []string) ([]string, error) {
	for _, print := range drop {
		is := func(line string) bool { return policies.Fingerprint(line) == print }
		if !slices.ContainsFunc(keys, is) {
			return nil, hint.New(fmt.Errorf("no key of the ledger has the fingerprint %s", visible(print)), "`fleetctl trust show` lists them")
		}
		keys = slices.DeleteFunc(keys, is)
	}
	for _, file := range add {
		_, key, err := publicKey("ledger-key", "ledger="+file)
		if err != nil {
			return nil, err
		}
		if key.Type() != ssh.KeyAlgoED25519 {
			return nil, hint.New(command.Refuse(fmt.Errorf("%s: a key of type %s", file, key.Type())), "the signer's key of the ledger is of type %s", ssh.KeyAlgoED25519)
		}
		keys = append(keys, trust.FormatKey(key))
	}
	return keys, nil
}
