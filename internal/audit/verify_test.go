package audit

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/hint"
)

// resign writes the log anew with other records, under a checkpoint of this key.
func resign(t *testing.T, dir string, signer note.Signer, change func(i int, text string) (string, bool)) {
	t.Helper()
	var tr tree
	var tiles []tile
	keep := func(made tile) { tiles = append(tiles, made) }
	for i, text := range texts(t, dir) {
		if text, ok := change(i, text); ok {
			tr.add([]byte(text), keep)
		}
	}
	tiles = append(tiles, tr.edge()...)
	if err := os.RemoveAll(filepath.Join(dir, "tile")); err != nil {
		t.Fatal(err)
	}
	for _, made := range tiles {
		if err := makeDirs(dir, made.path(), 0o700, map[string]bool{}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, made.path()), made.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := signCheckpoint(Checkpoint{Origin: signer.Name(), Size: tr.size, Root: tr.root()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, checkpointFile), signed, 0o600); err != nil {
		t.Fatal(err)
	}
}

func ownSigner(t *testing.T, dir string) note.Signer {
	t.Helper()
	signer, _, err := loadKey(filepath.Join(dir, KeyName), "")
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// TestVerifyForged changes a log in every way that the verifier has to see. The owner of the key can write a log anew: that
// is seen by a checkpoint that was kept elsewhere.
func TestVerifyForged(t *testing.T) {
	const size = 520
	same := func(_ int, text string) (string, bool) { return text, true }
	stranger := func(t *testing.T, dir string) note.Signer {
		other := filepath.Join(t.TempDir(), "other")
		if _, err := makeKey(other, "lab/test"); err != nil {
			t.Fatal(err)
		}
		signer, _, err := loadKey(other, "")
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	edits := func(path string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := edit(filepath.Join(dir, path), change); err != nil {
				t.Fatal(err)
			}
		}
	}
	removes := func(path string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	anew := func(change func(i int, text string) (string, bool)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { resign(t, dir, ownSigner(t, dir), change) }
	}
	for _, tt := range []struct {
		name, want string
		forge      func(t *testing.T, dir string)
		against    bool // an older checkpoint is needed to see it
	}{
		{"a record altered", "root hash|not those|does not hold the hashes", edits("tile/entries/000", func(b []byte) []byte { return bytes.Replace(b, []byte("anna"), []byte("bert"), 1) }), false},
		{"a record that is none", "not as the log writes it", edits("tile/entries/000", func(b []byte) []byte { return bytes.Replace(b, []byte(`"event"`), []byte(`"evenT"`), 1) }), false},
		{"the last record altered", "not those|does not hold the hashes", edits("tile/entries/x00", nil), false},
		{"a hash altered", "does not hold the hashes", edits("tile/0/001", func(b []byte) []byte { b[40] ^= 1; return b }), false},
		{"a hash above altered", "does not hold the hashes", edits("tile/1/000.p/2", func(b []byte) []byte { b[40] ^= 1; return b }), false},
		{"a bundle gone", "no such file", removes("tile/entries/001"), false},
		{"a bundle cut off", "bundle ends", edits("tile/entries/001", func(b []byte) []byte { return b[:len(b)/2] }), false},
		{"hashes gone", "no such file", removes("tile/0/000"), false},
		{"checkpoint gone", "no checkpoint", removes(checkpointFile), false},
		{"checkpoint altered", "checkpoint", edits(checkpointFile, func(b []byte) []byte { return bytes.Replace(b, []byte("\n520\n"), []byte("\n519\n"), 1) }), false},
		{"checkpoint unsigned", "checkpoint", edits(checkpointFile, func(b []byte) []byte { return b[:bytes.Index(b, []byte("\n\n"))+2] }), false},
		{"signed by a stranger of the same name", "checkpoint", func(t *testing.T, dir string) { resign(t, dir, stranger(t, dir), same) }, false},
		{"cut off and signed again", "cut off", anew(func(i int, text string) (string, bool) { return text, i < 400 }), true},
		{"a record taken out, signed again", "cut off|not those", anew(func(i int, text string) (string, bool) { return text, i != 7 }), true},
		{"a record altered, signed again", "not those", anew(func(i int, text string) (string, bool) {
			return strings.Replace(text, `"n":7,`, `"n":8,`, 1), true
		}), true},
		{"a journal that does not follow", "lacks records", func(t *testing.T, dir string) {
			if err := os.WriteFile(segmentPath(dir, 600), appendFrame(nil, []byte("x")), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			write(t, dir, size-2)
			old, err := os.ReadFile(filepath.Join(dir, checkpointFile))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, 2)
			key := verifier(t, dir)
			if r, err := Verify(dir, Trusted{Log: key, Against: old}); err != nil || *r.Against != size-2 {
				t.Fatalf("before: got %+v, %v", r, err)
			}
			if tt.name == "the last record altered" {
				edits("tile/entries/002.p/8", func(b []byte) []byte { return bytes.Replace(b, []byte(`"n":1,`), []byte(`"n":2,`), 1) })(t, dir)
			} else {
				tt.forge(t, dir)
			}
			trusted := Trusted{Log: key}
			if tt.against {
				if _, err := Verify(dir, trusted); err != nil {
					t.Errorf("without the older checkpoint: got %v, want nil: the test proves nothing", err)
				}
				trusted.Against = old
			}
			_, err = Verify(dir, trusted)
			if !errors.Is(err, ErrForged) {
				t.Fatalf("got %v, want %v", err, ErrForged)
			}
			found := false
			for _, want := range strings.Split(tt.want, "|") {
				found = found || strings.Contains(err.Error(), want)
			}
			if !found {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestVerifyAgainst(t *testing.T) {
	dir, other := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "log")
	write(t, dir, 3)
	write(t, other, 3)
	foreign, err := os.ReadFile(filepath.Join(other, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, against := range [][]byte{foreign, []byte("x"), {}} {
		if _, err := Verify(dir, Trusted{Log: verifier(t, dir), Against: against}); !errors.Is(err, ErrForged) || !strings.Contains(hint.Of(err), "whole copy") {
			t.Errorf("against %.20q: got %v, want %v", against, err, ErrForged)
		}
	}
}

func TestProof(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	write(t, dir, 300)
	key := Trusted{Log: verifier(t, dir)}
	for _, index := range []uint64{0, 1, 255, 256, 299} {
		p, err := Prove(dir, index)
		if err != nil {
			t.Fatal(err)
		}
		data := p.Marshal()
		got, err := VerifyProof(data, key)
		if err != nil || got.Index != index || got.Size != 300 || got.Entry.Event != "connection" {
			t.Fatalf("record %d: got %+v, %v", index, got, err)
		}
		for _, forge := range []struct{ name, old, new string }{
			{"another index", "index ", "index 1"},
			{"another form", "extra ", "extra  "},
			{"another version", "@v1", "@v2"},
			{"another size", "\n300\n", "\n301\n"},
		} {
			if _, err := VerifyProof(bytes.Replace(data, []byte(forge.old), []byte(forge.new), 1), key); !errors.Is(err, ErrForged) {
				t.Errorf("record %d, %s: got %v, want %v", index, forge.name, err, ErrForged)
			}
		}
		p.Entry = bytes.Replace(p.Entry, []byte("anna"), []byte("bert"), 1)
		if _, err := VerifyProof(p.Marshal(), key); !errors.Is(err, ErrForged) {
			t.Errorf("record %d altered: got %v, want %v", index, err, ErrForged)
		}
	}
	if _, err := Prove(dir, 300); err == nil {
		t.Error("a proof of a record that is not there")
	}
}

// TestOpenCheckpoint: a checkpoint is the log's if the log signed it, in its name. Who else signed it counts for nothing without that.
func TestOpenCheckpoint(t *testing.T) {
	key := func(name string) (note.Signer, note.Verifier) {
		t.Helper()
		secret, public, err := note.GenerateKey(rand.Reader, name)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := note.NewSigner(secret)
		if err != nil {
			t.Fatal(err)
		}
		v, err := note.NewVerifier(public)
		if err != nil {
			t.Fatal(err)
		}
		return signer, v
	}
	log, logKey := key("lab/test")
	witness, witnessKey := key("lab/witness")
	namesake, namesakeKey := key("lab/test")
	for name, tt := range map[string]struct {
		origin  string
		signers []note.Signer
		others  int // who signed it as well; -1: it does not open
	}{
		"by the log":                   {"lab/test", []note.Signer{log}, 0},
		"by both":                      {"lab/test", []note.Signer{log, witness}, 1},
		"by a witness alone":           {"lab/test", []note.Signer{witness}, -1},
		"by a witness of its name":     {"lab/test", []note.Signer{namesake}, -1},
		"by nobody that is known":      {"lab/test", []note.Signer{stranger(t)}, -1},
		"of another log":               {"lab/other", []note.Signer{log}, -1},
		"of another log, and cosigned": {"lab/other", []note.Signer{log, witness}, -1},
	} {
		data, err := note.Sign(&note.Note{Text: Checkpoint{Origin: tt.origin, Size: 3}.Text()}, tt.signers...)
		if err != nil {
			t.Fatal(err)
		}
		c, by, err := OpenCheckpoint(data, logKey, witnessKey, namesakeKey)
		if (err == nil) != (tt.others >= 0) || err == nil && (len(by) != tt.others || c.Size != 3) {
			t.Errorf("%s: got %+v, by %d others, %v", name, c, len(by), err)
		}
	}
}

func stranger(t *testing.T) note.Signer {
	t.Helper()
	secret, _, err := note.GenerateKey(rand.Reader, "lab/stranger")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
