package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// The account of the test, which sshdServe has, and the bastion's address.
const (
	rogueUser = "mayfly-test-ana"
	rogueUID  = 54322
	rogueFrom = "127.0.0.2"
)

// behindBastion is a real sshd with the rendered configuration, whose one engineer comes through a bastion at rogueFrom, and what that
// bastion has: its address, its host key, its certificate.
type behindBastion struct {
	*realSSHD
	ana     *softkey.Key
	hostKey ssh.Signer // the bastion's
	ca      ssh.PublicKey
	reports *loginReports
}

func newBehindBastion(t *testing.T) *behindBastion {
	b := &behindBastion{realSSHD: newRealSSHD(t), hostKey: testSigner(t)}
	var err error
	if b.ana, err = softkey.New(rand.Reader); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(b.dir, "host_key-cert.pub"))
	if err != nil {
		t.Fatal(err)
	}
	cert, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		t.Fatal(err)
	}
	b.ca = cert.(*ssh.Certificate).SignatureKey
	from := []netip.Addr{netip.MustParseAddr(rogueFrom)}
	who := engineer{name: rogueUser, keys: []string{b.ana.Authorized()}}
	b.write("authorized_keys/"+rogueUser, authorizedKeys(who, from))
	b.write("revoked_keys", policies.Revocations{}.Bytes())
	a, err := sshdAlgorithms(policies.Policy{SSH: policies.SSH{Level: policies.PQPreferred}})
	if err != nil {
		t.Fatal(err)
	}
	b.reports = &loginReports{now: time.Now, wake: func() {}}
	r, w := io.Pipe()
	b.heard = w
	var reading sync.WaitGroup
	reading.Go(func() { b.reports.take(r) })
	t.Cleanup(func() { w.Close(); reading.Wait() })
	b.start(sshdConfiguration(sshdSettings{listen: netip.MustParseAddr("127.0.0.1"), algorithms: a, dir: b.dir, engineers: []engineer{who}, bastions: from}))
	return b
}

func testSigner(t *testing.T) ssh.Signer {
	t.Helper()
	k, err := makeKeys("x")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.ParsePrivateKey(k.hostPEM)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial connects to the server from an address of the loopback network.
func (b *behindBastion) dial(from string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return d.Dial("tcp", b.address)
}

// try logs in from an address with these methods, and asks for a command.
func (b *behindBastion) try(from, user string, methods ...ssh.AuthMethod) (*ssh.Client, error) {
	conn, err := b.dial(from)
	if err != nil {
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, b.address, &ssh.ClientConfig{User: user, Auth: methods, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// relay is the jump of a bastion, honest or not: each connection is carried by carry, or answered by nobody but it.
func (b *behindBastion) relay(carry func(client, server net.Conn)) string {
	b.t.Helper()
	l, err := net.Listen("tcp", rogueFrom+":0")
	if err != nil {
		b.t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer client.Close()
				server, err := b.dial(rogueFrom)
				if err != nil {
					return
				}
				defer server.Close()
				carry(client, server)
			})
		}
	})
	b.t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// copyBoth carries bytes both ways; each direction passes through change.
func copyBoth(client, server net.Conn, change func(fromServer bool, at int64, data []byte)) {
	var both sync.WaitGroup
	way := func(to, from net.Conn, fromServer bool) {
		buffer := make([]byte, 32<<10)
		var at int64
		for {
			n, err := from.Read(buffer)
			change(fromServer, at, buffer[:n])
			at += int64(n)
			if _, werr := to.Write(buffer[:n]); err != nil || werr != nil {
				to.Close()
				from.Close()
				return
			}
		}
	}
	both.Go(func() { way(client, server, true) })
	both.Go(func() { way(server, client, false) })
	both.Wait()
}

// openSSH runs the machine's ssh to the server by way of address, with the engineer's agent, the host CA and nothing else to believe.
func (b *behindBastion) openSSH(address string, args ...string) (stdout, stderr string, err error) {
	b.t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("known_hosts", fmt.Appendf(nil, "@cert-authority * %s", ssh.MarshalAuthorizedKey(b.ca)))
	dir, err := os.MkdirTemp("", "mf-rogue-") // a socket's path is short
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := softkey.Listen(filepath.Join(dir, "agent"))
	if err != nil {
		b.t.Fatal(err)
	}
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- softkey.NewAgent(b.ana.Signer(softkey.Always)).Serve(serving, l) }()
	defer func() { stop(); <-served }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", append([]string{"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + filepath.Join(b.dir, "known_hosts"),
		"-o", "GlobalKnownHostsFile=none", "-o", "HostKeyAlias=se-1", "-o", "IdentityAgent=" + filepath.Join(dir, "agent"), "-o", "ServerAliveInterval=2", "-l", rogueUser, "-p", port, host}, args...)...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err = cmd.Run()
	return out.String(), talk.String(), err
}

// TestRogueBastion: who has taken a bastion over, with its address and its host key, opens no server, is not taken for one, and cannot
// change what an engineer and a server say to each other. Neither needs an agent on the way.
func TestRogueBastion(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("no OpenSSH client on this machine: apt-get install openssh-client")
	}
	b := newBehindBastion(t)
	other, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &ssh.Certificate{Key: b.hostKey.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{rogueUser}, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, b.hostKey); err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(certificate, b.hostKey)
	if err != nil {
		t.Fatal(err)
	}
	engineerKey := ssh.PublicKeys(b.ana.Signer(softkey.Always))
	anything := ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
		return make([]string, len(questions)), nil
	})
	for _, tt := range []struct {
		name, from, user string
		method           []ssh.AuthMethod
	}{
		{"the bastion's host key", rogueFrom, rogueUser, []ssh.AuthMethod{ssh.PublicKeys(b.hostKey)}},
		{"a certificate that the bastion made itself", rogueFrom, rogueUser, []ssh.AuthMethod{ssh.PublicKeys(certified)}},
		{"a hardware key that is nobody's", rogueFrom, rogueUser, []ssh.AuthMethod{ssh.PublicKeys(other.Signer(softkey.Always))}},
		{"the engineer's key, not touched", rogueFrom, rogueUser, []ssh.AuthMethod{ssh.PublicKeys(b.ana.Signer(softkey.Never))}},
		{"no key", rogueFrom, rogueUser, nil},
		{"a password", rogueFrom, rogueUser, []ssh.AuthMethod{ssh.Password(""), anything}},
		{"root", rogueFrom, "root", []ssh.AuthMethod{engineerKey}},
		{"another account", rogueFrom, "deploy", []ssh.AuthMethod{engineerKey}},
		{"the engineer's key, from elsewhere", "127.0.0.3", rogueUser, []ssh.AuthMethod{engineerKey}},
	} {
		if c, err := b.try(tt.from, tt.user, tt.method...); err == nil {
			c.Close()
			t.Errorf("%s opens the server", tt.name)
		}
	}
	if got := b.reports.after(0); len(got) != 0 {
		t.Errorf("logins without a login: %+v", got)
	}

	// An honest jump, for comparison: the engineer gets in, the server says so, and no agent follows.
	honest := b.relay(func(c, s net.Conn) { copyBoth(c, s, func(bool, int64, []byte) {}) })
	out, talk, err := b.openSSH(honest, "-A", "--", "echo one day ${SSH_AUTH_SOCK-without an agent}")
	if err != nil || out != "one day without an agent\n" || talk != "" {
		t.Fatalf("got %q, %v\n%s", out, err, talk)
	}
	reported := b.reports.after(0)
	if len(reported) != 1 {
		t.Fatalf("reported %+v", reported)
	}
	if r := reported[0]; r.User != rogueUser || r.Method != "publickey" || r.Key != ssh.FingerprintSHA256(b.ana.Public()) || r.Peer.Addr().String() != rogueFrom || r.Check() != nil {
		t.Errorf("reported %+v, %v", r, r.Check())
	}

	// One changed bit, on either way, at any place after the greeting.
	for _, fromServer := range []bool{true, false} {
		for _, place := range []int64{1500, 2500, 3500} {
			flipped := b.relay(func(c, s net.Conn) {
				copyBoth(c, s, func(way bool, at int64, data []byte) {
					if way == fromServer && at <= place && place < at+int64(len(data)) {
						data[place-at] ^= 1
					}
				})
			})
			out, talk, err := b.openSSH(flipped, "--", "head -c 100000 /dev/zero | tr '\\0' x; sleep 1; echo one day")
			if err == nil {
				t.Errorf("bit %d changed, from the server %v: the session went on: %d bytes\n%s", place, fromServer, len(out), talk)
			}
			if strings.Trim(out, "x") != "" {
				t.Errorf("bit %d changed, from the server %v: the engineer reads %.60q", place, fromServer, strings.Trim(out, "x"))
			}
		}
	}

	// The bastion itself, in the server's place: with its own key and certificate.
	mine := &ssh.Certificate{Key: b.hostKey.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"b1", "b1.lab.test"}, ValidBefore: ssh.CertTimeInfinity}
	if err := mine.SignCert(rand.Reader, b.hostKey); err != nil {
		t.Fatal(err)
	}
	shown, err := ssh.NewCertSigner(mine, b.hostKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]ssh.Signer{"its key": b.hostKey, "its certificate": shown} {
		asked := false
		posing := b.relay(func(c, _ net.Conn) {
			config := &ssh.ServerConfig{NoClientAuth: true, NoClientAuthCallback: func(ssh.ConnMetadata) (*ssh.Permissions, error) {
				asked = true
				return nil, errors.New("no")
			}}
			config.AddHostKey(key)
			_, _, _, _ = ssh.NewServerConn(c, config)
		})
		if _, talk, err := b.openSSH(posing, "true"); err == nil || !strings.Contains(talk, "verification failed") || asked {
			t.Errorf("the bastion with %s is taken for the server (%v, asked for a key: %v)\n%s", name, err, asked, talk)
		}
	}
}

// TestRevocationOnServer: once somebody is no longer granted, the live session on the server ends, and no new one begins.
func TestRevocationOnServer(t *testing.T) {
	b := newBehindBastion(t)
	key := ssh.PublicKeys(b.ana.Signer(softkey.Always))
	client, err := b.try(rogueFrom, rogueUser, key)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("echo in; (sleep 600 &) ; sleep 600"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	before := []engineer{{name: rogueUser, keys: []string{b.ana.Authorized()}}}
	began := time.Now()
	if err := writeAuthorizedKeys(filepath.Join(b.dir, "authorized_keys"), nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range lostAccess(before, nil) {
		if err := cutUser(name, rogueUID); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Wait(); err == nil {
		t.Error("the session ended as if nothing had happened")
	}
	t.Logf("the session ended %s after the policy was applied", time.Since(began).Round(time.Millisecond))
	if pids, err := processesOf(os.DirFS("/proc"), rogueUID); err != nil || len(pids) != 0 {
		t.Errorf("left over: %v, %v", pids, err)
	}
	if c, err := b.try(rogueFrom, rogueUser, key); err == nil {
		c.Close()
		t.Error("a new login after the revocation")
	}
}
