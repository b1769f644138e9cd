package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/softkey"
)

// Clients of the measurements.
const (
	parallelLogins = 16
	loginLimit     = 20 * time.Second
	cipherUsed     = "aes256-gcm@openssh.com"
)

// login opens an authenticated connection with the lab's key i: a software key of a hardware key's type.
func (r *running) login(ctx context.Context, i int, from netip.Addr) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	conn, err := r.lab.dial(ctx, from)
	if err != nil {
		return nil, err
	}
	config := &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: r.keyExchanges(), Ciphers: []string{cipherUsed}},
		User:              r.user(i),
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(r.lab.keys[i].Signer(softkey.Always))},
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		HostKeyCallback:   ssh.FixedHostKey(r.lab.hostKey.PublicKey()),
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c, channels, requests, err := ssh.NewClientConn(conn, serverAddress, config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("logging in at %s: %w", r.name(), err), conn.Close())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return ssh.NewClient(c, channels, requests), nil
}

// logins opens and closes connections for a time, several at once, and returns how many were opened.
func (r *running) logins(ctx context.Context, d time.Duration) (int, error) {
	var done atomic.Int64
	var group sync.WaitGroup
	failed := make(chan error, parallelLogins)
	until := time.Now().Add(d)
	for i := range parallelLogins {
		group.Go(func() {
			for time.Now().Before(until) {
				client, err := r.login(ctx, i%engineers, netip.Addr{})
				if err != nil {
					failed <- err
					return
				}
				done.Add(1)
				client.Close() // the server may have been first
			}
		})
	}
	group.Wait()
	close(failed)
	return int(done.Load()), <-failed
}

// handshakes measures logins for each CPU-second of the server.
func (b *bastionBench) handshakes(ctx context.Context) error {
	got := map[string][]float64{}
	err := b.alternate(ctx, "handshakes", []sshServer{ownServer{}, bareServer{}, openSSHServer{}}, func(ctx context.Context, r *running) error {
		if _, err := r.logins(ctx, 500*time.Millisecond); err != nil { // whatever is done once
			return err
		}
		stop, err := b.profiled(ctx, r, "handshakes")
		if err != nil {
			return err
		}
		before, err := r.cpu()
		if err != nil {
			return err
		}
		n, err := r.logins(ctx, time.Duration(b.Seconds)*time.Second)
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		after, err := r.cpu()
		if err != nil {
			return err
		}
		if after <= before {
			return errors.New("the server used no CPU time")
		}
		rate := float64(n) / (after - before)
		got[r.name()] = append(got[r.name()], rate)
		fmt.Fprintf(b.Log, "handshakes: %s: %d in %d s, %.0f for each core-second\n", r.name(), n, b.Seconds, rate)
		return nil
	})
	if err != nil {
		return err
	}
	for _, peer := range []string{openSSH, xcrypto} {
		b.results = append(b.results, paired("handshakes", "logins/core-s", peer, got["mayfly"], got[peer], false))
	}
	return nil
}
