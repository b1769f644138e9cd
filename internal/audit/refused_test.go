package audit

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRefusedQuota floods the files of refusals: they keep their quota, the newest stay, what was dropped is counted, and the log
// itself does not grow.
func TestRefusedQuota(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	now := start
	const quota, records = 64 << 10, 5000
	open := func() *Log {
		l, err := Open(Options{Dir: dir, Name: "lab/test", Reserve: 1, quota: quota, now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	for i := range records {
		if i%1000 == 999 { // a restart forgets nothing
			closeLog(t, l)
			l = open()
		}
		now = now.Add(time.Second)
		if err := l.AppendRefused("refused", map[string]any{"network": "192.0.2.1/32", "n": i}); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	verify(t, dir, 0)
	files, err := filepath.Glob(filepath.Join(dir, refusedDir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	total, kept, gone := 0, 0, 0
	var last string
	read := 0
	if err := ReadRefused(dir, func([]byte) error { read++; return nil }); err != nil {
		t.Error(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		total += len(data)
		for line := range bytes.Lines(data) {
			e, err := ParseEntry(bytes.TrimSuffix(line, []byte{'\n'}))
			if err != nil {
				t.Fatal(err)
			}
			if e.Event == "refused" {
				kept++
				last = string(e.Record)
				continue
			}
			var d dropped
			if err := json.Unmarshal(e.Record, &d); err != nil || e.Event != EventDropped || d.File == "" {
				t.Fatalf("got %+v, %v", e, err)
			}
			gone += d.Records
		}
	}
	if read < kept || read > kept+len(files)*2 {
		t.Errorf("ReadRefused: got %d records of %d and what was dropped", read, kept)
	}
	if total > quota || kept < quota/200 || gone == 0 || kept+gone > records+len(files)*100 {
		t.Errorf("%d files of %d bytes hold %d records and tell of %d dropped ones; the quota is %d", len(files), total, kept, gone, quota)
	}
	if !strings.Contains(last, `"n":4999`) {
		t.Errorf("the last record is %s", last)
	}
}
