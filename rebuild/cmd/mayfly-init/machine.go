package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"

	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
)

// Bounds of a running machine.
const (
	policyLook = 5 * time.Second // how often the policy's expiry is looked at
	drainLook  = 250 * time.Millisecond
	drainGrace = 5 * time.Second // for the tunnel's own last word
)

// machine is a server that has joined.
type machine struct {
	con    *console
	papers *papers
	keys   *keys
	client *join.Client
	sup    *supervisor
	tunnel *tunnelClient
	gate   *gate // nil unless this server is a bastion
	end    func(why string)
	told   *warnings

	restart func(why string) // ends the machine as end does, and has it start anew

	logins  *loginReports
	changed chan struct{} // one place: something in the health may have changed
	doubt   chan struct{} // one place: the controller cuts streams, is this life still good?

	policy sync.Mutex // held over each change of policy; guards the next eight
	bundle *bundle.Bundle
	data   []byte
	users  accounts
	here   []engineer
	lost   []string // who lost access and has not been cut yet
	sshd   []byte
	span   span
	orders map[string]bool // nonces of those that were carried out

	mu       sync.Mutex // guards the rest
	certs    join.Certificates
	pair     tls.Certificate
	got      time.Time
	renewed  chan struct{} // closed when certs are replaced
	draining bool
	drained  *join.Drained
}

func (m *machine) poke() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *machine) pairNow() (tls.Certificate, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pair, m.renewed
}

// health is what the controller is told.
func (m *machine) health() (join.Health, *join.Drained) {
	states, ready := m.sup.all()
	m.mu.Lock()
	defer m.mu.Unlock()
	return join.Health{BootID: m.keys.bootID, Ready: ready, Services: states, Draining: m.draining, Warnings: m.told.all()}, m.drained
}

// setCertificates writes what programs read and remembers what the stream uses.
func (m *machine) setCertificates(c join.Certificates, now time.Time) error {
	pair, err := checkCertificates(m.keys, c)
	if err != nil {
		return err
	}
	m.shownLife(c.Ledger)
	if m.gate != nil {
		err = m.gate.certificate(c.Host)
	} else {
		err = errors.Join(writeOwned(tunnelChain, c.TLS, 0o644, tunnelUID), durable.WriteFile(hostCert, []byte(c.Host+"\n"), 0o644))
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.certs, m.pair, m.got = c, pair, now
	if m.renewed != nil {
		close(m.renewed)
		if m.gate != nil {
			m.gate.link.Renewed()
		}
	}
	m.renewed = make(chan struct{})
	return nil
}

// writeKeys puts the private keys where their programs read them.
func (m *machine) writeKeys() error {
	if m.gate != nil {
		return m.gate.key(m.keys.hostPEM)
	}
	if err := durable.WriteFile(hostKeyFile, m.keys.hostPEM, 0o600); err != nil {
		return err
	}
	if err := writeOwned(tunnelTLSKey, m.keys.tlsPEM, 0o600, tunnelUID); err != nil {
		return err
	}
	return writeOwned(tunnelKey, m.keys.tunnel, 0o600, tunnelUID)
}

// writeOwned writes a file for a program that is not root's. It has its owner before it has its name.
func writeOwned(path string, data []byte, mode os.FileMode, uid int) error {
	temp := filepath.Join(runDir, "."+filepath.Base(path))
	if err := durable.WriteFile(temp, data, mode); err != nil {
		return err
	}
	if err := os.Chown(temp, uid, uid); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// keepCertificates renews at half life while the machine lives. A life that is revoked or unknown ends the machine.
func (m *machine) keepCertificates(ctx context.Context) {
	for ctx.Err() == nil {
		m.mu.Lock()
		at, pair, chain := renewAt(m.got, m.certs.NotAfter), m.pair, m.certs.TLS
		m.mu.Unlock()
		if !m.untilRenewal(ctx, at) {
			return
		}
		for pause := firstRenewPause; ; pause = min(2*pause, maxRenewPause) {
			err := m.renewOnce(ctx, pair, chain)
			if err == nil {
				break
			}
			if r, ok := join.IsRefusal(err); ok && (r.Reason == join.LifeRevoked || r.Reason == join.LifeUnknown) {
				m.end(r.Reason)
				return
			}
			if !sleep(ctx, jitter(pause)) {
				return
			}
		}
	}
}

// untilRenewal waits for the time, or for a doubt, which a renewal settles: an answer to it says why streams are cut.
func (m *machine) untilRenewal(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-m.doubt:
	case <-t.C:
	}
	return true
}

func (m *machine) renewOnce(ctx context.Context, pair tls.Certificate, chain []byte) error {
	c, err := renew(ctx, m.client, m.keys, pair, chain)
	if err != nil {
		return err
	}
	if err := m.setCertificates(c, time.Now()); err != nil {
		return err
	}
	return m.sup.reload("sshd") // the tunnel and a bastion look at their files themselves
}

// newPolicy verifies a bundle and puts it in force.
func (m *machine) newPolicy(data, sig []byte, now time.Time) error {
	m.policy.Lock()
	defer m.policy.Unlock()
	least := m.papers.statement.MinPolicy
	if m.bundle != nil {
		if bytes.Equal(data, m.data) {
			return nil
		}
		least = max(least, m.bundle.Version+1) // other bytes need another version
	}
	b, err := openBundle(m.papers.trust, data, sig, now, least, m.papers.ticket.Server)
	if err != nil {
		return err
	}
	if server, _ := b.Inventory.Server(m.papers.ticket.Server); (server.Role == inventory.RoleBastion) != (m.gate != nil) {
		return refuse(codeServer, "the signed inventory says role %q, and this life began with another", server.Role)
	}
	if m.gate != nil {
		err = m.gate.apply(b, data, sig, m.sup.reload)
	} else {
		err = m.apply(b, now)
	}
	if err != nil {
		return err
	}
	first := m.bundle == nil
	m.bundle, m.data = b, data
	if !first {
		m.con.stage("policy %d in force", b.Version)
	}
	return nil
}

// watchPolicy takes everybody's grants away when the policy in force expires.
func (m *machine) watchPolicy(ctx context.Context) {
	for sleep(ctx, policyLook) {
		now := time.Now()
		m.policy.Lock()
		if err := m.cutLost(cutUser); err != nil {
			m.con.stage("%v", err)
		}
		if b := m.bundle; b != nil && !now.Before(b.Expires) && len(m.here) > 0 {
			if err := m.apply(b, now); err != nil {
				m.con.stage("policy expired: %v", err)
			}
		}
		m.policy.Unlock()
	}
}

// apply renders a policy: first what takes away, then what gives. The caller holds policy.
func (m *machine) apply(b *bundle.Bundle, now time.Time) error {
	server, _ := b.Inventory.Server(m.papers.ticket.Server)
	here := granted(b.Policy, b.Inventory, server.Name, now)
	bastions := bastionAddresses(b.Inventory)
	algorithms, err := sshdAlgorithms(b.Policy)
	if err != nil {
		return refuse(codeAlgorithms, "%w", err)
	}
	config := sshdConfiguration(sshdSettings{
		listen: m.papers.ticket.Address.Addr(), algorithms: algorithms, engineers: here, bastions: bastions, dir: sshDir,
		verify: b.Policy.SSH.VerifyRequired,
	})
	files := make(map[string][]byte)
	for _, e := range here {
		files[e.name] = authorizedKeys(e, bastions)
	}
	// sshd reads it at each login. An empty file is a list of nothing.
	if err := durable.WriteFile(revokedFile, b.Policy.Certificates.KRL.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the revoked keys: %w", err)
	}
	if err := writeAuthorizedKeys(authorizedDir, files); err != nil {
		return err
	}
	if !bytes.Equal(config, m.sshd) {
		if err := durable.WriteFile(sshdConfig, config, 0o600); err != nil {
			return err
		}
		if err := m.sup.reload("sshd"); err != nil {
			return err
		}
	}
	m.lost = append(m.lost, lostAccess(m.here, here)...)
	m.sshd, m.here = config, here
	if err := m.cutLost(cutUser); err != nil {
		m.con.stage("%v", err) // watchPolicy tries again
	}
	passwd, group, shadow, err := m.users.add(here)
	if err != nil {
		return err
	}
	if err := extendAccounts(passwd, group, shadow); err != nil {
		return err
	}
	if err := applyRules(&nftables.Conn{}, hostRules(bastions, tunnelAddress(server))); err != nil {
		return err
	}
	var errs []error
	for _, e := range here {
		uid, _ := m.users.uid(e.name)
		errs = append(errs, makeHome(homeDir, e.name, uid)) // one that cannot be made keeps nobody else out
	}
	return errors.Join(errs...)
}

// cutLost ends what those who lost access left. One that cannot be cut keeps nobody else in, and is tried again when watchPolicy
// looks. The caller holds policy.
func (m *machine) cutLost(cut func(name string, uid int) error) error {
	var errs []error
	m.lost = slices.DeleteFunc(m.lost, func(name string) bool {
		uid, ok := m.users.uid(name)
		if !ok {
			return true
		}
		err := cut(name, uid)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// lostAccess names those who were granted and are no more, or who lost a key or recorded sessions: their sessions may be by that.
func lostAccess(before, after []engineer) []string {
	var lost []string
	for _, b := range before {
		i := slices.IndexFunc(after, func(a engineer) bool { return a.name == b.name })
		if i < 0 || b.session && !after[i].session || slices.ContainsFunc(b.keys, func(k string) bool { return !slices.Contains(after[i].keys, k) }) {
			lost = append(lost, b.name)
		}
	}
	return lost
}

// beginDrain orders the tunnel to let its users go, once, and watches until it has.
func (m *machine) beginDrain(ctx context.Context, limit time.Duration) {
	m.mu.Lock()
	again := m.draining
	m.draining = true
	m.mu.Unlock()
	if again {
		return
	}
	m.con.stage("drain")
	m.poke()
	go m.drain(context.WithoutCancel(ctx), limit)
}

func (m *machine) drain(ctx context.Context, limit time.Duration) {
	forced := true
	if m.gate != nil {
		m.endDrain(m.gate.drain(ctx, m.sup, limit))
		return
	}
	ordered := false
	for end := time.Now().Add(limit + drainGrace); time.Now().Before(end); time.Sleep(drainLook) {
		if !ordered {
			_, err := m.tunnel.drain(ctx, limit)
			ordered = err == nil
			continue
		}
		s, err := m.tunnel.status(ctx)
		if err == nil && !s.Draining {
			ordered = false // it was started again and does not know
			continue
		}
		if err == nil && s.Drained {
			forced = s.Forced
			break
		}
	}
	m.endDrain(forced)
}

func (m *machine) endDrain(forced bool) {
	m.mu.Lock()
	m.drained = &join.Drained{Forced: forced}
	m.mu.Unlock()
	m.con.stage("drained")
	m.poke()
}

// watchServices asks each service whether it answers.
func (m *machine) watchServices(ctx context.Context, wg *sync.WaitGroup, s inventory.Server) {
	if m.gate != nil {
		wg.Go(func() { m.watchService(ctx, bastionName, tunnelEvery, m.gate.probe) })
		return
	}
	ssh := netip.AddrPortFrom(m.papers.ticket.Address.Addr(), inventory.PortSSH)
	dns := netip.AddrPortFrom(tunnelAddress(s), inventory.PortDNS)
	wg.Go(func() {
		m.watchService(ctx, "sshd", sshdEvery, func(ctx context.Context) error { return probeSSH(ctx, ssh) })
	})
	wg.Go(func() {
		m.watchService(ctx, "unbound", unboundEvery, func(ctx context.Context) error { return probeResolver(ctx, dns) })
	})
	wg.Go(func() {
		m.watchService(ctx, "tunnel", tunnelEvery, func(ctx context.Context) error {
			status, err := m.tunnel.status(ctx)
			if err == nil && !status.Ready {
				err = fmt.Errorf("the tunnel is not ready")
			}
			return err
		})
	})
}
