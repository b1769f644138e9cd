package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/hint"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func openAt(t *testing.T, path string) *Log {
	t.Helper()
	l, err := open(path, func() time.Time { return start })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// write makes a log of n records and returns its lines, each with its newline.
func write(t *testing.T, path string, n int) []string {
	t.Helper()
	l := openAt(t, path)
	for i := range n {
		if err := l.Append("connection", map[string]any{"user": "anna <a&b>", "n": i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	return lines[:len(lines)-1]
}

func TestAppendVerify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	lines := write(t, path, 3)
	want := `{"seq":1,"time":"2030-01-01T00:00:00Z","prev":"` + origin + `","event":"connection","record":{"n":0,"user":"anna \u003ca\u0026b\u003e"}}` + "\n"
	if lines[0] != want {
		t.Errorf("first line: got %q, want %q", lines[0], want)
	}
	lines = write(t, path, 2) // goes on where it ended
	if n, err := Verify(strings.NewReader(strings.Join(lines, ""))); n != 5 || err != nil {
		t.Errorf("Verify: got %d, %v, want 5", n, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
	if n, err := Verify(strings.NewReader("")); n != 0 || err != nil {
		t.Errorf("Verify of nothing: got %d, %v", n, err)
	}
}

func TestVerifyNamesTheLine(t *testing.T) {
	l := write(t, filepath.Join(t.TempDir(), "log"), 4)
	tests := []struct {
		name  string
		lines []string
		good  int
		want  string
	}{
		{"altered", []string{l[0], strings.Replace(l[1], "anna", "bert", 1), l[2], l[3]}, 2, "line 3: it does not follow"},
		{"last altered", []string{l[0], l[1], strings.Replace(l[2], `"seq":3`, `"seq":4`, 1)}, 2, "line 3: it is record 4"},
		{"cut out", []string{l[0], l[2], l[3]}, 1, "line 2: it is record 3"},
		{"first gone", l[1:], 0, "line 1: it is record 2"},
		{"swapped", []string{l[0], l[2], l[1], l[3]}, 1, "line 2"},
		{"doubled", []string{l[0], l[0]}, 1, "line 2"},
		{"empty line", []string{l[0], "\n", l[1]}, 1, "line 2: not a record"},
		{"white space", []string{l[0], " " + l[1]}, 1, "line 2: not a record"},
		{"unknown field", []string{strings.Replace(l[0], `"seq"`, `"x":1,"seq"`, 1)}, 0, "line 1: not a record"},
		{"torn", []string{l[0], l[1][:20]}, 1, "line 2: its end is missing"},
		{"too long", []string{l[0], strings.Repeat("x", MaxLine+1) + "\n"}, 1, "line 2"},
	}
	for _, tt := range tests {
		n, err := Verify(strings.NewReader(strings.Join(tt.lines, "")))
		if n != tt.good || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %d, %v, want %d, %q", tt.name, n, err, tt.good, tt.want)
		}
	}
}

func TestOpenTorn(t *testing.T) {
	dir := t.TempDir()
	lines := write(t, filepath.Join(dir, "whole"), 3)
	for _, keep := range []int{0, 1, 2} {
		for _, piece := range []string{"{", lines[keep][:len(lines[keep])-1], strings.Repeat("z", MaxLine)} {
			path := filepath.Join(dir, "log")
			if err := os.WriteFile(path, []byte(strings.Join(lines[:keep], "")+piece), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := openAt(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := Verify(bytes.NewReader(data)); n != keep+1 || err != nil {
				t.Errorf("%d lines and a piece of %d: Verify: got %d, %v, want %d", keep, len(piece), n, err, keep+1)
			}
			if !strings.Contains(string(data), EventTorn) || !strings.Contains(string(data), hash([]byte(piece))) {
				t.Errorf("%d lines and a piece of %d: no record of the cut in %q", keep, len(piece), data)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	l := write(t, filepath.Join(dir, "whole"), 4)
	long := strings.Repeat("x", MaxLine*3) + "\n"
	for _, tt := range []struct{ name, content, want string }{
		{"last altered", l[0] + l[1] + strings.Replace(l[2], `"seq":3`, `"seq":5`, 1), "does not follow"},
		{"last but one altered", l[0] + strings.Replace(l[1], "anna", "bert", 1) + l[2], "does not follow"},
		{"first gone", l[1], "number 2"},
		{"garbage", "hello\n", "not a record"},
		{"garbage before", "hello\n" + l[0], "last line but one"},
		{"long garbage", long, "not a record"},
		{"long garbage before", long + l[0], "too long"},
		{"endless line", l[0] + strings.Repeat("x", MaxLine+1), "without a line"},
	} {
		path := filepath.Join(dir, "log")
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != tt.content {
			t.Errorf("%s: the refused file was changed", tt.name)
		}
	}
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "whole"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{open, link, dir, filepath.Join(dir, "none", "log")} {
		if _, err := Open(path); err == nil {
			t.Errorf("%s: got nil, want an error", path)
		}
	}
}

func TestOneWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	first := openAt(t, path)
	if _, err := Open(path); err == nil || hint.Of(err) == "" {
		t.Errorf("second Open: got %v, want an error with a hint", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Append("connection", nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append after Close: got %v, want %v", err, os.ErrClosed)
	}
	second, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openAt(t, path)
	for _, tt := range []struct {
		name, event string
		record      any
	}{
		{"no event", "", 1}, {"upper case", "Connection", 1}, {"line break", "a\nb", 1},
		{"too long", "connection", strings.Repeat("x", MaxLine)}, {"no JSON", "connection", make(chan int)},
	} {
		if err := l.Append(tt.event, tt.record); err == nil {
			t.Errorf("%s: got nil, want an error", tt.name)
		}
	}
	if err := l.Append("connection", 1); err != nil {
		t.Errorf("Append after refusals: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if lines := write(t, path, 0); len(lines) != 1 {
		t.Errorf("got %d lines, want 1", len(lines))
	}
}

func TestAppendConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openAt(t, path)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 8 {
				if err := l.Append("connection", "x"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := Verify(f); n != 64 || err != nil {
		t.Errorf("Verify: got %d, %v, want 64", n, err)
	}
}

func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	l, err := open(filepath.Join(dir, "log"), func() time.Time { return start })
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if err := l.Append("connection", map[string]string{"user": "anna"}); err != nil {
			f.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Verify(bytes.NewReader(data))
		if n > bytes.Count(data, []byte("\n")) {
			t.Errorf("got %d records in %d lines", n, bytes.Count(data, []byte("\n")))
		}
		if err != nil || n == 0 {
			return
		}
		// What verifies does not verify with its first line changed: the chain hangs on each byte.
		changed := bytes.Clone(data)
		i := bytes.Index(changed, []byte(`"event":"`)) + len(`"event":"`)
		changed[i] = 'a' + (changed[i]-'a'+1)%26
		if n > 1 {
			if _, err := Verify(bytes.NewReader(changed)); err == nil {
				t.Errorf("a changed log verifies: %q", changed)
			}
		}
	})
}
