package main

import (
	"os"
	"path/filepath"
	"testing"

	"mayfly/internal/audit"
)

// TestAuditHolds sees that the demo's check of the audit log can fail.
func TestAuditHolds(t *testing.T) {
	type record struct {
		Connection string `json:"connection"`
		Outcome    string `json:"outcome,omitempty"`
		Test       bool   `json:"test"`
	}
	type entry struct {
		event string
		record
	}
	login, other := entry{"login", record{"a", "", true}}, entry{"login", record{"b", "", true}}
	closing, refused := entry{"connection", record{"a", "accepted", true}}, entry{"connection", record{"c", "refused", false}}
	for _, test := range []struct {
		name string
		log  []entry
		want bool
	}{
		{"all closed", []entry{login, closing, refused}, true},
		{"nobody logged in", []entry{refused}, false},
		{"a login that was never closed", []entry{login, closing, other}, false},
		{"closed twice", []entry{login, closing, closing}, false},
		{"let in without a login record", []entry{closing}, false},
		{"not marked as a test key's", []entry{{"login", record{"a", "", false}}, {"connection", record{"a", "accepted", false}}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &demo{e: &environment{dir: t.TempDir()}}
			if err := os.Mkdir(filepath.Dir(d.auditDir()), 0o700); err != nil {
				t.Fatal(err)
			}
			log, err := audit.Open(audit.Options{Dir: d.auditDir(), Name: "lab/test"})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range test.log {
				if err := log.Append(e.event, e.record); err != nil {
					t.Fatal(err)
				}
			}
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			if said, err := d.auditHolds(); (err == nil) != test.want {
				t.Errorf("got %q, %v, want it to hold: %v", said, err, test.want)
			}
		})
	}
}
