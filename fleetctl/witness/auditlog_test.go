package witness

import (
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/audit"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

// TestAuditLog has this witness cosign an audit log over HTTP as it grows, and refuse it once it was cut off and written anew.
func TestAuditLog(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := trust.FormatKey(signer.PublicKey())
	dir := filepath.Join(t.TempDir(), "audit")
	o := audit.Options{Dir: dir, Key: filepath.Join(t.TempDir(), "audit_key"), Name: "mayfly/lab/bastion/b"}
	l, err := audit.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append("login", 1); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	logKey, err := audit.ReadVerifier(o.Key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	w, err := Open(Options{Trust: &trust.Trust{Witnesses: []trust.Person{{Name: "w1", Keys: []string{key}}}}, Key: signer, State: t.TempDir(),
		Logs: []note.Verifier{logKey}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	server := httptest.NewServer(w.Handler())
	defer server.Close()
	public, err := witness.NewCosigner("w1", key)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan audit.Rejection, 1)
	o.Witnesses = []audit.Witness{{URL: server.URL, Key: public.VerifierKey()}}
	o.OnWitnessRejected = func(r audit.Rejection) { heard <- r }
	cosigner, err := audit.NewWitnessVerifier(public.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	for size := uint64(2); size < 4; size++ { // from nothing, and from what it has cosigned
		if l, err = audit.Open(o); err != nil {
			t.Fatal(err)
		}
		if err := l.Append("login", size); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = audit.Open(o); err != nil {
			t.Fatal(err)
		}
		awaitCosigned(t, dir, size, audit.Trusted{Log: logKey, Witnesses: []note.Verifier{cosigner}})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}

	o.Dir = filepath.Join(t.TempDir(), "anew") // the same key and name, another log
	if l, err = audit.Open(o); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	select {
	case r := <-heard:
		if r.Witness != "w1" || r.Seen != 3 {
			t.Errorf("got %+v, want that it has seen 3 records", r)
		}
	case <-time.After(20 * time.Second):
		t.Error("a log that was written anew is not rejected")
	}
}

func awaitCosigned(t *testing.T, dir string, size uint64, trusted audit.Trusted) {
	t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	var r audit.Report
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-poll.C {
		if r, err = audit.Verify(dir, trusted); err == nil && r.Cosigned[0].Size == size {
			return
		}
	}
	t.Fatalf("not cosigned at %d records: %+v, %v", size, r, err)
}
