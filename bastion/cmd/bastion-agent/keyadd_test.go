//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/testenv/pivcard"
)

// fleet lays a fleet of fleetctl's tests in which anna has no key yet, and which takes cards of the lab's issuer; it returns a function
// that runs fleetctl in it.
func (l *lab) fleet() func(code int, want string, args ...string) string {
	l.t.Helper()
	dir := filepath.Join(l.dir, "lab")
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	lines := strings.NewReplacer("BOOT_PORT", "80", "JOIN_PORT", "443", "CHECKIN_PORT", "8443", "EXPIRES", "2099-01-01T00:00:00Z")
	for _, name := range []string{"fleet.toml", "policy.toml"} {
		data, err := os.ReadFile(filepath.Join("../../../fleetctl/testdata/lab", name))
		if err != nil {
			l.t.Fatal(err)
		}
		text := lines.Replace(string(data))
		if name == "policy.toml" {
			text += "\n[hardware]\n\n[[engineer]]\nname = \"anna\"\n"
			for _, i := range l.issuer.DeviceIssuers() {
				text += fmt.Sprintf("\n[[hardware.test_issuer]]\nname = %q\napplet = %q\ncertificate = %q\n", i.Name, i.Applet, i.Certificate)
			}
		}
		l.write(filepath.Join("lab", name), []byte(text), 0o600)
	}
	bin := filepath.Join(l.dir, "fleetctl")
	build := exec.CommandContext(l.ctx, "go", "build", "-buildvcs=false", "-o", bin, "mayfly/fleetctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	return func(code int, want string, args ...string) string {
		l.t.Helper()
		cmd := exec.CommandContext(l.ctx, bin, append(args, "--dir", dir)...)
		out, _ := cmd.CombinedOutput() // its exit code is looked at
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code || !strings.Contains(string(out), want) {
			l.t.Fatalf("fleetctl %q: want exit code %d and %q:\n%s", args, code, want, out)
		}
		return string(out)
	}
}

// TestKeyAdd is the whole way of an enrolment: the fleet's challenge, the card, the policy. What bastion-agent foresaw is what the fleet says.
func TestKeyAdd(t *testing.T) {
	l := newLab(t, 1)
	fleetctl := l.fleet()
	card := l.card(0, pivcard.Config{})
	public := strings.Fields(l.want(0, nil, l.setUp()...))
	challenge, request := filepath.Join(l.dir, "anna.challenge"), filepath.Join(l.dir, "anna.json")
	enroll := append([]string{"enroll", "--challenge", challenge, "--out", request, "--pin-file", filepath.Join(l.dir, "pin")}, l.issuers()...)

	fleetctl(0, "", "key", "challenge", "anna", "-o", challenge)
	l.want(0, []string{"for anna"}, enroll...)
	fleetctl(0, fmt.Sprint(card.Serial()), "key", "add", request)
	policy, err := os.ReadFile(filepath.Join(l.dir, "lab", "policy.toml"))
	if err != nil || !strings.Contains(string(policy), public[0]+" "+public[1]) {
		t.Errorf("%v: the policy lacks the key:\n%s", err, policy)
	}
	fleetctl(3, "key_enrolled", "key", "add", request)

	fleetctl(0, "", "key", "challenge", "anna", "-o", challenge)
	if _, err := card.Generate(pivcard.KeyPlan{Slot: "9a", Algorithm: "p256", Touch: "cached", PIN: "once"}); err != nil {
		t.Fatal(err)
	}
	l.want(3, []string{"attestation_touch_cached"}, append(enroll, "--out", request+"2")...)
	l.want(0, []string{"attestation_touch_cached"}, append(enroll, "--out", request+"2", "--write-refused")...)
	fleetctl(3, "attestation_touch_cached", "key", "add", request+"2")
}
