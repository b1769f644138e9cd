package main

import (
	"os"
	"strings"
	"testing"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
)

// TestAttestedFleet brings up a fleet whose machines have UEFI firmware and a TPM and have to prove their boot: real firmware, stub, signer and
// controller, every life attested, in the ledger and to a VPN client that insists on it.
func TestAttestedFleet(t *testing.T) {
	if missing := debian.Missing(tpmNeeds); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	c := newClone(t)
	if code, out := c.run(t, "up", "--tpm"); code != command.OK || !strings.Contains(out, "The fleet is up.") {
		t.Fatalf("up: got exit %d, %q", code, out)
	}
	d := c.open(t)
	d.e.tpm = true
	attested := strings.TrimSpace(strings.Repeat("attested ", len(machines)))
	if got := evidenceOf(t, d); got != attested {
		t.Errorf("got evidence %q, want %q", got, attested)
	}
	before, err := d.servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.rotateNow(t.Context(), "of machines with TPMs"); err != nil {
		t.Fatal(err)
	}
	after, err := d.servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		if a, b := before[m.Name], after[m.Name]; b.State != inventory.Serving || b.Epoch != a.Epoch+1 || b.HostKey == a.HostKey || b.BootID == a.BootID {
			t.Errorf("%s: before %+v, after %+v, want the next life, serving, with new keys", m.Name, a, b)
		}
	}
	if got := evidenceOf(t, d); got != attested {
		t.Errorf("after a rotation: got evidence %q, want %q", got, attested)
	}
	v, err := d.verifyLedger(t.Context(), "--attested")
	if err != nil || v.Wrong != 0 || v.Lives != uint64(2*len(machines)) || v.Attested != v.Lives {
		t.Errorf("the ledger: got %+v, %v, want %d attested lives", v, err, 2*len(machines))
	}
	log := d.e.log("insists")
	client := d.background(d.e.bin("tunnel"), "client", "--config", d.e.fleet("public", "client.json"), "--route", netlab.Targets.String(),
		"--resolv-conf", d.e.path("run", "resolv.conf"), "--require", "attested")
	p, err := d.e.table.Start("insists", client, d.e.lab.Client.Start)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitLine(t.Context(), `"event":"up"`); err != nil {
		t.Errorf("a client that insists on attested servers: %v; %s", err, log)
	}
	if err := p.End(); err != nil {
		t.Error(err)
	}
	// Another TPM in the last machine's place: it is not the inventory's.
	last := machines[len(machines)-1].Name
	d.otherTPM(t, last)
	if _, err := d.rotateNow(t.Context(), "with another TPM in "+last); err == nil {
		t.Error("a machine with another TPM was rebuilt")
	}
	wrong, err := d.servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s := wrong[last]; s.State != inventory.Quarantined || !strings.Contains(s.Cause, "quote_ek_unknown") {
		t.Errorf("got %s, cause %q, want quarantined for quote_ek_unknown", s.State, s.Cause)
	}
	if code, _ := c.run(t, "down"); code != command.OK {
		t.Errorf("down: got exit %d", code)
	}
	c.nothingLeft(t)
}

// otherTPM switches a machine off and puts another TPM into it.
func (d *demo) otherTPM(t *testing.T, name string) {
	t.Helper()
	m, err := d.machineOf(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Off(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := d.e.fleet("machines", name, "tpm")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := endorsementKey(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
}
