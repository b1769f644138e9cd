package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzEntry sees that what parses is written the same way again.
func FuzzEntry(f *testing.F) {
	good := appendEntry(nil, start, "connection", []byte(`{"user":"anna \u003ca\u0026b\u003e"}`))
	f.Add(good)
	f.Add(append([]byte(" "), good...))
	f.Add(append(good[:len(good)-1:len(good)-1], `,"x":1}`...))
	f.Add([]byte(`{"time":"2030-01-01T00:00:00Z","event":"x","record":null}`))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseEntry(text)
		if err != nil {
			return
		}
		if again := appendEntry(nil, e.Time, e.Event, e.Record); !bytes.Equal(again, text) {
			t.Errorf("%q is written as %q", text, again)
		}
		if bytes.ContainsAny(text, "\n\r\x00\x1b") {
			t.Errorf("control characters in %q", text)
		}
	})
}

// FuzzBundle cuts bundles; together with their lengths the entries are what they were cut from.
func FuzzBundle(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x02bc"), 2)
	f.Add([]byte("\x00\x01a\x00\x02b"), 2)
	f.Add([]byte("\xff\xff"), 1)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 0 || n > tileWidth {
			return
		}
		entries, err := parseBundle(data, n)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			again = append(append(again, byte(len(e)>>8), byte(len(e))), e...)
		}
		if len(entries) != n || !bytes.HasPrefix(data, again) {
			t.Errorf("%d entries of %q: %q", n, data, entries)
		}
	})
}

// FuzzFrames reads journals as a crash may leave them: whole frames come back as they were, whatever follows.
func FuzzFrames(f *testing.F) {
	two := appendFrame(appendFrame(nil, []byte("one")), []byte("two"))
	f.Add(two)
	f.Add(two[:len(two)-1])
	f.Add(append(two[:len(two):len(two)], two[1:]...))
	f.Add(bytes.Repeat([]byte{0}, 64))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, rest := parseFrames(data)
		var again []byte
		for _, e := range entries {
			again = appendFrame(again, e)
		}
		if !bytes.Equal(append(again, rest...), data) {
			t.Errorf("%q: got %q and %q", data, entries, rest)
		}
		got, _ := parseFrames(append(bytes.Clone(two), data...))
		if len(got) != 2+len(entries) {
			t.Errorf("after two whole frames: got %d, want %d", len(got), 2+len(entries))
		}
		// What is salvaged is all there, begins with what is whole, and reaches a frame that stands behind whatever it is.
		saved, lost := salvageFrames(data)
		size := len(lost)
		for _, e := range saved {
			size += frameHeader + len(e)
		}
		if size != len(data) || len(saved) < len(entries) {
			t.Errorf("%q: salvaged %q, lost %q", data, saved, lost)
		}
		behind := []byte(`{"time":"behind"}`)
		more, _ := salvageFrames(appendFrame(append(bytes.Clone(data), "0000"...), behind))
		if len(more) == 0 || !bytes.Equal(more[len(more)-1], behind) {
			t.Errorf("%q: a frame behind it is not found", data)
		}
	})
}

// FuzzCheckpoint reads checkpoints with no matter whose signature, and signed ones: what opens is in its one form.
func FuzzCheckpoint(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "log")
	write(f, dir, 3)
	signed, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		f.Fatal(err)
	}
	key := verifier(f, dir)
	f.Add(signed)
	f.Add([]byte(strings.Replace(string(signed), "\n3\n", "\n03\n", 1)))
	f.Add([]byte("lab/test\n18446744073709551615\nAAAA\n\n— lab/test AAAA\n"))
	f.Add([]byte("lab/test\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nmore\n\n— lab/test AAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := claimed(data); err == nil && !bytes.HasPrefix(data, []byte(c.Text()+"\n")) {
			t.Errorf("%q: got %+v", data, c)
		}
		c, _, err := OpenCheckpoint(data, key)
		if err == nil && (c.Size != 3 || !bytes.HasPrefix(data, []byte(c.Text()))) {
			t.Errorf("%q opens as %+v", data, c)
		}
	})
}

// FuzzProof changes proofs: what still holds says the same of the same record.
func FuzzProof(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "log")
	write(f, dir, 300)
	key := Trusted{Log: verifier(f, dir)}
	entries := map[uint64][]byte{}
	for _, index := range []uint64{0, 7, 299} {
		p, err := Prove(dir, index)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Marshal())
		entries[index] = p.Entry
	}
	f.Add([]byte("c2sp.org/tlog-proof@v1" + "\nextra \nindex 0\n\n"))
	f.Add([]byte("c2sp.org/tlog-proof@v1" + "\nindex 0\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProof(data)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Marshal(), data) {
			t.Errorf("%q is written as %q", data, p.Marshal())
		}
		if _, err := VerifyProof(data, key); err == nil && !bytes.Equal(entries[p.Index], p.Entry) {
			t.Errorf("record %d is proven to be %q", p.Index, p.Entry)
		}
	})
}

// FuzzWitnessKey reads verifier keys of witnesses.
func FuzzWitnessKey(f *testing.F) {
	f.Add("witness.example/w+00000000+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("w++")
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := NewWitnessVerifier(text); err == nil && (v.Name() == "" || !strings.HasPrefix(text, v.Name()+"+")) {
			t.Errorf("%q is of %q", text, v.Name())
		}
	})
}
