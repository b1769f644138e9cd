package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/policies"
)

// sshdPackages are OpenSSH's server and those libraries of it that a small machine may not have.
var sshdPackages = []string{"openssh-server", "libwrap0", "libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0",
	"libkeyutils1", "libcom-err2", "libnsl2", "libtirpc3"}

// sshdCheck lets sshd look at a configuration, with the user and the directory that the image has, in a mount namespace of its own.
const sshdCheck = `set -e
mount -t tmpfs none /run
mkdir /run/sshd
(grep -v ^sshd: /etc/passwd; echo sshd:x:101:65534::/run/sshd:/bin/false) > /run/passwd
mount --bind /run/passwd /etc/passwd
exec "$1" -t -f "$2"
`

// unpackSSHD gets Debian's sshd without installing it.
func unpackSSHD(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// apt's own sandbox user cannot write here.
	get := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "APT::Sandbox::User=root", "-q", "download"}, sshdPackages...)...)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("downloading sshd: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if out, err := exec.CommandContext(ctx, "dpkg", "-x", f, dir).CombinedOutput(); err != nil {
			t.Fatalf("unpacking %s: %v\n%s", f, err, out)
		}
	}
	return dir
}

// TestSSHDAcceptsConfiguration asks the real sshd whether it would start with what is rendered.
func TestSSHDAcceptsConfiguration(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace with the image's accounts")
	}
	for _, tool := range []string{"apt-get", "dpkg", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s to get Debian's sshd: %v", tool, err)
		}
	}
	root := unpackSSHD(t)
	dir := t.TempDir()
	writeHostKey(t, dir)
	check := func(config []byte) ([]byte, error) {
		file := filepath.Join(dir, "sshd_config")
		if err := os.WriteFile(file, config, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("unshare", "--mount", "/bin/sh", "-c", sshdCheck, "sh", filepath.Join(root, sshdPath), file)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+root+"/usr/lib/x86_64-linux-gnu:"+root+"/lib/x86_64-linux-gnu")
		return cmd.CombinedOutput()
	}
	for _, level := range []policies.Level{policies.PQPreferred, policies.PQOnly} {
		a, err := sshdAlgorithms(policies.Policy{SSH: policies.SSH{Level: level}})
		if err != nil {
			t.Fatal(err)
		}
		s := sshdSettings{listen: netip.MustParseAddr("10.77.0.11"), algorithms: a, dir: dir,
			engineers: []engineer{{name: "ana"}}, bastions: bastionAddresses(testFleet())}
		if out, err := check(sshdConfiguration(s)); err != nil || len(bytes.TrimSpace(out)) != 0 {
			t.Errorf("%s: %v\n%s", level, err, out)
		}
		s.verify = true
		if out, err := check(sshdConfiguration(s)); err != nil || len(bytes.TrimSpace(out)) != 0 {
			t.Errorf("%s, user verification: %v\n%s", level, err, out)
		}
		s.engineers = nil
		if out, err := check(sshdConfiguration(s)); err != nil || len(bytes.TrimSpace(out)) != 0 {
			t.Errorf("%s, nobody granted: %v\n%s", level, err, out)
		}
		// The check can fail: this is what 9.2 says to ML-KEM.
		s.algorithms.KeyExchanges = []string{"mlkem768x25519-sha256"}
		if out, err := check(sshdConfiguration(s)); err == nil {
			t.Errorf("%s: sshd took an algorithm that it does not know\n%s", level, out)
		}
	}
}

func writeHostKey(t *testing.T, dir string) {
	t.Helper()
	k, err := makeKeys("se-1.lab.test")
	if err != nil {
		t.Fatal(err)
	}
	_, caKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ssh.NewSignerFromKey(caKey)
	if err != nil {
		t.Fatal(err)
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.host))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.IssueHost(ca, pub, []string{"se-1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert)))
	if err := hostCertificateOf(k.host, line); err != nil {
		t.Error(err)
	}
	other, err := makeKeys("se-2.lab.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := hostCertificateOf(other.host, line); err == nil {
		t.Error("a host certificate for another key is accepted")
	}
	for name, data := range map[string][]byte{"host_key": k.hostPEM, "host_key-cert.pub": []byte(line + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
