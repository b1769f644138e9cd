package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// Only the driver's own argument makes a container of it: the stub gives none.
func TestInContainer(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want bool
	}{
		{[]string{release.InitPath}, false}, {[]string{release.InitPath, containerArgument}, true},
		{[]string{release.InitPath, "x"}, false}, {[]string{release.InitPath, containerArgument, "x"}, false}, {nil, false},
	} {
		if got := inContainer(tt.args); got != tt.want {
			t.Errorf("%q: got %t", tt.args, got)
		}
	}
}

// A container changes no setting that is the host's.
func TestContainerStages(t *testing.T) {
	for _, s := range ownNetwork(settings) {
		if !strings.HasPrefix(s.name, "net/") {
			t.Errorf("%s is the host's", s.name)
		}
	}
	if len(ownNetwork(settings)) == 0 {
		t.Error("no setting of its own network is left")
	}
	b := &boot{inContainer: true}
	for _, s := range b.stages() {
		if s.name == "modules" || s.name == "limits" {
			t.Errorf("stage %s is the host's", s.name)
		}
	}
}

// The papers leave the host when they are taken over.
func TestTakePapers(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	names := []string{ticket.TrustFile, ticket.File, ticket.SignatureFile, release.StatementFile}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(from, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := takePapers(from, to); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != name {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if _, err := os.Lstat(filepath.Join(from, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still at the driver's: %v", name, err)
		}
	}
	if err := takePapers(from, to); err == nil {
		t.Error("papers that are not there were taken over")
	}
}

func TestContainerID(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	a, b := containerID(), containerID()
	if a == b || !form.MatchString(a) {
		t.Errorf("got %q and %q", a, b)
	}
}

// A container's life begins when it starts, not when its host did.
func TestSince(t *testing.T) {
	now, failure := time.Hour, error(nil)
	up := since(func() (time.Duration, error) { return now, failure })
	now += time.Minute
	if got, err := up(); got != time.Minute || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	failure = errors.New("no clock")
	if _, err := up(); err == nil {
		t.Error("got no error of the clock")
	}
}
