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
	parallelLogins = 64
	loginLimit     = 20 * time.Second
	loginTurn      = 1500 * time.Millisecond
	lastRecord     = 150 * time.Millisecond // for what a server does once its clients have left: it counts as well
	cipherUsed     = "aes256-gcm@openssh.com"
)

// login opens an authenticated connection with the lab's key i: a software key of a hardware key's type.
func (r *running) login(ctx context.Context, i int, from netip.Addr) (_ *ssh.Client, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	conn, err := r.dial(ctx, from)
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

// handshakes measures logins for each CPU-second of the server. The servers of a pair run side by side and have their turns: what else the
// machine does falls on all of them.
func (b *bastionBench) handshakes(ctx context.Context) error {
	got := map[string][]float64{}
	for i := range b.Pairs {
		if err := b.inTurns(ctx, []sshServer{ownServer{}, bareServer{}, openSSHServer{}}, got); err != nil {
			return fmt.Errorf("pair %d: %w", i+1, err)
		}
		fmt.Fprintf(b.Log, "handshakes: pair %d of %d done\n", i+1, b.Pairs)
	}
	for _, peer := range []string{openSSH, xcrypto} {
		b.results = append(b.results, paired("handshakes", "logins/core-s", peer, got["mayfly"], got[peer], false))
	}
	return nil
}

// inTurns is one pair.
func (b *bastionBench) inTurns(ctx context.Context, servers []sshServer, got map[string][]float64) (err error) {
	var turns []*loginTurns
	for _, s := range servers {
		r, serr := b.lab.start(ctx, s, limits{})
		if serr != nil {
			return serr
		}
		defer func() { err = errors.Join(err, r.end()) }()
		if _, err := r.logins(ctx, 500*time.Millisecond); err != nil { // whatever is done once
			return err
		}
		stop, perr := b.profiled(ctx, r, "handshakes")
		if perr != nil {
			return perr
		}
		defer func() { err = errors.Join(err, stop()) }()
		turns = append(turns, &loginTurns{server: r})
	}
	for n := range turnsOf(b.Seconds) {
		for i := range turns {
			if n%2 == 1 {
				i = len(turns) - 1 - i
			}
			if err := turns[i].take(ctx); err != nil {
				return err
			}
		}
	}
	for _, t := range turns {
		if t.cpu <= 0 {
			return errors.New("the server used no CPU time")
		}
		rate := float64(t.logins) / t.cpu
		got[t.server.name()] = append(got[t.server.name()], rate)
		fmt.Fprintf(b.Log, "handshakes: %s: %d in %d s, %.0f for each core-second\n", t.server.name(), t.logins, b.Seconds, rate)
	}
	return nil
}

// turnsOf is how many turns are so many seconds: each has two of our log's checkpoints, which come once a second.
func turnsOf(seconds int) int { return max(1, int(time.Duration(seconds)*time.Second/loginTurn)) }

// loginTurns are one server's turns so far.
type loginTurns struct {
	server *running
	logins int
	cpu    float64
}

func (t *loginTurns) take(ctx context.Context) error {
	before, err := t.server.cpu()
	if err != nil {
		return err
	}
	n, err := t.server.logins(ctx, loginTurn)
	if err != nil {
		return err
	}
	time.Sleep(lastRecord)
	after, err := t.server.cpu()
	if err != nil {
		return err
	}
	t.logins += n
	t.cpu += after - before
	return nil
}
