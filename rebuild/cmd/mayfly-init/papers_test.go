package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// goodPapers are what a stub leaves, as files.
func goodPapers(t *testing.T, ticketAge, releaseAge time.Duration) map[string][]byte {
	t.Helper()
	signer := func(seed byte) ssh.Signer {
		s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	public := func(seed byte) string { return trust.FormatKey(signer(seed).PublicKey()) }
	policy := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 1, Approvers: []trust.Person{{Name: "ana", Keys: []string{public(1)}}},
		TicketKeys: []string{public(2)}, ListKeys: []string{public(3)}}
	trustData, err := policy.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	part := release.Part{Size: 1, SHA256: strings.Repeat("ab", 32)}
	s := release.Statement{Kind: release.Kind, Fleet: "lab", Version: 1, Least: 1, Profile: release.ProfileCloud, NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour),
		MaxAge: int64(releaseAge / time.Second), Kernel: part, Stub: part, Root: part, Cmdline: "quiet", Lock: strings.Repeat("cd", 32), MinPolicy: 1}
	statement, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(statement)
	ca, _, err := pki.NewCA("lab.test", testNow)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ticket.New(ticket.Ticket{Fleet: "lab", Domain: "lab.test", Server: "se-1", Epoch: 1, Release: hex.EncodeToString(sum[:]),
		Mirrors: []string{"http://10.77.0.1:8080/releases/1/"}, Network: ticket.Network{Mode: ticket.Static}, Address: netip.MustParsePrefix("10.77.0.11/24"),
		TPM: ticket.TPMOff, Disks: ticket.DisksRefuse, Controller: "10.77.0.1:8443", Name: "controller.lab.test", CA: string(ca), NotAfter: testNow.Add(time.Minute),
		MaxAge: int64(ticketAge / time.Second), Deadline: testNow.Add(ticketAge)})
	if err != nil {
		t.Fatal(err)
	}
	data, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sshsig.Sign(signer(2), ticket.Namespace, data)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{ticket.TrustFile: trustData, ticket.File: data, ticket.SignatureFile: sig, release.StatementFile: statement}
}

// Papers are believed together or not at all, and the shorter of ticket and release is how long a machine lives.
func TestReadPapers(t *testing.T) {
	read := func(files map[string][]byte) (*papers, error) {
		dir := t.TempDir()
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return readPapers(dir, testNow)
	}
	for _, ages := range [][2]time.Duration{{30 * time.Minute, time.Hour}, {time.Hour, 30 * time.Minute}} {
		p, err := read(goodPapers(t, ages[0], ages[1]))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.lifetime(); got != 30*time.Minute {
			t.Errorf("ticket %s, release %s: lives %s, want the shorter", ages[0], ages[1], got)
		}
	}
	files, other := goodPapers(t, time.Hour, time.Hour), goodPapers(t, time.Hour, 2*time.Hour)
	files[release.StatementFile] = other[release.StatementFile]
	if p, err := read(files); p != nil || codeOf(err) != codeRelease {
		t.Errorf("another release than the ticket's: got %v, %v, want %s", p, err, codeRelease)
	}
	files = goodPapers(t, time.Hour, time.Hour)
	files[ticket.File] = bytes.Replace(files[ticket.File], []byte("se-1"), []byte("se-2"), 1)
	if p, err := read(files); p != nil || codeOf(err) != ticket.Unsigned {
		t.Errorf("an altered ticket: got %v, %v, want %s", p, err, ticket.Unsigned)
	}
}

// What a real machine goes through before it joins, in this order.
func TestStages(t *testing.T) {
	var names []string
	for _, s := range (&boot{}).stages() {
		names = append(names, s.name)
	}
	const want = "mounts, limits, modules, watchdog, probing, papers, network, refusals, packet filter, lockdown, hardening"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("got stages %q, want %q", got, want)
	}
}
