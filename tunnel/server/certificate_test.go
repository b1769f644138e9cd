package server

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/durable"
	"mayfly/internal/pki"
)

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key")
	issue(t, chain, key, "one.fleet.test")
	var log bytes.Buffer
	c, err := loadCertificate(chain, key, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		t.Helper()
		c.looked = time.Time{} // as if lookEvery had passed
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.DNSNames[0]
	}
	if got := name(); got != "one.fleet.test" {
		t.Errorf("got %s", got)
	}
	issue(t, chain, key, "two.fleet.test")
	if got := name(); got != "two.fleet.test" {
		t.Errorf("after a renewal: got %s", got)
	}
	write(t, chain, []byte("rubbish"))
	if got := name(); got != "two.fleet.test" || !strings.Contains(log.String(), "the old one stays") {
		t.Errorf("a bad file: got %s, log %s", got, &log)
	}
	if err := os.Remove(chain); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "two.fleet.test" {
		t.Errorf("no file: got %s", got)
	}
	issue(t, chain, key, "three.fleet.test")
	if got := name(); got != "three.fleet.test" {
		t.Errorf("a good file again: got %s", got)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadCertificate(chain, key, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a key that everybody can read is taken")
	}
	if got := c.tlsConfig(); got.MinVersion != tls.VersionTLS13 || got.CurvePreferences[0] != tls.X25519MLKEM768 {
		t.Errorf("TLS from %x with %v", got.MinVersion, got.CurvePreferences)
	}
}

func issue(t *testing.T, chain, key, name string) {
	t.Helper()
	caPEM, caKey, err := pki.NewCA("test CA", time.Now(), "fleet.test")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(caPEM, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, csrFor, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := csrFor(name)
	if err != nil {
		t.Fatal(err)
	}
	pem, _, err := ca.Issue(csr, name, nil, true, false, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, chain, pem)
	write(t, key, keyPEM)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
