package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mayfly/fleetctl/web"
	"mayfly/internal/audit"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/ledger"
)

// Implementation constants of the page.
const (
	pageLife    = 180 * 24 * time.Hour // of the page's own certificate
	pageRenewal = 30 * 24 * time.Hour  // before its end serve makes another, when it starts
	maxPEM      = 64 << 10
)

// Events of the page's log. Specification constants.
const (
	eventPageOpened  = "page_opened"
	eventPageRefused = "page_refused"
)

// Files of the page, and the log of who opened it.
func (d state) pageDir() string         { return d.path("page") }
func (d state) pageCertificate() string { return filepath.Join(d.public(), "page.pem") } // browsers take it for the page's
func (d state) pageKey() string         { return filepath.Join(d.pageDir(), "page.key") }
func (d state) pageLog() string         { return filepath.Join(d.pageDir(), "log") }

// servePage shows the status page until ctx ends, if fleet.toml has a port for it.
func (d state) servePage(ctx context.Context, s store.Store, p *policy, log *slog.Logger) (err error) {
	b := p.current()
	at := b.Inventory.Controller
	if at.PagePort == 0 {
		return nil
	}
	caPEM, err := readBounded(d.operatorsCAFile(), "`fleetctl ca publish` makes the operators' CA where there is none", maxPEM)
	if err != nil {
		return err
	}
	pool, err := pki.Pool(caPEM)
	if err != nil {
		return fmt.Errorf("loading %s: %w", d.operatorsCAFile(), err)
	}
	own, err := d.ownPage(b.Inventory, time.Now())
	if err != nil {
		return err
	}
	visits, err := audit.Open(audit.Options{Dir: d.pageLog(), Name: audit.LogName("mayfly", b.Inventory.Name, "page")})
	if err != nil {
		return fmt.Errorf("opening the page's log: %w", err)
	}
	defer func() { err = errors.Join(err, visits.Close()) }()
	l, err := web.Listen(netip.AddrPortFrom(at.Address, at.PagePort).String())
	if err != nil {
		return err
	}
	source := &pageSource{d: d, store: s, policy: p, ledger: &pageLedger{dir: d.ledger()}}
	log.Info("the status page is open", "address", "https://"+l.Addr().String()+"/")
	return web.Serve(ctx, l, web.Config{
		Own:     own,
		Gather:  source.gather,
		Proof:   source.proof,
		BootURL: "http://" + netip.AddrPortFrom(at.Address, at.BootPort).String() + "/",
		Log:     log,
		Access: web.Access{
			CA:   pool,
			Test: b.Inventory.Test,
			Now:  time.Now,
			Policy: func() (policies.Policy, uint64, bool) {
				b := p.current()
				return b.Policy, b.Version, time.Now().Before(b.Policy.Expires)
			},
			Record: func(v web.Visit) error {
				var err error
				if v.Code == "" {
					err = visits.Append(eventPageOpened, v)
				} else {
					err = visits.AppendRefused(eventPageRefused, v)
				}
				if err != nil {
					log.Error("a visit of the page is not on record", "error", err)
				}
				return err
			},
		},
	})
}

// ownPage is the page's own certificate: of P-256, as browsers ask, signed by itself, made anew before it ends or when names have changed. Its private
// key stays in DIR/page.
func (d state) ownPage(f inventory.Fleet, now time.Time) (tls.Certificate, error) {
	if err := os.Mkdir(d.pageDir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return tls.Certificate{}, err
	}
	names, addresses := []string{f.FQDN(inventory.NameController), "localhost"}, []netip.Addr{f.Controller.Address, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	certPEM, err := os.ReadFile(d.pageCertificate())
	if err == nil {
		keyPEM, keyErr := durable.ReadSecret(d.pageKey())
		if pair, pairErr := tls.X509KeyPair(certPEM, keyPEM); keyErr == nil && pairErr == nil && covers(pair.Leaf, names, addresses, now) {
			return pair, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, err
	}
	certPEM, keyPEM, err := pki.NewPage(names, addresses, now, pageLife)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := durable.WriteFile(d.pageKey(), keyPEM, 0o600); err != nil {
		return tls.Certificate{}, err
	}
	if err := durable.WriteFile(d.pageCertificate(), certPEM, 0o644); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	return pair, hint.New(err, "remove %s and %s: serve makes them anew", d.pageKey(), d.pageCertificate())
}

// covers reports whether a certificate is good for all of these for a while.
func covers(c *x509.Certificate, names []string, addresses []netip.Addr, now time.Time) bool {
	for _, a := range addresses {
		names = append(slices.Clone(names), a.String())
	}
	return now.After(c.NotBefore) && now.Add(pageRenewal).Before(c.NotAfter) && !slices.ContainsFunc(names, func(n string) bool { return c.VerifyHostname(n) != nil })
}

// pageSource gathers what the page shows.
type pageSource struct {
	d      state
	store  store.Store
	policy *policy
	ledger *pageLedger
}

// proof is the proof that the ledger has the beginning of a server's latest life, as whoever verifies it believes it.
func (g *pageSource) proof(server string) ([]byte, error) {
	t, _, err := g.d.trust()
	if err != nil {
		return nil, err
	}
	keys, err := ledger.KeysOf(t)
	if err != nil {
		return nil, err
	}
	e, ok := g.ledger.entry(server)
	if !ok {
		return nil, fs.ErrNotExist
	}
	proof, err := audit.Prove(g.d.ledger(), e.Index)
	if err != nil {
		return nil, err
	}
	data := proof.Marshal()
	_, err = keys.Open(data)
	return data, err
}
