package uki

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestVariableFile(t *testing.T) {
	for v, want := range map[Variable]string{
		PK: "PK-8be4df61-93ca-11d2-aa0d-00e098032b8c",
		DB: "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f",
	} {
		if got := v.File(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Debian's efitools reads our lists, and signs an update as we do.
func TestEnrolPeers(t *testing.T) {
	if _, err := exec.LookPath("sig-list-to-certs"); err != nil {
		t.Skip("SKIPPED: sig-list-to-certs is not installed (Debian: efitools)")
	}
	fleet := own(t, "fleet")
	dir := t.TempDir()
	list := SignatureList("demo", fleet.certificate)
	path := filepath.Join(dir, "db.esl")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sig-list-to-certs", path, filepath.Join(dir, "out")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "out-0.der"))
	if err != nil || !bytes.Equal(got, fleet.certificate.Raw) {
		t.Errorf("the list holds %d bytes of certificate (%v), want %d", len(got), err, len(fleet.certificate.Raw))
	}
}

func TestSignedUpdate(t *testing.T) {
	fleet, stranger := own(t, "fleet"), own(t, "stranger")
	list := SignatureList("demo", fleet.certificate)
	at := time.Date(2026, 11, 20, 18, 30, 5, 999, time.FixedZone("x", 3600))
	update, err := SignedUpdate(DB, list, fleet.key, fleet.certificate, at)
	if err != nil {
		t.Fatal(err)
	}
	again, err := SignedUpdate(DB, list, fleet.key, fleet.certificate, at)
	if err != nil || !bytes.Equal(update, again) {
		t.Error("the same update has other bytes")
	}
	if want := []byte{0xea, 0x07, 11, 20, 17, 30, 5, 0}; !bytes.HasPrefix(update, want) {
		t.Errorf("begins with % x, want the date in UTC % x", update[:8], want)
	}
	if !bytes.HasSuffix(update, list) {
		t.Error("does not end with the list")
	}
	if _, err := SignedUpdate(DB, list, stranger.key, fleet.certificate, at); err == nil {
		t.Error("signed with the key of another certificate")
	}
	if _, err := SignedUpdate(DB, list, fleet.key, fleet.certificate, time.Time{}); err == nil {
		t.Error("signed without a date")
	}
}
