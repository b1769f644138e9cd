package attest

import (
	"os"
	"strings"
	"testing"

	"mayfly/rebuild/join"
)

// TestDocs: the page has every reason.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/attestation.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{
		Missing, EKMalformed, EKUnknown, AKRefused, SecretWrong, Malformed, BadSignature, NonceWrong, NotRestarted, LogRefused, Release, Firmware, Driver, Image, Cmdline,
		join.ChallengeUnknown, join.ChallengeExpired, join.ChallengeOther, join.ChallengeLimit,
	} {
		if !strings.Contains(string(page), "\n| `"+reason+"` |") {
			t.Errorf("docs/formats/attestation.md has no %s", reason)
		}
	}
}
