package mayfly_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

var update = flag.Bool("update", false, "write docs/dependencies/*.txt anew, for review in the diff")

// TestDependencies holds the programs that strangers reach first, and those that run before and above everything else on a server,
// to a list that people have read: each package of ours and of others that is linked. The standard library is left out.
func TestDependencies(t *testing.T) {
	for _, tt := range []struct {
		command string
		never   []string // beginnings of paths that must not even be reviewed in
		tags    string   // it is built with these, and with C
	}{
		{"bastion/cmd/bastion", []string{"modernc.org/", "google.golang.org/grpc", "github.com/hashicorp/", "mayfly/rebuild", "mayfly/tunnel", "mayfly/fleetctl", "mayfly/inventory/store"}, ""},
		{"bastion/cmd/bastion-alerts", []string{"modernc.org/", "google.golang.org/", "github.com/hashicorp/", "mayfly/rebuild", "mayfly/tunnel", "mayfly/fleetctl", "mayfly/inventory", "mayfly/policies"}, ""},
		{"bastion/cmd/bastion-agent", []string{"modernc.org/", "google.golang.org/", "github.com/hashicorp/", "mayfly/rebuild", "mayfly/tunnel", "mayfly/fleetctl", "mayfly/inventory"}, "pcsc"},
		{"rebuild/cmd/mayfly-stub", []string{"modernc.org/", "github.com/pelletier/", "mayfly/bastion", "mayfly/tunnel", "mayfly/fleetctl", "mayfly/inventory", "mayfly/policies/bundle"}, ""},
		{"rebuild/cmd/mayfly-init", []string{"modernc.org/", "mayfly/bastion", "mayfly/fleetctl", "mayfly/inventory/store"}, ""},
	} {
		var deps []string
		for _, p := range linked(t, tt.command, tt.tags) {
			if !p.Standard {
				deps = append(deps, p.ImportPath)
			}
		}
		slices.Sort(deps)
		for _, d := range deps {
			for _, n := range tt.never {
				if strings.HasPrefix(d, n) && d != "mayfly/bastion/hardkey" || d == "testing" { // evidence of a key's hardware is verified by all who read trust.json
					t.Errorf("%s links %s", tt.command, d)
				}
			}
		}
		got := strings.Join(deps, "\n") + "\n"
		golden := filepath.Join("docs", "dependencies", filepath.Base(tt.command)+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			reviewed := strings.Split(strings.TrimSpace(string(want)), "\n")
			t.Errorf("%s: its dependencies changed: new %q, gone %q; read them, then go test -run TestDependencies . -update", tt.command,
				slices.DeleteFunc(slices.Clone(deps), func(d string) bool { return slices.Contains(reviewed, d) }),
				slices.DeleteFunc(slices.Clone(reviewed), func(d string) bool { return slices.Contains(deps, d) }))
		}
	}
}

// linked lists what a command links. Where it takes C, the go command only reads its files, so that no compiler has to be there.
func linked(t *testing.T, command, tags string) []listed {
	t.Helper()
	if tags == "" {
		return goList(t, "-deps", "./"+command)
	}
	return goListWith(t, []string{"CGO_ENABLED=1"}, "-tags="+tags, "-deps", "./"+command)
}

// TestCardLibrary holds the library that speaks to cards to the engineer's program: nothing else reaches PC/SC.
func TestCardLibrary(t *testing.T) {
	const library, program = "github.com/go-piv/piv-go/v2/piv", "bastion/cmd/bastion-agent"
	found := false
	for _, p := range goListWith(t, []string{"CGO_ENABLED=1"}, "-tags=pcsc", "./...") {
		path, _ := inside(p.ImportPath)
		switch {
		case !slices.Contains(p.Imports, library):
		case path == program:
			found = true
		default:
			t.Errorf("%s imports %s, which only %s does", path, library, program)
		}
	}
	if !found {
		t.Errorf("%s does not import %s: the test would prove nothing", program, library)
	}
}

// TestSSHLibraryIsMended pins the version of the SSH library below which a known flaw of its server is open: docs/testing.md, CVE table.
func TestSSHLibraryIsMended(t *testing.T) {
	const module, mended = "golang.org/x/crypto", "v0.56.0"
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	file, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range file.Replace {
		if r.Old.Path == module {
			t.Errorf("%s is replaced by %s %s", module, r.New.Path, r.New.Version)
		}
	}
	for _, r := range file.Require {
		if r.Mod.Path == module {
			if semver.Compare(r.Mod.Version, mended) < 0 {
				t.Errorf("%s %s, want %s at least", module, r.Mod.Version, mended)
			}
			return
		}
	}
	t.Errorf("go.mod does not name %s", module)
}
