package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// TestAppendIndexed: each record's number is its place, however many are written at once, and under a key that lies in no file.
func TestAppendIndexed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	secret, public, err := note.GenerateKey(nil, "example/own")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Dir: dir, Own: &Own{signer, verifier}})
	if err != nil {
		t.Fatal(err)
	}
	const count = 600 // more than two bundles
	indexes := make([]uint64, count)
	var all sync.WaitGroup
	for i := range count {
		all.Go(func() {
			var err error
			if indexes[i], err = l.AppendIndexed("entry", map[string]int{"n": i}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, KeyName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key lies in the log's directory: %v", err)
	}
	if _, err := Verify(dir, Trusted{Log: verifier}); err != nil {
		t.Error(err)
	}

	// What Walk reads is what was written, and the roots are those of a log of each size.
	texts := map[uint64]string{}
	roots := map[uint64]tlog.Hash{}
	err = Walk(Directory(dir), []uint64{0, 256, count, 300}, func(index uint64, text []byte) error { texts[index] = string(text); return nil },
		func(size uint64, root tlog.Hash) error { roots[size] = root; return nil })
	if err != nil || len(texts) != count || len(roots) != 4 {
		t.Fatalf("got %d entries, %d roots, %v", len(texts), len(roots), err)
	}
	for i, index := range indexes {
		e, err := ParseEntry([]byte(texts[index]))
		if err != nil || string(e.Record) != fmt.Sprintf(`{"n":%d}`, i) {
			t.Fatalf("record %d is %s, %v, want number %d", index, texts[index], err, i)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, CheckpointFile))
	if err != nil {
		t.Fatal(err)
	}
	if c, _, err := OpenCheckpoint(data, verifier); err != nil || c.Root != roots[count] {
		t.Errorf("the root is not that of the checkpoint: %v", err)
	}

	// A partial bundle that became full is found, one that is gone is said to be.
	full := map[string]string{"tile/entries/002.p/88": "", "tile/entries/001": ""}
	for path := range full {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	src := func(path string, limit int64) ([]byte, error) {
		if path == "tile/entries/001.p/44" {
			return nil, fs.ErrNotExist
		}
		return Directory(dir)(path, limit)
	}
	if err := Walk(src, []uint64{300}, func(uint64, []byte) error { return nil }, func(_ uint64, root tlog.Hash) error {
		if root != roots[300] {
			t.Error("another root")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, "tile/entries/002.p/88")); err != nil {
		t.Fatal(err)
	}
	if err := Walk(src, []uint64{count}, func(uint64, []byte) error { t.Error("read before the last bundle was"); return nil }, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a bundle that is gone: got %v", err)
	}
	stop := errors.New("stop")
	if err := Walk(src, []uint64{300}, func(uint64, []byte) error { return stop }, func(uint64, tlog.Hash) error { return nil }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// TestOffer: another process than the writer takes checkpoints to witnesses, by any of their keys, and keeps what enough of them signed.
func TestOffer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, err := Open(Options{Dir: dir, Name: "example/log"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Append("entry", 1); err != nil {
		t.Fatal(err)
	}
	verifier, err := ReadVerifier(filepath.Join(dir, KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	one, two := newTestWitness(t, "one"), newTestWitness(t, "two")
	var keys []note.Verifier
	var urls []string
	for _, w := range []*testWitness{one, two} {
		w.log = verifier
		server := httptest.NewServer(w)
		defer server.Close()
		urls = append(urls, server.URL+"/prefix")
		v, err := NewWitnessVerifier(w.vkey())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, v)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var offering sync.WaitGroup
	defer offering.Wait()
	defer cancel()
	offering.Go(func() {
		// One address twice is one witness.
		Offer(ctx, Offers{Dir: dir, Log: []note.Verifier{verifier}, Witnesses: []string{urls[0], urls[0], urls[1]}, Keys: keys, Enough: 2})
	})
	for end := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		data, err := os.ReadFile(filepath.Join(dir, WitnessedFile))
		if err == nil {
			if c, by, err := OpenCheckpoint(data, verifier, keys...); err != nil || len(by) != 2 || c.Size != 1 {
				t.Errorf("kept %s, %v", data, err)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("nothing is kept: %v", err)
		}
	}
}
