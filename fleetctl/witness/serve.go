package witness

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"mayfly/policies/witness"
	"mayfly/tunnel/checkin"
)

// Bounds of the service.
const (
	requestDeadline = 10 * time.Second
	idleDeadline    = 30 * time.Second
	stopDeadline    = 5 * time.Second
	maxHeader       = 8 << 10
	maxSmall        = 64 << 10 // larger bodies wait for nobody: there is a place for one, or there is not
	maxBodies       = 8        // of those in memory at once
)

// Handler answers the three requests of docs/formats/witness.md, and GET / with what a person wants to know.
func (w *Witness) Handler() http.Handler {
	limits, bodies := new(rates), make(chan struct{}, maxBodies)
	mux := http.NewServeMux()
	handle := func(path, contentType string, limit int64, answer func(body []byte) ([]byte, error)) {
		mux.HandleFunc("POST "+path, func(rw http.ResponseWriter, r *http.Request) {
			source, err := netip.ParseAddrPort(r.RemoteAddr)
			if err != nil || !limits.allow(source.Addr(), time.Now()) {
				rw.Header().Set("Retry-After", "1")
				w.say(rw, nil, contentType, refuse(http.StatusTooManyRequests, "too_often", "more than %d requests a second", perSecond))
				return
			}
			if limit > maxSmall {
				select {
				case bodies <- struct{}{}:
					defer func() { <-bodies }()
				default:
					w.say(rw, nil, contentType, refuse(http.StatusServiceUnavailable, "busy", "%d publications are being read", maxBodies))
					return
				}
			}
			body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, limit))
			if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
				w.say(rw, nil, contentType, refuse(http.StatusRequestEntityTooLarge, "too_large", "at most %d bytes", limit))
				return
			}
			if err != nil {
				return // whoever asked has gone
			}
			out, err := answer(body)
			w.say(rw, out, contentType, err)
		})
	}
	handle(witness.PathAnswer, "application/json", witness.MaxQuestion, func(body []byte) ([]byte, error) {
		q, err := witness.ParseQuestion(body)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "question_malformed", "%v", err)
		}
		return w.Answer(q, time.Now())
	})
	for subject, at := range map[string]struct {
		path  string
		limit int64
	}{witness.SubjectPolicy: {witness.PathPublish, witness.MaxPublication}, witness.SubjectRelease: {witness.PathRelease, witness.MaxRelease}} {
		handle(at.path, "application/json", at.limit, func(body []byte) ([]byte, error) {
			p, err := witness.ParsePublication(body)
			if err == nil && p.Subject != subject {
				err = fmt.Errorf("its subject is %q, and not %q", p.Subject, subject)
			}
			if err != nil {
				return nil, refuse(http.StatusBadRequest, "publication_malformed", "%v", err)
			}
			version, err := w.Publish(p)
			if err != nil {
				return nil, err
			}
			return fmt.Appendf(nil, "{\"witness\": %q, \"version\": %d}\n", w.name, version), nil
		})
	}
	handle(witness.PathAddCheckpoint, "text/plain; charset=utf-8", maxCheckpoint, func(body []byte) ([]byte, error) {
		return w.AddCheckpoint(body, time.Now())
	})
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		w.say(rw, fmt.Appendf(nil, "witness %s of fleet %s, policy %d, release %d\ncosigns as %s\n",
			w.name, w.trust.Fleet, w.Newest(witness.SubjectPolicy), w.Newest(witness.SubjectRelease), w.cosigner()), "text/plain; charset=utf-8", nil)
	})
	return mux
}

// say writes an answer, or a refusal with its code.
func (w *Witness) say(rw http.ResponseWriter, out []byte, contentType string, err error) {
	status := http.StatusOK
	var refusal *Refusal
	var old *stale
	switch {
	case errors.As(err, &old):
		status, contentType, out = http.StatusConflict, "text/x.tlog.size", append(strconv.AppendInt(nil, old.size, 10), '\n')
	case errors.As(err, &refusal):
		status, contentType = refusal.status, "application/json"
		if out, err = json.Marshal(map[string]string{"code": refusal.Code, "detail": refusal.Detail}); err != nil {
			out = nil
		}
	case err != nil:
		w.log.Error("a request failed here", "error", err)
		status, contentType, out = http.StatusInternalServerError, "application/json", []byte(`{"code": "failed", "detail": "this witness cannot keep its memory"}`)
	}
	rw.Header().Set("Content-Type", contentType)
	rw.Header().Set("X-Content-Type-Options", "nosniff")
	rw.WriteHeader(status)
	if _, err := rw.Write(out); err != nil {
		w.log.Debug("answering", "error", err)
	}
}

// Serve answers on l, over TLS if config is not nil, until ctx ends. Connections are bounded by source and in all.
func (w *Witness) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	l = checkin.Limit(l)
	if config != nil {
		l = tls.NewListener(l, config)
	}
	srv := &http.Server{
		Handler: w.Handler(), ReadTimeout: requestDeadline, ReadHeaderTimeout: requestDeadline, WriteTimeout: requestDeadline,
		IdleTimeout: idleDeadline, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	end := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopDeadline)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	})
	err := srv.Serve(l)
	if end() {
		return fmt.Errorf("answering: %w", err)
	}
	return <-stopped
}
