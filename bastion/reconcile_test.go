package bastion

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"mayfly/bastion/reconcile"
	"mayfly/testenv/softkey"
)

// TestReadPassages: what a real bastion writes is what reconciling reads.
func TestReadPassages(t *testing.T) {
	f := newFixture(t)
	peer := make(chan string, 1)
	f.target("10.77.0.11:22", func(conn *net.TCPConn) {
		peer <- conn.RemoteAddr().String()
		echo(conn)
	})
	f.start()
	before := time.Now()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := reconcile.Read(f.config.Audit, before); err != nil || len(list) != 1 || list[0].Via.IsValid() {
		t.Errorf("while it is open: %+v, %v", list, err)
	}
	conn.Close()
	f.hangUp(client)
	closing := f.closing()
	list, err := reconcile.Read(f.config.Audit, before)
	if err != nil || len(list) != 1 {
		t.Fatalf("got %+v, %v", list, err)
	}
	p := list[0]
	if v := closing.Targets[0].Via; p.Via != v || v.Addr().String() != "127.0.0.1" || v.Port() == 0 || v.String() != <-peer {
		t.Errorf("came by %s, the record says %s", p.Via, v)
	}
	if p.Connection != closing.Connection || p.User != "anna" || p.Key != closing.Key || p.Key == "" || p.Server != "se-1" || p.Source != closing.Source || p.Time.Before(before) {
		t.Errorf("got %+v of %+v", p, closing)
	}
	if list, err := reconcile.Read(f.config.Audit, time.Now().Add(time.Hour)); err != nil || len(list) != 0 {
		t.Errorf("of later: %+v, %v", list, err)
	}
	if _, err := reconcile.Read(filepath.Join(f.dir, "none"), before); err == nil {
		t.Error("no log, and no error")
	}
}
