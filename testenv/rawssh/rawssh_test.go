package rawssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// serve runs x/crypto's server on one end of a connection, and returns the other.
func serve(t *testing.T, config *ssh.ServerConfig) net.Conn {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if server, channels, requests, err := ssh.NewServerConn(conn, config); err == nil {
			go ssh.DiscardRequests(requests)
			for nc := range channels {
				nc.Reject(ssh.Prohibited, "no")
			}
			server.Close()
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); l.Close(); <-done })
	return conn
}

func TestPassword(t *testing.T) {
	config := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if c.User() == "anna" && string(password) == "right" {
			return nil, nil
		}
		return nil, errors.New("no")
	}}
	c, err := Handshake(serve(t, config), Offer{})
	if err != nil {
		t.Fatal(err)
	}
	if c.HostKey.Type() != ssh.KeyAlgoED25519 || !strings.HasPrefix(c.Version, "SSH-2.0-") {
		t.Errorf("host key %s, version %q", c.HostKey.Type(), c.Version)
	}
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.None("anna"); err != nil || got.Success || strings.Join(got.Methods, " ") != "password" {
		t.Errorf("none: %+v, %v", got, err)
	}
	if got, err := c.Password("anna", "wrong"); err != nil || got.Success {
		t.Errorf("wrong password: %+v, %v", got, err)
	}
	if got, err := c.Password("anna", "right"); err != nil || !got.Success {
		t.Errorf("right password: %+v, %v", got, err)
	}
	// Packets of many lengths still pass after a success: padding and counters are right.
	for n := range 40 {
		if err := c.Write(ssh.Marshal(struct {
			Type  string `sshtype:"80"`
			Reply bool
			Data  []byte `ssh:"rest"`
		}{"odd", true, make([]byte, n)})); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Expect(82); err != nil {
			t.Fatalf("payload of %d: %v", n, err)
		}
	}
}

func TestNoCommonAlgorithm(t *testing.T) {
	conn := serve(t, &ssh.ServerConfig{NoClientAuth: true})
	if _, err := Handshake(conn, Offer{KeyExchanges: []string{"nothing-of-the-kind"}}); err == nil {
		t.Error("keys exchanged")
	}
}

func TestDisconnect(t *testing.T) {
	conn := serve(t, &ssh.ServerConfig{MaxAuthTries: 1, PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
		return nil, errors.New("no")
	}})
	c, err := Handshake(conn, Offer{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Password("anna", "x")
	var bye *Disconnect
	if !errors.As(err, &bye) || bye.Code != 2 || !strings.Contains(bye.Message, "too many") {
		t.Errorf("got %v, want a disconnect", err)
	}
	if _, err := c.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the disconnect: %v", err)
	}
}
