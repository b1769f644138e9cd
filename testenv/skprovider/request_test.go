package skprovider

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/bastion/hardkey"
	"mayfly/policies/enrolment"
)

// program builds bastion-agent without its card part, which FIDO2 keys do not take.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bastion-agent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "mayfly/bastion/cmd/bastion-agent")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// bastion-agent makes of what ssh-keygen wrote a request that a fleet verifies, and does not make one that a fleet would refuse.
func TestRequest(t *testing.T) {
	agent := program(t)
	request := func(d *desk) []string {
		d.write("issuer.pem", string(d.issuer.FIDO.PEM()), 0o600)
		return []string{"enroll", "--fido2", d.path("id.pub"), "--attestation", d.path("id.attestation"), "--challenge", d.path("challenge"),
			"--aaguid", Model.String(), "--test-issuer", d.path("issuer.pem"), "--out", d.path("request.json")}
	}
	for _, kind := range []string{"ed25519-sk", "ecdsa-sk"} {
		t.Run(kind, func(t *testing.T) {
			d := newDesk(t, nil)
			e := d.enrol(kind, "verify-required")
			if out := d.run(agent, request(d)...); !strings.Contains(out, Model.String()) {
				t.Errorf("it does not say what is proved: %s", out)
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
			cmd := d.command(agent, request(d)...)
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), reason) {
				t.Errorf("got %v, want exit 3 and %s:\n%s", err, reason, out)
			}
		})
	}
}
