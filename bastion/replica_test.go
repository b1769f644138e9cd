package bastion

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/testenv/softkey"
)

// keeper is what a controller does with a bastion's records, behind what brings them there.
type keeper struct {
	t   *testing.T
	dir string

	mu   sync.Mutex
	copy *audit.Copy
	away bool
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		http.Error(w, "the controller\x1b is away", http.StatusBadGateway)
		return
	}
	var b audit.Batch
	err := json.NewDecoder(r.Body).Decode(&b)
	machine, herr := os.Hostname()
	if err == nil && k.copy == nil {
		err = herr
	}
	if err == nil && k.copy == nil {
		k.copy, err = audit.OpenCopy(k.dir, b.Log, audit.LogName("mayfly", "lab", "bastion", machine, "7"))
	}
	var kept audit.Kept
	if err == nil {
		kept, err = k.copy.Take(b)
	}
	if err == nil {
		err = json.NewEncoder(w).Encode(kept)
	}
	if err != nil {
		k.t.Error(err)
	}
}

func (k *keeper) set(away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = away
}

func (k *keeper) events() map[string]int {
	k.t.Helper()
	found := map[string]int{}
	_, err := audit.Read(k.dir, 0, func(_ uint64, text []byte) error {
		e, err := audit.ParseEntry(text)
		found[e.Event]++
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return found
}

// TestReplicaDecides lets nobody in whose record did not leave the machine; who is in goes on, and is recorded there in the end.
func TestReplicaDecides(t *testing.T) {
	f := newFixture(t)
	k := &keeper{t: t, dir: filepath.Join(t.TempDir(), "copy")}
	server := httptest.NewServer(k)
	t.Cleanup(func() { // when the bastion has ended
		server.Close()
		if err := k.copy.Close(); err != nil {
			t.Error(err)
		}
	})
	f.config.AuditReplica, f.config.AuditLife = server.URL, 7
	f.target("10.77.0.11:22", echo)
	f.start()
	await(t, "the replica answers", func() bool { return f.server.audit.Healthy() == nil })

	in := f.login("anna", f.anna.Signer(softkey.Always))
	conn, err := in.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	if got := k.events(); got[eventLogin] != 1 || got[eventTarget] != 1 {
		t.Errorf("before the first byte the replica has %v", got)
	}
	k.set(true)
	if _, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
		t.Error("somebody got in whom only this machine knows of")
	}
	if r := f.closing(); r.Reason != auditUnavailable || r.Outcome != "refused" {
		t.Errorf("got %+v, want %s", r, auditUnavailable)
	}
	if _, err := conn.Write([]byte("still there")); err != nil {
		t.Errorf("who was in is cut: %v", err)
	}
	got := make([]byte, len("still there"))
	if _, err := conn.Read(got); err != nil || string(got) != "still there" {
		t.Errorf("who was in reads %q, %v", got, err)
	}
	in.Close()
	if r := f.closing(); r.Outcome != "accepted" {
		t.Errorf("got %+v", r)
	}
	if got := k.events(); got[eventConnection] != 0 {
		t.Errorf("while it was away the replica got %v", got)
	}
	k.set(false)
	await(t, "the closing records are at the replica", func() bool { return k.events()[eventConnection] >= 1 && f.server.audit.Healthy() == nil })
	f.login("anna", f.anna.Signer(softkey.Always)).Close()
	f.closing()
	if got := k.events(); got[eventLogin] < 2 {
		t.Errorf("afterwards: %v", got)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
