package boot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"mayfly/internal/hint"
	"mayfly/internal/pki"
	"mayfly/internal/renewal"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/rebuild/offer"
)

// Bounds of the service.
const (
	maxJoinConnections  = 4096
	maxJoinPerAddress   = 16
	maxBootConnections  = 1024
	maxBootPerAddress   = 16
	requestDeadline     = 30 * time.Second
	releaseDeadline     = 10 * time.Minute // one file to one machine
	idleDeadline        = 30 * time.Second
	maxHeader           = 8 << 10
	stopDeadline        = 5 * time.Second
	watchInterval       = 500 * time.Millisecond
	maxConcurrentJoins  = 32
	maxReportsOfALife   = 16
	certificateAttempts = 10 * time.Second
)

// Signer is what the service asks of the process that holds the CAs.
type Signer interface {
	Challenge(ctx context.Context, r join.ChallengeRequest) (join.Challenge, error)
	Admit(ctx context.Context, r join.Request) (join.Admission, error)
	UsedTwice(ctx context.Context, ticket, signature []byte) error // revokes what the ticket began; it never admits
	Renew(ctx context.Context, r join.RenewRequest) (join.Certificates, error)
	Service(ctx context.Context, name string, csr []byte) (chainPEM []byte, err error)
	RenewHost(ctx context.Context, r renewal.Request) (renewal.Answer, error)
}

// Config is what Serve needs.
type Config struct {
	Fleet  inventory.Fleet
	Trust  *trust.Trust
	CA     []byte // PEM of the fleet's TLS CA
	Public string // directory with releases/VERSION/FILE, and the ledger
	Store  store.Store
	Signer Signer
	Bundle func() (data, sig []byte) // the signed policy in force; nil data when there is none
	Steps  func() []join.Trust       // the last trust policies that follow one another, oldest first; may be nil
	Ready  func()                    // called once both ports listen; may be nil
	Log    *slog.Logger
	Audit  string    // directory of the audit logs of rebuilt bastions
	Offers offer.Dir // what lives boot from; may be empty where none does
}

// ReleasePath is where a release's files lie on the boot port.
func ReleasePath(version uint64) string { return fmt.Sprintf("/releases/%d/", version) }

type service struct {
	Config
	ca      *x509.CertPool
	own     *certificate
	streams *streams
	proofs  *lifeProofs
	joins   chan struct{}
	reports *reportCount
	audits  *auditLogs
	now     func() time.Time
}

// Serve serves both ports until ctx ends.
func Serve(ctx context.Context, c Config) error {
	s, err := newService(ctx, c)
	if err != nil {
		return err
	}
	bootPort, err := listen(c.Fleet.Controller.Address, c.Fleet.Controller.BootPort)
	if err != nil {
		return err
	}
	joinPort, err := listen(c.Fleet.Controller.Address, c.Fleet.Controller.JoinPort)
	if err != nil {
		return errors.Join(err, bootPort.Close())
	}
	return s.serve(ctx, bootPort, joinPort)
}

func newService(ctx context.Context, c Config) (*service, error) {
	s := &service{
		Config:  c,
		streams: &streams{open: make(map[string]*stream)},
		joins:   make(chan struct{}, maxConcurrentJoins),
		reports: &reportCount{seen: make(map[life]int)},
		audits:  newAuditLogs(c.Audit, c.Fleet.Name),
		now:     func() time.Time { return time.Now().UTC() },
	}
	var err error
	if s.proofs, err = newLifeProofs(c); err != nil {
		return nil, err
	}
	if s.ca, err = pki.Pool(c.CA); err != nil {
		return nil, fmt.Errorf("loading the fleet's TLS CA: %w", err)
	}
	if s.own, err = newCertificate(ctx, c.Signer, c.Fleet.FQDN(inventory.NameController), s.now()); err != nil {
		return nil, err
	}
	return s, nil
}

func listen(addr netip.Addr, port uint16) (net.Listener, error) {
	ap := netip.AddrPortFrom(addr, port)
	l, err := net.Listen("tcp", ap.String())
	if err != nil {
		return nil, hint.New(fmt.Errorf("listening on %s: %w", ap, err), "is another fleetctl serve running, or is the address of [controller] not this machine's?")
	}
	return l, nil
}

// serve owns both listeners.
func (s *service) serve(ctx context.Context, bootPort, joinPort net.Listener) error {
	root, err := os.OpenRoot(s.Public)
	if err != nil {
		return errors.Join(fmt.Errorf("opening the public files: %w", err), bootPort.Close(), joinPort.Close())
	}
	errorLog := slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)
	public := releases(root, s.Log)
	bootServer := &http.Server{
		Handler:           offers(s.Offers, s.now, s.Log, releases(root, s.Log)),
		ReadTimeout:       requestDeadline,
		ReadHeaderTimeout: requestDeadline,
		WriteTimeout:      releaseDeadline,
		IdleTimeout:       idleDeadline,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          errorLog,
	}
	joinServer := &http.Server{
		Handler:           withPublic(s.admission(), public),
		ReadTimeout:       requestDeadline,
		ReadHeaderTimeout: requestDeadline,
		WriteTimeout:      requestDeadline,
		IdleTimeout:       idleDeadline,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          errorLog,
	}
	joinServer.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		join.StreamProtocol: func(_ *http.Server, conn *tls.Conn, _ http.Handler) { s.stream(ctx, conn) },
	}
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.VerifyClientCertIfGiven,
		ClientCAs:              s.ca,
		NextProtos:             []string{join.StreamProtocol, "http/1.1"},
		GetCertificate:         s.own.get,
		SessionTicketsDisabled: true, // each connection proves its certificate again
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return serveUntil(ctx, bootServer, newLimited(bootPort, maxBootConnections, maxBootPerAddress))
	})
	g.Go(func() error {
		return serveUntil(ctx, joinServer, tls.NewListener(newLimited(joinPort, maxJoinConnections, maxJoinPerAddress), config))
	})
	g.Go(func() error { s.watch(ctx); return nil })
	if s.Ready != nil {
		s.Ready()
	}
	err = g.Wait()
	s.streams.closeAll()
	return errors.Join(err, s.audits.closeAll(), root.Close())
}

func serveUntil(ctx context.Context, srv *http.Server, l net.Listener) error {
	stopped := make(chan error, 1)
	end := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopDeadline)
		defer cancel()
		err := srv.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close()
		}
		stopped <- err
	})
	err := srv.Serve(l)
	if end() {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	return <-stopped
}
