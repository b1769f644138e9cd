package store

import (
	"bytes"
	"testing"
	"time"

	"mayfly/inventory"
)

// FuzzReadContent: what is read as an export is written the same again.
func FuzzReadContent(f *testing.F) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	c := Content{Policy: 3, Pause: Pause{On: true, By: "a", At: now}, Use: &Use{Version: 7}, Marks: []Mark{{Version: 6, Mark: Bad}},
		Servers: []Record{{Server: Server{Name: "a", State: inventory.Serving, Epoch: 3, Since: now}, Floor: 9, Report: []byte(`{}`), ReportAt: now}},
		Events:  []Event{{ID: 1, At: now, Server: "a", From: "new", To: "wiping", Epoch: 1}}, Tickets: []Ticket{{Hash: make([]byte, 32), Server: "a", Epoch: 1, NotAfter: now}},
		Runs: []Run{{ID: 1, Plan: []byte("p"), Began: now}}, Journal: []Entry{{Run: 1, Server: "a", Step: "wipe", At: now}}}
	var b bytes.Buffer
	if err := c.Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("{\"kind\":\"head\",\"value\":{\"format\":\"mayfly-store\",\"version\":1}}\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadContent(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := c.Write(&again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytes.TrimSuffix(again.Bytes(), []byte("\n")), bytes.TrimSuffix(data, []byte("\n"))) {
			t.Errorf("got %q, want %q", again.Bytes(), data)
		}
	})
}
