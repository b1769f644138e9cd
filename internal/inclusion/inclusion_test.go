package inclusion

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// key is a note's signer of a seed.
func key(t testing.TB, name string, seed byte) (note.Signer, note.Verifier) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	text, err := note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(text)
	if err != nil {
		t.Fatal(err)
	}
	return signer{v, private}, v
}

type signer struct {
	note.Verifier
	key ed25519.PrivateKey
}

func (s signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func signed(t testing.TB, c Checkpoint, by ...note.Signer) []byte {
	t.Helper()
	data, err := note.Sign(&note.Note{Text: c.Text()}, by...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestOpen(t *testing.T) {
	log, logKey := key(t, "lab/log", 1)
	log2, logKey2 := key(t, "lab/log", 2)
	ida, idaKey := key(t, "ida", 3)
	jon, jonKey := key(t, "jon", 4)
	stranger, _ := key(t, "ida", 5)
	other, otherKey := key(t, "lab/other", 6)
	c := Checkpoint{Origin: "lab/log", Size: 3, Root: tlog.RecordHash([]byte("x"))}
	good := signed(t, c, log, ida)
	extra := c
	extra.Extra = "more\n"
	_, line, _ := bytes.Cut(signed(t, c, jon), []byte("\n\n"))
	twice := append(bytes.Clone(good), good[bytes.LastIndex(good, []byte("— ida")):]...)
	for _, tt := range []struct {
		name string
		data []byte
		want error
		by   string
	}{
		{"the log and a witness", good, nil, "ida"},
		{"another key of the log", signed(t, c, log2), nil, ""},
		{"extension lines", signed(t, extra, log, jon), nil, "jon"},
		{"a witness twice", twice, nil, "ida"},
		{"junk, an empty line and another's line after it", append(append(bytes.Clone(good), "junk\n— ida !\n— ida AAAA\n"...), line...), nil, "ida jon"},
		{"a stranger in a witness's name", signed(t, c, log, stranger), nil, ""},
		{"no log", signed(t, c, ida, jon), ErrUnsigned, ""},
		{"another log's key", signed(t, c, other), ErrUnsigned, ""},
		{"another origin", signed(t, Checkpoint{Origin: "lab/other", Size: 3, Root: c.Root}, log, other), nil, ""},
		{"altered", bytes.Replace(good, []byte("\n3\n"), []byte("\n4\n"), 1), ErrUnsigned, ""},
		{"empty", nil, ErrMalformed, ""},
		{"no signatures", []byte(c.Text()), ErrMalformed, ""},
		{"no number", bytes.Replace(good, []byte("\n3\n"), []byte("\n03\n"), 1), ErrMalformed, ""},
		{"no hash", []byte("lab/log\n3\nx\n\n— a b\n"), ErrMalformed, ""},
		{"too long", make([]byte, MaxCheckpoint+1), ErrMalformed, ""},
		{"too many lines", append(bytes.Clone(good), strings.Repeat("x\n", maxLines)...), ErrMalformed, ""},
	} {
		got, by, err := Open(tt.data, []note.Verifier{logKey, logKey2, otherKey}, []note.Verifier{idaKey, jonKey})
		var names []string
		for _, v := range by {
			names = append(names, v.Name())
		}
		if !errors.Is(err, tt.want) || strings.Join(names, " ") != tt.by {
			t.Errorf("%s: got %v by %v, %v, want %v by %q", tt.name, got, names, err, tt.want, tt.by)
		}
		if tt.want != nil && got.Size != 0 && errors.Is(err, ErrUnsigned) && got != (Checkpoint{}) {
			t.Errorf("%s: an unsigned checkpoint is handed out: %+v", tt.name, got)
		}
	}
	if _, _, err := Open(good, nil, []note.Verifier{idaKey}); !errors.Is(err, ErrUnsigned) {
		t.Errorf("without a log's key: got %v", err)
	}
}

func TestLeads(t *testing.T) {
	entry := []byte("x")
	root := tlog.RecordHash(entry)
	for _, tt := range []struct {
		name string
		p    Proof
		c    Checkpoint
		ok   bool
	}{
		{"the only record", Proof{Entry: entry}, Checkpoint{Size: 1, Root: root}, true},
		{"another root", Proof{Entry: entry}, Checkpoint{Size: 1}, false},
		{"another record", Proof{Entry: []byte("y")}, Checkpoint{Size: 1, Root: root}, false},
		{"beyond the end", Proof{Index: 1, Entry: entry}, Checkpoint{Size: 1, Root: root}, false},
		{"an empty log", Proof{Entry: entry}, Checkpoint{}, false},
		{"a hash too many", Proof{Entry: entry, Hashes: []tlog.Hash{root}}, Checkpoint{Size: 1, Root: root}, false},
	} {
		if err := tt.p.Leads(tt.c); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	log, logKey := key(f, "lab/log", 1)
	ida, idaKey := key(f, "ida", 3)
	c := Checkpoint{Origin: "lab/log", Size: 3, Root: tlog.RecordHash([]byte("x"))}
	f.Add(signed(f, c, log, ida))
	f.Add(signed(f, c, ida))
	f.Add([]byte("lab/log\n0\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— ida AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, by, err := Open(data, []note.Verifier{logKey}, []note.Verifier{idaKey})
		if err == nil && (got != c || len(by) > 1) {
			t.Errorf("%q: accepted as %+v by %v", data, got, by)
		}
		if err != nil && by != nil {
			t.Errorf("%q: %v, and yet by %v", data, err, by)
		}
	})
}
