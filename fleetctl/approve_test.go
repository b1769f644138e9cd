package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/policies/trust"
)

// TestSignedAtOnce: people who sign at the same moment all have signed; one who does it several times at once has signed once.
func TestSignedAtOnce(t *testing.T) {
	const people, tries = 8, 2
	dir := t.TempDir()
	path, data := filepath.Join(dir, "bundle.json"), []byte("{}\n")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tr := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: people}
	var keys []string
	for i := range people {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		line, err := ssh.NewPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("p%d", i)
		keys = append(keys, filepath.Join(dir, name))
		if err := os.WriteFile(keys[i], pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		tr.Approvers = append(tr.Approvers, trust.Person{Name: name, Keys: []string{trust.FormatKey(line)}})
	}
	var wg sync.WaitGroup
	results := make(chan error, people*tries)
	for range tries {
		for _, k := range keys {
			wg.Go(func() {
				_, err := approve(tr, "mayfly-policy", path, data, k)
				results <- err
			})
		}
	}
	wg.Wait()
	close(results)
	failed := 0
	for err := range results {
		if err != nil {
			failed++
		}
	}
	sigs, err := os.ReadFile(signatures(path))
	if err != nil {
		t.Fatal(err)
	}
	have, err := tr.Approved("mayfly-policy", data, sigs)
	if err != nil || len(have) != people || failed != people*(tries-1) {
		t.Errorf("got %v, %v, %d refused; want %d people and %d refused", have, err, failed, people, people*(tries-1))
	}
	// What was shown is not what lies there any more.
	if err := os.WriteFile(path, []byte("{ }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(signatures(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := approve(tr, "mayfly-policy", path, data, keys[0]); err == nil {
		t.Error("signed bytes that were replaced meanwhile")
	}
}
