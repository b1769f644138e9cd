package signer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"mayfly/fleetctl/authority"
	"mayfly/fleetctl/users"
	"mayfly/internal/audit"
	"mayfly/internal/hint"
	"mayfly/rebuild/join"
)

// Bounds of the socket.
const (
	maxBody         = 1 << 20
	maxInFlight     = 64              // more than the joins that the controller lets in at once
	placeWait       = 5 * time.Second // for one of them
	requestDeadline = 20 * time.Second
	stopDeadline    = 5 * time.Second
)

// SocketName is the socket's file below DIR.
const SocketName = "signer.sock"

// Paths of the socket.
const (
	pathTicket    = "/v1/ticket"
	pathRestart   = "/v1/restart"
	pathChallenge = "/v1/challenge"
	pathAdmit     = "/v1/admit"
	pathTwice     = "/v1/twice"
	pathRenew     = "/v1/renew"
	pathList      = "/v1/list"
	pathDrained   = "/v1/drained"
	pathExtend    = "/v1/extend"
	pathService   = "/v1/service"
	pathHost      = "/v1/host"
	pathRenewal   = "/v1/host/renew"
	pathRelease   = "/v1/release"
	pathEnd       = "/v1/end"
	pathPage      = "/v1/page"
)

type server struct {
	keys     *keys
	rules    *rules
	lives    *lives
	bastions *bastions
	orders   orders
	rate     rate
	asked    challenges
	images   images
	log      *audit.Log
	book     *book // nil where the trust policy, a test fleet's, names no ledger key
	now      func() time.Time
	who      users.Table
}

// Serve answers on DIR/signer.sock until ctx ends. Only one signer serves a directory: the log's lock says so.
func Serve(ctx context.Context, dir string, log *slog.Logger) (err error) {
	who, err := users.Start(dir, users.Signer)
	if err != nil {
		return err
	}
	s, err := open(dir)
	if err != nil {
		return err
	}
	s.who = who
	defer func() { err = errors.Join(err, s.log.Close(), s.book.close()) }()
	mode, kept := fs.FileMode(0o600), "one user for all processes: whoever takes one over has the keys; fleetctl init --users"
	if who.Separate {
		mode, kept = 0o666, "separate" // who may ask what, callers.go says
	}
	listener, err := listen(filepath.Join(dir, SocketName), mode)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           s.handler(log),
		ReadTimeout:       requestDeadline,
		ReadHeaderTimeout: requestDeadline,
		WriteTimeout:      requestDeadline,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    4 << 10,
		ConnContext:       s.caller,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	end := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopDeadline)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	})
	log.Info("ready", "socket", filepath.Join(dir, SocketName), "users", kept)
	err = srv.Serve(listener)
	if end() {
		return fmt.Errorf("serving the signer's socket: %w", err)
	}
	return <-stopped
}

func open(dir string) (*server, error) {
	k, err := loadKeys(dir)
	if err != nil {
		return nil, err
	}
	r, err := loadRules(dir)
	if err != nil {
		return nil, err
	}
	l, err := openLives(dir)
	if err != nil {
		return nil, err
	}
	hosts, err := openBastions(dir)
	if err != nil {
		return nil, err
	}
	u, err := openUsed(dir)
	if err != nil {
		return nil, err
	}
	a, err := audit.Open(audit.Options{Dir: filepath.Join(dir, keyDir, logDir), Name: audit.LogName("mayfly", r.trust.Fleet, "certificates")})
	if err != nil {
		return nil, fmt.Errorf("opening the log of certificates: %w", err)
	}
	s := &server{keys: k, rules: r, lives: l, bastions: hosts, orders: orders{authority.New(u, a)}, log: a, now: time.Now}
	if s.book, err = s.openLedger(dir); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return s, nil
}

// listen makes the socket, 0600 from its first moment until it has its mode. The log's lock is held, so a socket that is there is a dead one's.
func listen(path string, mode fs.FileMode) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the old socket: %w", err)
	}
	// Others of this process make directories meanwhile, which need their x: the umask is theirs too.
	old := syscall.Umask(0o077)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err == nil {
		if err = os.Chmod(path, mode); err != nil {
			err = errors.Join(err, l.Close())
		}
	}
	if err != nil {
		return nil, hint.New(fmt.Errorf("listening on %s: %w", path, err), "a socket's path has at most 107 bytes; use a shorter --dir")
	}
	return l, nil
}

// routes are what the socket answers, each to who may ask for it (callers.go).
func (s *server) routes(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+pathTicket, handle(log, s.now, s.ticket))
	mux.Handle("POST "+pathChallenge, handle(log, s.now, s.challenge))
	mux.Handle("POST "+pathRestart, handle(log, s.now, s.restart))
	mux.Handle("POST "+pathAdmit, handle(log, s.now, s.admit))
	mux.Handle("POST "+pathRenew, handle(log, s.now, s.renew))
	mux.Handle("POST "+pathList, handle(log, s.now, s.list))
	mux.Handle("POST "+pathDrained, handle(log, s.now, s.drained))
	mux.Handle("POST "+pathExtend, handle(log, s.now, s.extend))
	mux.HandleFunc("POST "+pathService, func(w http.ResponseWriter, r *http.Request) {
		handle(log, s.now, func(q serviceRequest, now time.Time) (serviceAnswer, error) {
			if err := s.mayBe(r, q.Name, now); err != nil {
				return serviceAnswer{}, err
			}
			return s.service(q, now)
		}).ServeHTTP(w, r)
	})
	mux.Handle("POST "+pathHost, handle(log, s.now, s.host))
	mux.Handle("POST "+pathRenewal, handle(log, s.now, s.renewHost))
	mux.Handle("POST "+pathRelease, handle(log, s.now, s.logRelease))
	mux.Handle("POST "+pathEnd, handle(log, s.now, s.end))
	mux.Handle("POST "+pathPage, handle(log, s.now, s.page))
	mux.Handle("POST "+pathTwice, handle(log, s.now, s.usedTwice))
	return mux
}

func (s *server) handler(log *slog.Logger) http.Handler {
	mux := s.routes(log)
	places := make(chan struct{}, maxInFlight)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait, cancel := context.WithTimeout(r.Context(), placeWait)
		defer cancel()
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			if err := s.mayAsk(r, s.now()); err != nil {
				answerRefusal(w, log, r.URL.Path, err)
				return
			}
			mux.ServeHTTP(w, r)
		case <-wait.Done():
			answerRefusal(w, log, r.URL.Path, join.Refuse(join.Busy, "%d requests in flight", maxInFlight))
		}
	})
}

// handle turns a decision into an HTTP answer: 200 with its value, 403 with a refusal, 500 with nothing of the cause.
func handle[Q, A any](log *slog.Logger, now func() time.Time, decide func(Q, time.Time) (A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := join.ReadBody(r.Body, maxBody)
		if err != nil {
			answerRefusal(w, log, r.URL.Path, err)
			return
		}
		q, err := join.Decode[Q](body, maxBody)
		if err != nil {
			answerRefusal(w, log, r.URL.Path, err)
			return
		}
		a, err := decide(q, now().UTC())
		if err != nil {
			answerRefusal(w, log, r.URL.Path, err)
			return
		}
		data, err := join.Encode(a)
		if err != nil {
			answerRefusal(w, log, r.URL.Path, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(data); err != nil {
			log.Warn("answering", "path", r.URL.Path, "error", err)
		}
	})
}

func answerRefusal(w http.ResponseWriter, log *slog.Logger, path string, err error) {
	refusal, ok := join.IsRefusal(err)
	status := http.StatusForbidden
	if !ok {
		log.Error("failed", "path", path, "error", err)
		refusal, status = &join.Refusal{Reason: join.ControllerFailed}, http.StatusInternalServerError
	} else {
		level := slog.LevelWarn
		if refusal.Reason == join.ReleaseForked {
			level = slog.LevelError // people signed two releases of one version, or somebody has their keys
		}
		log.Log(context.Background(), level, "refused", "path", path, "reason", refusal.Reason, "detail", refusal.Detail)
	}
	data, err := join.Encode(refusal)
	if err != nil {
		log.Error("answering", "path", path, "error", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(data); err != nil {
		log.Warn("answering", "path", path, "error", err)
	}
}
