package debian

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func machine(t *testing.T) System {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"usr/sbin", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return System{Root: root}
}

var needs = []Need{{"ssh", "openssh-client"}, {"wg", "wireguard-tools"}, {"wg-quick", "wireguard-tools"}}

func TestInstallSurvivesABrokenSource(t *testing.T) {
	s := machine(t)
	var ran []string
	s.Run = func(_ context.Context, _ io.Writer, env []string, args ...string) error {
		ran = append(ran, strings.Join(args, " "))
		data, err := os.ReadFile(s.policy())
		if err != nil || !strings.Contains(string(data), "exit 101") {
			t.Errorf("while apt-get runs: got policy-rc.d %q, %v, want one that starts nothing", data, err)
		}
		if !slices.Contains(env, "DEBIAN_FRONTEND=noninteractive") {
			t.Errorf("got environment %q, want a non-interactive one", env)
		}
		if slices.Contains(args, "update") {
			return errors.New("exit status 100")
		}
		return nil
	}
	var talk strings.Builder
	if err := s.Install(t.Context(), needs, &talk); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(ran[len(ran)-1], "--path-exclude=/etc/reader.conf.d/vpcd ") {
		t.Errorf("got %q, want vpcd's reader file left out: with it the machine's own pcscd listens on every address", ran[len(ran)-1])
	}
	if len(ran) != 2 || !strings.HasSuffix(ran[1], "openssh-client wireguard-tools") || !strings.Contains(ran[1], "DPkg::Lock::Timeout=") {
		t.Errorf("got commands %q", ran)
	}
	if !strings.Contains(talk.String(), "going on") {
		t.Errorf("got talk %q, want a word about the failed update", talk.String())
	}
	if _, err := os.Stat(s.policy()); !os.IsNotExist(err) {
		t.Errorf("policy-rc.d is still there: %v", err)
	}
}

func TestFailedInstallSaysWhy(t *testing.T) {
	s := machine(t)
	s.Run = func(context.Context, io.Writer, []string, ...string) error { return errors.New("exit status 100") }
	err := s.Install(t.Context(), needs, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "openssh-client wireguard-tools") {
		t.Errorf("got %v, want the packages named", err)
	}
	if _, err := os.Stat(s.policy()); !os.IsNotExist(err) {
		t.Errorf("policy-rc.d is still there: %v", err)
	}
}

func TestSweep(t *testing.T) {
	tests := []struct {
		name string
		text string
		held bool
		want bool // still there
	}{
		{"ours, of a killed run", "", false, false},
		{"ours, of a run that lives", "", true, true},
		{"somebody else's", "#!/bin/sh\nexit 101\n", false, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := machine(t)
			if test.text == "" {
				test.text = s.policyText()
			}
			if err := os.WriteFile(s.policy(), []byte(test.text), 0o755); err != nil {
				t.Fatal(err)
			}
			if test.held {
				unlock, _, err := s.tryLock()
				if err != nil {
					t.Fatal(err)
				}
				defer unlock()
			}
			if err := s.Sweep(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(s.policy()); (err == nil) != test.want {
				t.Errorf("got there %v, want %v", err == nil, test.want)
			}
		})
	}
}

// TestPolicyOfAKilledRunHarmsNothing runs policy-rc.d as invoke-rc.d does: 101 starts nothing, 0 lets the service start.
func TestPolicyOfAKilledRunHarmsNothing(t *testing.T) {
	s := machine(t)
	if _, err := s.quiet(); err != nil {
		t.Fatal(err)
	}
	answer := func() int {
		cmd := exec.Command(s.policy(), "ssh", "start")
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode()
	}
	unlock, held, err := s.tryLock()
	if err != nil || held {
		t.Fatalf("got held %v, %v", held, err)
	}
	if got := answer(); got != 101 {
		t.Errorf("while the run lives: got exit %d, want 101", got)
	}
	unlock() // what the kernel does when the run is killed
	if got := answer(); got != 0 {
		t.Errorf("after the run was killed: got exit %d, want 0", got)
	}
}

func TestForeignPolicyIsKept(t *testing.T) {
	s := machine(t)
	foreign := "#!/bin/sh\nexit 0\n"
	if err := os.WriteFile(s.policy(), []byte(foreign), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Run = func(context.Context, io.Writer, []string, ...string) error { return nil }
	if err := s.Install(t.Context(), needs, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.policy()); err != nil || string(got) != foreign {
		t.Errorf("got %q, %v, want it unchanged", got, err)
	}
}

func TestMissing(t *testing.T) {
	got := Missing([]Need{{"sh", "dash"}, {"no-such-program-of-ours", "p1"}, {"/etc/pass*", "p2"}, {"/no/such/*", "p3"}})
	if text := Describe(got); text != "no-such-program-of-ours (p1), /no/such/* (p3)" {
		t.Errorf("got %q", text)
	}
}

func TestPath(t *testing.T) {
	if got, want := Path("/usr/bin:/usr/sbin"), "/usr/bin:/usr/sbin:/usr/local/sbin:/sbin"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLine(t *testing.T) {
	want := "sudo apt-get update && sudo apt-get install --yes --no-install-recommends openssh-client wireguard-tools"
	if got := Line(needs); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
