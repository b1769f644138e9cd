package skprovider

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mayfly/bastion/hardkey"
	"mayfly/policies/enrolment"
)

// program builds one of the module's, without C: a FIDO2 key takes no card.
func program(t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "mayfly/"+pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// request are bastion-agent's arguments for the key "id".
func (d *desk) request() []string {
	d.write("issuer.pem", string(d.issuer.FIDO.PEM()), 0o600)
	return []string{"enroll", "--fido2", d.path("id.pub"), "--attestation", d.path("id.attestation"), "--challenge", d.path("challenge"),
		"--aaguid", Model.String(), "--test-issuer", d.path("issuer.pem"), "--out", d.path("request.json")}
}

// refused runs a program that exits with 3 and says this.
func (d *desk) refused(want, name string, args ...string) {
	d.t.Helper()
	cmd := d.command(name, args...)
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), want) {
		d.t.Errorf("%s %q: got %v, want exit 3 and %s:\n%s", filepath.Base(name), args, err, want, out)
	}
}

// bastion-agent makes of what ssh-keygen wrote a request that a fleet verifies, and does not make one that a fleet would refuse.
func TestRequest(t *testing.T) {
	agent := program(t, "bastion/cmd/bastion-agent")
	for _, kind := range []string{"ed25519-sk", "ecdsa-sk"} {
		t.Run(kind, func(t *testing.T) {
			d := newDesk(t, nil)
			e := d.enrol(kind, "verify-required")
			if out := d.run(agent, d.request()...); !strings.Contains(out, Model.String()) {
				t.Errorf("it does not say what is proved: %s", out)
			}
			args := d.request()
			at := slices.Index(args, "--aaguid")
			args[at+1] = "00000000-0000-0000-0000-000000000001"
			d.refused(hardkey.AAGUID, agent, args...)
			if out := d.run(agent, slices.Delete(args, at, at+2)...); !strings.Contains(out, "has to list this model") || !strings.Contains(out, Model.String()) {
				t.Errorf("it does not say which model the fleet has to list: %s", out)
			}
			r, err := enrolment.Parse(d.read("request.json"))
			if err != nil {
				t.Fatal(err)
			}
			if r.Fleet != "fleet" || r.Name != "anna" || r.Public != e.public {
				t.Errorf("got %+v", r)
			}
			proof, rejection := hardkey.Verify(r.Fleet, r.Name, r.Public, r.Shown, e.rules, e.now)
			if rejection != nil || !proof.UserVerification || !proof.Touch {
				t.Errorf("got %+v, %v", proof, rejection)
			}
		})
	}
	for flaw, reason := range map[Flaw]string{FlawNoTouchFlag: hardkey.Flags, FlawWrongRP: hardkey.RelyingParty, FlawOtherKey: hardkey.KeyDiffers,
		FlawNoCertificate: hardkey.Missing, FlawOtherChallenge: hardkey.Signature, FlawCutShort: hardkey.Malformed, FlawSynced: hardkey.Synced} {
		t.Run(string(flaw), func(t *testing.T) {
			d := newDesk(t, nil)
			d.set(func(s *Settings) { s.Flaws = []Flaw{flaw} })
			d.enrol("ed25519-sk", "verify-required")
			d.refused(reason, agent, d.request()...)
		})
	}
}

// fleet lays a fleet of fleetctl's tests in which anna has no key yet, and which takes keys of this maker and model.
func (d *desk) fleet() string {
	d.t.Helper()
	dir := d.path("lab")
	if err := os.Mkdir(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	lines := strings.NewReplacer("BOOT_PORT", "80", "JOIN_PORT", "443", "CHECKIN_PORT", "8443", "EXPIRES", "2099-01-01T00:00:00Z")
	for _, name := range []string{"fleet.toml", "policy.toml"} {
		data, err := os.ReadFile(filepath.Join("../../fleetctl/testdata/lab", name))
		if err != nil {
			d.t.Fatal(err)
		}
		text := lines.Replace(string(data))
		if name == "policy.toml" {
			text += fmt.Sprintf("\n[hardware]\naaguids = [%q]\n", Model.String())
			text += "\n[[engineer]]\nname = \"anna\"\n"
			for _, i := range d.issuer.DeviceIssuers() {
				text += fmt.Sprintf("\n[[hardware.test_issuer]]\nname = %q\napplet = %q\ncertificate = %q\n", i.Name, i.Applet, i.Certificate)
			}
		}
		d.write(filepath.Join("lab", name), text, 0o600)
	}
	return dir
}

// The whole way of an enrolment: the fleet's challenge, ssh-keygen, bastion-agent, the policy.
func TestKeyAdd(t *testing.T) {
	agent, fleetctl := program(t, "bastion/cmd/bastion-agent"), program(t, "fleetctl")
	d := newDesk(t, nil)
	dir := d.fleet()
	enrol := func(file string, options ...string) {
		t.Helper()
		args := d.enroll("ed25519-sk", file, append(options, "verify-required")...)
		d.run(fleetctl, "key", "challenge", "anna", "--dir", dir, "-o", d.path("challenge"))
		d.run("ssh-keygen", args...)
	}
	enrol("id")
	d.run(agent, d.request()...)
	if out := d.run(fleetctl, "key", "add", d.path("request.json"), "--dir", dir); !strings.Contains(out, Model.String()) {
		t.Errorf("it does not show what is proved:\n%s", out)
	}
	public := strings.Join(strings.Fields(string(d.read("id.pub")))[:2], " ")
	if policy := string(d.read("lab/policy.toml")); !strings.Contains(policy, public) {
		t.Errorf("the key is not in\n%s", policy)
	}
	d.refused("key_enrolled", fleetctl, "key", "add", d.path("request.json"), "--dir", dir)

	// What bastion-agent does not know of the fleet's rules, the fleet finds.
	if err := os.Remove(d.path("id")); err != nil {
		t.Fatal(err)
	}
	d.set(func(s *Settings) { s.Flaws = []Flaw{FlawOtherChallenge} })
	enrol("id")
	d.run(agent, append(d.request(), "--write-refused")...)
	d.refused(hardkey.Signature, fleetctl, "key", "add", d.path("request.json"), "--dir", dir)
}
