package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/testenv/netlab"
	"mayfly/tunnel/checkin"
	"mayfly/tunnel/wire"
)

// identity is what makes a server's life its own, as seen from outside and as the controller's store has it.
type identity struct{ hostKey, tunnelKey, bootID string }

// differs names the first part that two lives share.
func (a identity) differs(b identity) error {
	switch {
	case a.hostKey == b.hostKey:
		return errors.New("the host key is the old one")
	case a.tunnelKey == b.tunnelKey:
		return errors.New("the tunnel key is the old one")
	case a.bootID == b.bootID:
		return errors.New("the boot id is the old one")
	}
	return nil
}

type netAddr = net.Addr

// conn makes a stream through the bastion a net.Conn; the deadline calls are the client's and reach nothing.
type conn struct{ io.ReadWriteCloser }

func (conn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (conn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4zero} }
func (conn) SetDeadline(time.Time) error      { return nil }
func (conn) SetReadDeadline(time.Time) error  { return nil }
func (conn) SetWriteDeadline(time.Time) error { return nil }

// identify asks a server itself who it is, and sees that the store says the same.
func (d *demo) identify(ctx context.Context, server string) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, sshLimit)
	defer cancel()
	var id identity
	out, err := d.ssh(ctx, server, "", "cat /proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("reading the boot id: %w", err)
	}
	id.bootID = strings.TrimSpace(out)
	if id.hostKey, err = d.hostKeyOf(ctx, server); err != nil {
		return id, fmt.Errorf("reading the host key: %w", err)
	}
	if id.tunnelKey, err = d.tunnelKeyOf(ctx, server); err != nil {
		return id, fmt.Errorf("reading the tunnel key: %w", err)
	}
	servers, err := d.servers(ctx)
	if err != nil {
		return id, err
	}
	s := servers[server]
	if stored := (identity{s.HostKey, s.TunnelKey, s.BootID}); stored != id {
		return id, fmt.Errorf("%s says %+v, the store %+v", server, id, stored)
	}
	return id, nil
}

// webFrom is an HTTPS client inside a namespace for one server of the fleet, by name and address.
func webFrom(n netlab.Namespace, from netip.Addr, ca []byte, name, address string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   pki.VerifyName(ca, name),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return n.DialContext(ctx, network, address, from)
		},
	}}
}

// hostKeyOf reads the host key that a server proves to have, through the bastion.
func (d *demo) hostKeyOf(ctx context.Context, server string) (string, error) {
	stream, err := d.throughBastion(ctx, server)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var key string
	_, _, _, err = ssh.NewClientConn(conn{stream}, server, &ssh.ClientConfig{
		User: engineer,
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return nil, errHeld })},
		HostKeyCallback: d.trustCA(server, func(k ssh.PublicKey) {
			key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
		}),
		HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
	})
	if key == "" {
		return "", err
	}
	return key, nil
}

// tunnelKeyOf registers a key that nobody uses, and reads the server's from the answer.
func (d *demo) tunnelKeyOf(ctx context.Context, server string) (string, error) {
	config, err := checkin.LoadConfig(d.clientConfig())
	if err != nil {
		return "", err
	}
	address := ""
	for _, m := range machines {
		if m.Name == server {
			address = netip.MustParsePrefix(m.Address).Addr().String()
		}
	}
	var private [32]byte
	if _, err := rand.Read(private[:]); err != nil {
		return "", err
	}
	public, err := curve25519.X25519(private[:], curve25519.Basepoint)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(wire.Registration{PublicKey: base64.StdEncoding.EncodeToString(public)})
	if err != nil {
		return "", err
	}
	fqdn := server + "." + fleetDomain
	web := webFrom(d.e.lab.Client, netlab.Engineer, []byte(config.CA), fqdn, net.JoinHostPort(address, registerPort))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+fqdn+wire.PathRegister, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxBody))
	if err != nil {
		return "", err
	}
	var session wire.Session
	if err := json.Unmarshal(data, &session); err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("registering: %s: %s", resp.Status, data)
	}
	return session.ServerKey, nil
}
