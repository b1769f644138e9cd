package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"mayfly/rebuild/join"
)

// auditLinkAt is where a bastion brings its audit records. The program that faces engineers holds no key that opens anything at the
// controller: this one shows the life's certificate for it, and can be asked for nothing else.
var auditLinkAt = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 9101)

// Bounds of the link.
const (
	auditLinkDeadline = 15 * time.Second
	maxAuditLink      = 4 // batches at a time
)

// serveAuditLink listens until ctx ends.
func serveAuditLink(ctx context.Context, link *join.AuditLink) error {
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", auditLinkAt.String())
	if err != nil {
		return fmt.Errorf("listening for audit records: %w", err)
	}
	server := &http.Server{
		Handler: auditHandler(link.Send), ReadTimeout: auditLinkDeadline, ReadHeaderTimeout: auditLinkDeadline, WriteTimeout: auditLinkDeadline,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	context.AfterFunc(ctx, func() {
		// The bastion's last records come after this: it is told to end by the same.
		time.AfterFunc(servicesLimit, func() { _ = server.Close() })
	})
	go func() { _ = server.Serve(listener) }() // the bastion's own log says when nobody takes its records
	return nil
}

// auditHandler passes a batch on, as it is, and the answer back.
func auditHandler(send func(context.Context, []byte) (int, []byte, error)) http.Handler {
	places := make(chan struct{}, maxAuditLink)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		batch, err := join.ReadBody(r.Body, join.MaxAuditBatch)
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		status, answer, err := send(r.Context(), batch)
		if err != nil {
			http.Error(w, clip(err.Error(), join.MaxDetail), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(answer) // without it the batch comes again
	})
}
