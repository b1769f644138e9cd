package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
)

// TestMeet installs on a machine that is not this one: what is needed has to come, what is wanted is told of when it does not.
func TestMeet(t *testing.T) {
	offline := errors.New("offline: Could not resolve archive.invalid")
	for _, test := range []struct {
		name    string
		have    []string
		offers  []string // packages that the archive has
		lacking string   // a part of it
		fails   string
		runs    int // of apt-get install
	}{
		{"all is there", []string{"needed", "wanted"}, nil, "", "", 0},
		{"all comes", nil, []string{"needed", "wanted"}, "", "", 1},
		{"what is wanted comes", []string{"needed"}, []string{"wanted"}, "", "", 1},
		{"offline, what is wanted is missing", []string{"needed"}, nil, "(wanted): installing wanted: offline: Could not resolve", "", 1},
		{"offline, all is missing", nil, nil, "", "installing needed: offline", 2},
		{"offline, what is needed is missing", []string{"wanted"}, nil, "", "installing needed: offline", 1},
		{"an archive without what is wanted", nil, []string{"needed"}, "(wanted): installing needed wanted: offline", "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"usr/sbin", "run", "opt"} {
				if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			put := func(name string) {
				if err := os.WriteFile(filepath.Join(root, "opt", name), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range test.have {
				put(name)
			}
			need := func(name string) []debian.Need {
				return []debian.Need{{Name: filepath.Join(root, "opt", name), Package: name}}
			}
			runs := 0
			system := debian.System{Root: root, Run: func(_ context.Context, _ io.Writer, _ []string, args ...string) error {
				at := slices.Index(args, "install")
				if at < 0 {
					return nil
				}
				runs++
				var asked []string
				for _, name := range []string{"needed", "wanted"} {
					if slices.Contains(args[at:], name) {
						asked = append(asked, name)
					}
				}
				for _, name := range asked {
					if !slices.Contains(test.offers, name) {
						return offline
					}
				}
				for _, name := range asked {
					put(name)
				}
				return nil
			}}
			lacking, err := meet(t.Context(), system, need("needed"), need("wanted"), io.Discard)
			if (err != nil) != (test.fails != "") || err != nil && (!strings.Contains(err.Error(), test.fails) || hint.Of(err) == "") {
				t.Errorf("got error %v, want %q and a hint", err, test.fails)
			}
			if (lacking == "") != (test.lacking == "") || !strings.Contains(lacking, test.lacking) {
				t.Errorf("lacking: got %q, want %q", lacking, test.lacking)
			}
			if runs != test.runs {
				t.Errorf("apt-get install ran %d times, want %d", runs, test.runs)
			}
		})
	}
}

// TestSoftwareKeys goes the demo's way where there can be no cards: it says so, and everybody gets on with software keys, as far as a login
// at the bastion.
func TestSoftwareKeys(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	if missing := debian.Missing(demoNeeds); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "mf-sw-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	const lacking = "not found: pcscd (pcscd): installing pcscd: no network"
	e := &environment{module: module, dir: dir, lacking: lacking}
	e.lab, e.table.Dir = netlab.Of(e.dir), e.dir
	for _, n := range e.lab.Namespaces() {
		e.table.Namespaces = append(e.table.Namespaces, n.Path())
	}
	t.Cleanup(func() {
		if _, err := e.remove(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var talk bytes.Buffer
	d := newDemo(e, &command.Call{Stdout: io.Discard, Stderr: &talk})
	step := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, &talk)
		}
	}
	fleetctl := func(args ...string) {
		t.Helper()
		_, err := d.fleetctl(ctx, args...)
		step(strings.Join(args, " "), err)
	}
	step("the fleet's files", d.makeFleet(ctx))
	step("people", d.people(ctx))
	step("init", d.ceremony(ctx))
	if !strings.Contains(talk.String(), "SOFTWARE KEYS in place of virtual YubiKeys") || !strings.Contains(talk.String(), lacking) {
		t.Errorf("it does not say which keys, and why:\n%s", &talk)
	}
	if len(d.r.Checks) != 1 || !d.r.Checks[0].OK || d.r.Checks[0].Detail != lacking || !strings.Contains(d.r.Checks[0].Name, "software keys in place of virtual YubiKeys") {
		t.Errorf("the report does not say which keys, and why: %+v", d.r.Checks)
	}
	if e.hasCards() || d.identity() != nil {
		t.Error("the environment has cards")
	}
	fleetctl("policy", "bundle")
	for _, name := range approvers[:threshold] {
		fleetctl("policy", "sign", "--key", e.approverKey(name))
	}
	step("signer and witness", d.startPublishing(ctx))
	_, err = d.startController(ctx)
	step("controller", err)
	_, err = d.startBastion(ctx)
	step("bastion", err)
	step("agents", d.startAgents(ctx))
	step("mark", d.markAudit())
	// No server runs: what ssh asks for behind the bastion is not there.
	said, err := d.refusedLogin(ctx, engineer, bastionName, "-W", "se-1:22")
	step("login", err)
	step("record of the login, at which ssh said "+said, d.awaitRecord(ctx, func(r closing) error {
		if r.User != engineer || r.Outcome != "accepted" || !strings.HasPrefix(r.Evidence, testEvidence) {
			return errors.New("no accepted login with " + testEvidence)
		}
		return nil
	}))
	for _, refusal := range d.refusals() {
		if strings.Contains(refusal.name, "card") {
			t.Error("a card is tried where there is none")
		}
	}
}
