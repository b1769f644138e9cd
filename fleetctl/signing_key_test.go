package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
)

func TestLoadSigner(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte, perm os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, perm); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := ssh.MarshalAuthorizedKey(signer.PublicKey())
	stranger, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := ssh.NewPublicKey(stranger)
	if err != nil {
		t.Fatal(err)
	}

	// An agent that holds key.
	keyring := agent.NewKeyring()
	if err := keyring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "agent.sock")
	listener, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if err := agent.ServeAgent(keyring, conn); err != nil && err != io.EOF {
				t.Errorf("agent: %v", err)
			}
			conn.Close()
		}
	}()
	defer func() { listener.Close(); <-done }()

	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	private := write("private", pem.EncodeToMemory(block), 0o600)
	pub := write("private.pub", public, 0o644)
	// A security key's file, and one with a passphrase, with the public key beside it.
	handle := write("handle", []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"), 0o600)
	write("handle.pub", public, 0o644)
	hidden := write("hidden", pem.EncodeToMemory(locked), 0o600)
	write("hidden.pub", public, 0o644)
	for _, tt := range []struct{ name, path, sock string }{{"private", private, ""}, {"agent", pub, sock}, {"handle", handle, sock}, {"passphrase", hidden, sock}} {
		signer, err := loadSigner(tt.path, tt.sock)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if _, err := sshsig.Sign(signer, "mayfly-test", []byte("message")); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, tt := range []struct{ name, path, sock, want string }{
		{"missing", filepath.Join(dir, "none"), "", "no such file"},
		{"readable by others", write("open", pem.EncodeToMemory(block), 0o644), "", "mode 0644"},
		{"passphrase", write("locked", pem.EncodeToMemory(locked), 0o600), "", "passphrase"},
		{"garbage", write("garbage", []byte("hello"), 0o600), "", "neither"},
		{"pipe", pipe, "", "not a regular file"},
		{"broken", write("broken", []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"), 0o600), "", "reading key"},
		{"handle, no agent", handle, "", "reading key"},
		{"passphrase, agent gone", hidden, filepath.Join(dir, "none.sock"), "passphrase"},
		{"no agent", pub, "", "no ssh-agent"},
		{"agent gone", pub, filepath.Join(dir, "none.sock"), "reaching ssh-agent"},
		{"agent without it", write("stranger.pub", ssh.MarshalAuthorizedKey(strange), 0o644), sock, "does not hold"},
	} {
		_, err := loadSigner(tt.path, tt.sock)
		if err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, hint %q, want %q and a hint", tt.name, err, hint.Of(err), tt.want)
		}
	}
}
