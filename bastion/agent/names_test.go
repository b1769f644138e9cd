package agent

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// TestNames: a host is named as known_hosts names its key; a certificate counts only by an authority that speaks for the name.
func TestNames(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	host, ca, other := newHostKey(t), newHostKey(t), newHostKey(t)
	key, authority := line(host.PublicKey()), line(ca.PublicKey())
	made := func(change func(*ssh.Certificate)) ssh.PublicKey {
		c := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"se-1.lab"}, ValidBefore: ssh.CertTimeInfinity}
		change(c)
		if err := c.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		return c
	}
	certificate := made(func(*ssh.Certificate) {})
	foreign := certify(t, host.PublicKey(), other, "se-1.lab")
	damaged := *certify(t, host.PublicKey(), ca, "se-1.lab")
	damaged.ValidPrincipals = []string{"se-2.lab"}
	for _, tt := range []struct {
		name  string
		key   ssh.PublicKey
		lines []string
		names []string
		known bool
		text  string
	}{
		{"no file", host.PublicKey(), nil, nil, false, "a host that known_hosts does not have (host key SHA256:"},
		{"names", host.PublicKey(), []string{"10.0.0.1,b.lab,[a.lab]:2222,a.lab " + key}, []string{"a.lab", "b.lab", "10.0.0.1", "[a.lab]:2222"}, true, "a.lab (host key SHA256:"},
		{"hashed", host.PublicKey(), []string{knownhosts.HashHostname("a.lab") + " " + key}, nil, true, "a known host whose name known_hosts hides (host key"},
		{"patterns name nobody", host.PublicKey(), []string{"*.lab,!x.lab " + key}, nil, true, "hides"},
		{"lines that are none", host.PublicKey(), []string{"garbage", "# comment", "a.lab ssh-ed25519 !!", "", "a.lab " + key}, []string{"a.lab"}, true, "a.lab ("},
		{"a name that pretends", host.PublicKey(), []string{"x\u202ey " + key}, []string{"x\u202ey"}, true, `"x\u202ey" (host key`},
		{"another's", host.PublicKey(), []string{"a.lab " + line(other.PublicKey())}, nil, false, "does not have"},
		{"revoked", host.PublicKey(), []string{"a.lab " + key, "@revoked * " + key}, []string{"a.lab"}, true, "a host whose key is revoked (host key"},
		{"an authority's own key is no host", ca.PublicKey(), []string{"@cert-authority * " + authority}, nil, false, "does not have"},
		{"certificate", certificate, []string{"@cert-authority *.lab " + authority}, []string{"se-1.lab"}, true, "se-1.lab (certificate of se-1.lab by SHA256:"},
		{"certificate, with a port", certificate, []string{"@cert-authority [*.lab]:2222 " + authority}, []string{"se-1.lab"}, true, "se-1.lab ("},
		{"certificate, negated", certificate, []string{"@cert-authority *.lab,!se-1.lab " + authority}, nil, false, "its authority does not speak for these names"},
		{"certificate, other names", certificate, []string{"@cert-authority *.prod " + authority}, nil, false, "its authority does not speak for these names"},
		{"certificate, no authority", certificate, []string{"a.lab " + key}, nil, false, "known_hosts has no such authority"},
		{"certificate, foreign", foreign, []string{"@cert-authority * " + authority}, nil, false, "known_hosts has no such authority"},
		{"certificate, damaged", &damaged, []string{"@cert-authority * " + authority}, nil, false, "signature does not verify"},
		{"certificate, revoked authority", certificate, []string{"@cert-authority * " + authority, "@revoked * " + authority}, []string{"se-1.lab"}, true, "is revoked (certificate"},
		{"certificate, revoked key", certificate, []string{"@cert-authority * " + authority, "@revoked * " + key}, []string{"se-1.lab"}, true, "is revoked (certificate"},
		{"certificate of a user", made(func(c *ssh.Certificate) { c.CertType = ssh.UserCert }), []string{"@cert-authority * " + authority}, nil, false, "it is no host's"},
		{"certificate without names", made(func(c *ssh.Certificate) { c.ValidPrincipals = nil }), []string{"@cert-authority * " + authority}, nil, false, "it names nobody"},
		{"certificate, expired", made(func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Unix()) }), []string{"@cert-authority * " + authority}, nil, false, "expired"},
		{"certificate, critical option", made(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": ""} }), []string{"@cert-authority * " + authority}, nil, false, "critical option"},
		{"certificate, many names", made(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"a", "b", "c", "d", "e"} }), []string{"@cert-authority e " + authority}, []string{"e"}, true, "e (certificate of a/b/c/… (5) by"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := knownHosts{now: func() time.Time { return now }, files: []string{"/nonexistent"}}
			if tt.lines != nil {
				k.files = append(k.files, writeKnownHosts(t, tt.lines...))
			}
			h := k.resolve(tt.key)
			if !slices.Equal(h.Names, tt.names) || h.Known != tt.known || !strings.Contains(h.String(), tt.text) {
				t.Errorf("got %q, known %v: %s", h.Names, h.Known, h)
			}
			if h.Revoked != strings.Contains(tt.name, "revoked") {
				t.Errorf("revoked %v", h.Revoked)
			}
		})
	}
}

// TestKnownHostsAreBounded: a file beyond the bound names nobody, and takes no memory.
func TestKnownHostsAreBounded(t *testing.T) {
	host := newHostKey(t)
	path := filepath.Join(t.TempDir(), "known_hosts")
	write(t, path, "a.lab "+line(host.PublicKey())+"\n", 0o600)
	if err := os.Truncate(path, maxKnownHosts+1); err != nil {
		t.Fatal(err)
	}
	if h := (knownHosts{[]string{path}, time.Now}).resolve(host.PublicKey()); h.Known {
		t.Errorf("got %s", h)
	}
}
