package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"mayfly/inventory"
	"mayfly/inventory/store/storetest"
)

// filled makes a store of several pages, and returns its file's bytes, and what it exports.
func filled(t *testing.T) (whole, export []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var f inventory.Fleet
	for i := range 120 {
		f.Servers = append(f.Servers, inventory.Server{Name: fmt.Sprintf("s%03d", i)})
	}
	storetest.Fill(t, s)
	if err := s.Sync(t.Context(), f, now); err != nil {
		t.Fatal(err)
	}
	export = storetest.Export(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if whole, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return whole, export
}

// look opens a file and exports it: nil with what it holds, or the refusal. What was refused is as it was.
func look(t *testing.T, data []byte) ([]byte, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		if after, rerr := os.ReadFile(path); rerr != nil || !bytes.Equal(after, data) {
			t.Errorf("a refused file was written to: %v", rerr)
		}
		return nil, err
	}
	defer s.Close()
	var b bytes.Buffer
	if err := s.Export(t.Context(), &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// TestDamage turns bytes over in every region of every page: the file is refused, or every row is there. SQLite keeps no checksum of
// values, so that a letter within one may differ.
func TestDamage(t *testing.T) {
	whole, export := filled(t)
	const page = 4096
	lines := bytes.Count(export, []byte("\n"))
	refused, opened := 0, 0
	for at := 0; at < len(whole); at += page {
		places := []int{0, 1, 3, 5, 7, 9, 12, 17, page / 2, page - 9}
		if at == 0 {
			places = []int{0, 16, 24, 28, 44, 56, 60, 68, 100, 103, 105, 110, page / 2, page - 9}
		}
		for _, p := range places {
			bad := bytes.Clone(whole)
			bad[at+p] ^= 0xff
			got, err := look(t, bad)
			if err != nil {
				refused++
				continue
			}
			opened++
			if n := bytes.Count(got, []byte("\n")); n != lines {
				t.Errorf("byte %d of page %d: %d lines, want %d", p, at/page+1, n, lines)
			}
		}
	}
	t.Logf("%d pages: %d refused, %d opened with every row", len(whole)/page, refused, opened)
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// TestTruncated: a file that ends too soon is refused, or holds all.
func TestTruncated(t *testing.T) {
	whole, export := filled(t)
	for n := 1; n < len(whole); n += 1111 {
		got, err := look(t, whole[:n])
		if err == nil && !bytes.Equal(got, export) {
			t.Errorf("%d bytes of %d: it holds something else", n, len(whole))
		}
	}
	if _, err := look(t, whole[:len(whole)/2]); !errors.Is(err, ErrDamaged) {
		t.Errorf("half of it: got %v, want %v", err, ErrDamaged)
	}
	if got, err := look(t, whole); err != nil || !bytes.Equal(got, export) {
		t.Errorf("the whole: %v", err)
	}
}
