package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/hint"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func openAt(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(Options{Dir: dir, Name: "lab/test", Reserve: 1, now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// write makes or lengthens a log by n records.
func write(t testing.TB, dir string, n int) {
	t.Helper()
	l := openAt(t, dir)
	for i := range n {
		if err := l.Append("connection", map[string]any{"user": "anna <a&b>", "n": i}); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
}

func verifier(t testing.TB, dir string) note.Verifier {
	t.Helper()
	v, err := ReadVerifier(filepath.Join(dir, KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func verify(t testing.TB, dir string, want uint64) Report {
	t.Helper()
	r, err := Verify(dir, Trusted{Log: verifier(t, dir)})
	if err != nil || r.Size+uint64(r.Unsigned) != want {
		t.Fatalf("Verify: got %+v, %v, want %d records", r, err, want)
	}
	return r
}

func texts(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	next, err := Read(dir, 0, func(index uint64, text []byte) error {
		if index != uint64(len(all)) {
			return fmt.Errorf("record %d after %d", index, len(all))
		}
		all = append(all, string(text))
		return nil
	})
	if err != nil || next != uint64(len(all)) {
		t.Fatalf("Read: %d records, next %d, %v", len(all), next, err)
	}
	return all
}

func TestAppendVerify(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	write(t, dir, 0)
	if r := verify(t, dir, 0); r.Origin != "lab/test" || r.Last != nil {
		t.Errorf("an empty log: got %+v", r)
	}
	total := uint64(0)
	for _, n := range []int{3, 252, 1, 1, 255, 300, 0, 1} { // around the ends of tiles
		write(t, dir, n)
		total += uint64(n)
		verify(t, dir, total)
	}
	lines := texts(t, dir)
	want := `{"time":"2030-01-01T00:00:00Z","event":"connection","record":{"n":0,"user":"anna \u003ca\u0026b\u003e"}}`
	if lines[0] != want || uint64(len(lines)) != total {
		t.Errorf("got %d records, the first %q, want %d, %q", len(lines), lines[0], total, want)
	}
	if r := verify(t, dir, total); !r.Last.Equal(start) || r.Unsigned != 0 {
		t.Errorf("got %+v, want the last record at %v", r, start)
	}
	for path, want := range map[string]os.FileMode{"": 0o700, KeyName: 0o600, checkpointFile: 0o600, "tile/entries/000": 0o600, "tile": 0o700} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %q: got %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "tile/*/*.p/*"))
	if err != nil || len(left) > 8 {
		t.Errorf("partial tiles that were replaced are left: %q, %v", left, err)
	}
}

func TestAppendRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openAt(t, dir)
	for _, tt := range []struct {
		name, event string
		record      any
	}{
		{"no event", "", 1}, {"upper case", "Connection", 1}, {"line break", "a\nb", 1},
		{"too long", "connection", strings.Repeat("x", MaxEntry)}, {"no JSON", "connection", make(chan int)},
	} {
		if err := l.Append(tt.event, tt.record); err == nil {
			t.Errorf("%s: got nil, want an error", tt.name)
		}
	}
	long := strings.Repeat("x", MaxEntry-100)
	if err := l.Append("connection", long); err != nil {
		t.Errorf("Append of the longest, after refusals: %v", err)
	}
	closeLog(t, l)
	if err := l.Append("connection", nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append after Close: got %v, want %v", err, os.ErrClosed)
	}
	if err := l.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: got %v, want %v", err, os.ErrClosed)
	}
	verify(t, dir, 1)
}

func TestAppendConcurrently(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openAt(t, dir)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 40 {
				if err := l.Append("connection", strings.Repeat("x", 5000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	v := verifier(t, dir)
	for range 5 { // while it is being written
		if _, err := Verify(dir, Trusted{Log: v}); err != nil {
			t.Error(err)
		}
		texts(t, dir)
	}
	wg.Wait()
	if got := len(texts(t, dir)); got != 640 {
		t.Errorf("Read before Close: got %d records, want 640", got)
	}
	closeLog(t, l)
	verify(t, dir, 640)
}

func TestOneWriter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	first := openAt(t, dir)
	if _, err := Open(Options{Dir: dir}); err == nil || hint.Of(err) == "" {
		t.Errorf("second Open: got %v, want an error with a hint", err)
	}
	closeLog(t, first)
	closeLog(t, openAt(t, dir))
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(dir string) error
	}{
		{"checkpoint gone", "checkpoint is gone", func(dir string) error { return os.Remove(filepath.Join(dir, checkpointFile)) }},
		{"checkpoint of another key", "was changed", func(dir string) error {
			if err := os.Remove(filepath.Join(dir, KeyName)); err != nil {
				return err
			}
			_, err := makeKey(filepath.Join(dir, KeyName), "lab/test")
			return err
		}},
		{"key gone", "no key", func(dir string) error { return os.Remove(filepath.Join(dir, KeyName)) }},
		{"key that others read", "audit_key", func(dir string) error { return os.Chmod(filepath.Join(dir, KeyName), 0o644) }},
		{"bundle gone", "no such file", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "tile/entries/000.p")) }},
		{"bundle altered", "does not have its hash", func(dir string) error {
			return edit(filepath.Join(dir, "tile/entries/000.p/7"), func(b []byte) []byte { return []byte(strings.Replace(string(b), "anna", "bert", 1)) })
		}},
		{"hashes altered", "root hash", func(dir string) error {
			return edit(filepath.Join(dir, "tile/0/000.p/7"), func(b []byte) []byte { b[0] ^= 1; return b })
		}},
		{"a stranger in the journal", "no file of a journal", func(dir string) error { return os.WriteFile(filepath.Join(dir, journalDir, "x"), nil, 0o600) }},
		{"journal without its beginning", "lacks records 7 to 8", func(dir string) error {
			return os.WriteFile(segmentPath(dir, 9), appendFrame(nil, []byte("x")), 0o600)
		}},
		{"directory open to others", "mode 0755", func(dir string) error { return os.Chmod(dir, 0o755) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			write(t, dir, 7)
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Options{Dir: dir, Name: "lab/test"}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("a log of an older version\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, filepath.Join(dir, "none", "log")} {
		if _, err := Open(Options{Dir: path, Name: "x"}); err == nil {
			t.Errorf("%s: got nil, want an error", path)
		}
	}
}

func edit(path string, change func([]byte) []byte) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(data), 0o600)
}

func BenchmarkAppend(b *testing.B) {
	record := map[string]string{"text": strings.Repeat("x", 500)}
	for _, parallel := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("parallel-%d", parallel), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "log")
			l, err := Open(Options{Dir: dir, Name: "lab/bench"})
			if err != nil {
				b.Fatal(err)
			}
			before := cpu(b)
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range parallel {
				wg.Go(func() {
					for n := i; n < b.N; n += parallel {
						if err := l.Append("connection", record); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N)/1000, "cpu-µs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			closeLog(b, l)
		})
	}
}

// cpu is the processor time of this process.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
