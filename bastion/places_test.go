package bastion

import (
	"os"
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
)

// TestCheckPlaces: what makes serve fail at its start makes check fail as well, with a hint.
func TestCheckPlaces(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(f *fixture) error
		want  string
	}{
		{"good", func(f *fixture) error { f.config.Control = f.path("control"); return nil }, ""},
		{"no statements", func(f *fixture) error { f.config.Statements = f.path("none"); return nil }, "reading statements"},
		{"no directory of the control socket", func(f *fixture) error { f.config.Control = f.path("none/control"); return nil }, "control socket"},
		{"an audit log for all to read", func(f *fixture) error { return os.Mkdir(f.config.Audit, 0o755) }, "mode 0755"},
		{"an audit log of an older version", func(f *fixture) error { return os.WriteFile(f.config.Audit, nil, 0o600) }, "not a directory"},
		{"no place for the audit log", func(f *fixture) error { f.config.Audit = f.path("none/audit"); return nil }, "audit log"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			if err := tt.spoil(f); err != nil {
				t.Fatal(err)
			}
			_, err := Check(f.config, time.Now())
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
				t.Errorf("got %v, hint %q; want %q and a hint", err, hint.Of(err), tt.want)
			}
		})
	}
	if _, err := listenControl(t.TempDir() + "/none/control"); err == nil || hint.Of(err) == "" {
		t.Errorf("serve: %v, hint %q", err, hint.Of(err))
	}
}
