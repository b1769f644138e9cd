package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Times of the measurements with many connections.
const (
	warmLogins  = time.Second
	parallelMax = 16
)

// idle measures what an authenticated connection that does nothing keeps resident. The peer is measured once as well; sshd, with two
// processes a connection, is not in this class.
func (b *bastionBench) idle(ctx context.Context) error {
	got := map[string][]float64{}
	for _, s := range []sshServer{ownServer{}, bareServer{}} {
		err := b.once(ctx, s, limits{}, func(ctx context.Context, r *running) error {
			if _, err := r.logins(ctx, warmLogins); err != nil {
				return err
			}
			if err := wait(ctx, b.Settle); err != nil {
				return err
			}
			before, err := r.resident()
			if err != nil {
				return err
			}
			clients, err := r.open(ctx, b.Idle)
			defer func() {
				for _, c := range clients {
					c.Close()
				}
			}()
			if err != nil {
				return err
			}
			if err := wait(ctx, b.Settle); err != nil {
				return err
			}
			after, err := r.resident()
			if err != nil {
				return err
			}
			// They must all still be there: a server that drops connections would win.
			for _, c := range clients {
				if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
					return fmt.Errorf("a connection was lost: %w", err)
				}
			}
			kib := (after - before) / float64(b.Idle)
			got[r.name()] = append(got[r.name()], kib)
			fmt.Fprintf(b.Log, "idle: %s: %.1f KiB for each of %d connections, from %.0f MiB\n", r.name(), kib, b.Idle, before/1024)
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
	}
	b.results = append(b.results, paired("idle_kib", "KiB", xcrypto, got["mayfly"], got[xcrypto], true))
	return nil
}

// open opens so many connections and leaves them open. What was opened is returned with an error as well.
func (r *running) open(ctx context.Context, n int) ([]*ssh.Client, error) {
	var mu sync.Mutex
	var clients []*ssh.Client
	var errs []error
	next := make(chan int)
	var group sync.WaitGroup
	for range parallelMax {
		group.Go(func() {
			for i := range next {
				c, err := r.login(ctx, i%engineers, netip.Addr{})
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else {
					clients = append(clients, c)
				}
				mu.Unlock()
			}
		})
	}
	for i := range n {
		mu.Lock()
		failed := len(errs) > 0
		mu.Unlock()
		if failed {
			break
		}
		next <- i
	}
	close(next)
	group.Wait()
	return clients, errors.Join(errs...)
}

// halfOpen measures how long a listed engineer's login takes while many connections stand open that never say a word: from one
// source, and from many. The policy's limits are the usual ones.
func (b *bastionBench) halfOpen(ctx context.Context) error {
	for _, c := range []struct {
		name string
		from func(i int) netip.Addr
	}{
		{"halfopen_one", func(int) netip.Addr { return crowdAddress(1) }},
		{"halfopen_many", crowdAddress},
	} {
		var took []float64
		for range b.Pairs {
			err := b.once(ctx, ownServer{}, limits{usual: true}, func(ctx context.Context, r *running) error {
				stop := r.flood(ctx, b.HalfOpen, c.from)
				defer stop()
				began := time.Now()
				client, err := r.login(ctx, 0, netip.Addr{})
				if err != nil {
					return fmt.Errorf("%s: a listed engineer could not log in: %w", c.name, err)
				}
				seconds := time.Since(began).Seconds()
				took = append(took, seconds)
				fmt.Fprintf(b.Log, "%s: logged in after %.3f s\n", c.name, seconds)
				return client.Close()
			})
			if err != nil {
				return err
			}
		}
		b.results = append(b.results, Result{Name: c.name, Unit: "s", Ours: median(took)})
	}
	return nil
}

// crowdAddress is an address of the crowd: a thousand sources.
func crowdAddress(i int) netip.Addr {
	i = i%1000 + 1
	return netip.AddrFrom4([4]byte{10, 78, byte(i / 250), byte(i%250 + 1)})
}

// flood opens so many connections that say nothing, and goes on replacing those that the server closes until it is stopped. It returns
// when so many have been opened.
func (r *running) flood(ctx context.Context, n int, from func(i int) netip.Addr) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var opened, group sync.WaitGroup
	opened.Add(parallelMax)
	var mu sync.Mutex
	held := map[net.Conn]bool{}
	for worker := range parallelMax {
		group.Go(func() {
			first := true
			for i := worker; ctx.Err() == nil; i += parallelMax {
				if first && i >= n {
					first = false
					opened.Done()
				}
				if i >= n && wait(ctx, 10*time.Millisecond) != nil { // an attacker who has all of them open comes back for more
					break
				}
				conn, err := r.dial(ctx, from(i))
				if err != nil {
					continue
				}
				mu.Lock()
				held[conn] = true
				for old := range held { // bounded: those that the server closed are found out by and by
					if len(held) <= n {
						break
					}
					delete(held, old)
					old.Close()
				}
				mu.Unlock()
			}
			if first {
				opened.Done()
			}
		})
	}
	opened.Wait()
	return func() {
		cancel()
		group.Wait()
		for conn := range held {
			conn.Close()
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
