package mayfly_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Layers of docs/design.md, part 2, from below. A package imports from its own layer or from one below.
const (
	leaf = iota
	pure
	effect
	program
	environment // testenv: on top of everything, imported by tests alone
)

var layerNames = []string{"leaf", "pure", "effect", "main", "testenv"}

// purePackages decide and describe. What is in none of the lists below has effects.
var purePackages = []string{
	"inventory", "policies", "policies/trust", "policies/bundle", "policies/witness", "bastion/hardkey", "policies/enrolment",
	"policies/krl", "policies/ledger",
	"policies/statement", "policies/request",
	"fleetctl/plan", "fleetctl/alarm", "fleetctl/plan/simulate", "rebuild/attest", "rebuild/attest/register", "rebuild/release", "rebuild/ticket", "rebuild/ticket/issue", "rebuild/ledger",
	"rebuild/extension", "rebuild/order", "rebuild/cpio", "rebuild/erofs", "rebuild/uki", "rebuild/medium", "tunnel/dns",
}

// impure are packages with which a pure one would reach for the world or log.
var impure = []string{
	"os", "os/exec", "os/signal", "syscall", "net/http", "database/sql", "log", "log/slog", "golang.org/x/sys/unix",
	"github.com/vishvananda/netlink", "github.com/google/nftables", "modernc.org/sqlite",
}

// components never import each other: what they share is data or a certificate.
var components = []string{"bastion", "rebuild", "tunnel"}

// folders are all there may be at the top.
var folders = []string{"bastion", "fleetctl", "internal", "inventory", "policies", "rebuild", "testenv", "tunnel"}

// listed is what go list says of a package.
type listed struct {
	ImportPath   string
	Name         string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Standard     bool
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	return goListWith(t, nil, args...)
}

// goListWith lists with more in the environment.
func goListWith(t *testing.T, env []string, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Name,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports,Standard"}, args...)...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=-mod=readonly"), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v: %s", args, err, stderr.String())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

var module struct {
	once sync.Once
	all  []listed
}

// packages returns the module's packages.
func packages(t *testing.T) []listed {
	t.Helper()
	module.once.Do(func() { module.all = goList(t, "./...") })
	if len(module.all) < 10 {
		t.Fatalf("got %d packages, so the test would prove nothing", len(module.all))
	}
	return module.all
}

// inside returns the path below the module, or false for a package of others.
func inside(path string) (string, bool) {
	if path == "mayfly" {
		return "", true
	}
	return strings.CutPrefix(path, "mayfly/")
}

func top(path string) string {
	folder, _, _ := strings.Cut(path, "/")
	return folder
}

func layer(path, name string) int {
	switch {
	case top(path) == "testenv":
		return environment
	case name == "main":
		return program
	case top(path) == "internal":
		return leaf
	case slices.Contains(purePackages, path):
		return pure
	}
	return effect
}

// fault says why one package must not import the other, or "".
func fault(from, fromName, to, toName string) string {
	a, b := layer(from, fromName), layer(to, toName)
	switch {
	case toName == "main":
		return "nobody imports a program"
	case b == environment && a != environment:
		return "testenv is imported by tests alone"
	case a < b:
		return layerNames[a] + " imports " + layerNames[b]
	case top(from) != top(to) && slices.Contains(components, top(from)) && slices.Contains(components, top(to)):
		return "bastion, rebuild and tunnel never import each other"
	}
	return ""
}

func TestLayers(t *testing.T) {
	names := map[string]string{}
	for _, p := range packages(t) {
		if path, ok := inside(p.ImportPath); ok {
			names[path] = p.Name
		}
	}
	for _, p := range packages(t) {
		from, _ := inside(p.ImportPath)
		if from == "" {
			continue
		}
		if !slices.Contains(folders, top(from)) {
			t.Errorf("%s: a folder that docs/design.md does not name", from)
		}
		if p.Name == "main" && from != "fleetctl" && from != "testenv" && !strings.Contains(from, "/cmd/") {
			t.Errorf("%s: a program lives in fleetctl, testenv or COMPONENT/cmd/NAME", from)
		}
		for _, imported := range p.Imports {
			if to, ok := inside(imported); ok {
				if why := fault(from, p.Name, to, names[to]); why != "" {
					t.Errorf("%s imports %s: %s", from, to, why)
				}
			} else if slices.Contains(purePackages, from) && slices.Contains(impure, imported) {
				t.Errorf("%s imports %s: it is pure", from, imported)
			}
		}
	}
	for _, path := range purePackages {
		if _, ok := names[path]; !ok {
			t.Errorf("%s: listed as pure and not there", path)
		}
	}
}

// The rules see what they are for.
func TestLayersFault(t *testing.T) {
	for _, tt := range []struct {
		from, fromName, to, toName string
		ok                         bool
	}{
		{"bastion", "bastion", "policies", "policies", true},
		{"bastion/cmd/bastion", "main", "bastion", "bastion", true},
		{"bastion", "bastion", "rebuild/ticket", "ticket", false},
		{"bastion/cmd/bastion", "main", "tunnel/client", "client", false},
		{"tunnel/server", "server", "rebuild/join", "join", false},
		{"rebuild/cmd/mayfly-init", "main", "tunnel/dns", "dns", false},
		{"rebuild/cmd/mayfly-stub", "main", "tunnel/dns", "dns", false},
		{"rebuild/cmd/mayfly-init", "main", "tunnel/server", "server", false},
		{"fleetctl", "main", "tunnel/checkin", "checkin", true},
		{"fleetctl/rotate", "rotate", "rebuild/power", "power", true},
		{"fleetctl/plan", "plan", "inventory/store", "store", false},
		{"fleetctl/plan", "plan", "inventory", "inventory", true},
		{"policies", "policies", "bastion", "bastion", false},
		{"internal/audit", "audit", "inventory", "inventory", false},
		{"internal/audit", "audit", "internal/hint", "hint", true},
		{"fleetctl", "main", "testenv/netlab", "netlab", false},
		{"testenv", "main", "testenv/netlab", "netlab", true},
		{"testenv", "main", "fleetctl", "main", false},
	} {
		if why := fault(tt.from, tt.fromName, tt.to, tt.toName); (why == "") != tt.ok {
			t.Errorf("%s imports %s: got %q, want ok %v", tt.from, tt.to, why, tt.ok)
		}
	}
}
