package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/fleetctl/users"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/tunnel/checkin"
)

var checkinVerb = command.Verb{
	Name:    "checkin",
	Args:    "--dir DIR",
	Summary: "run the API that apps ask for servers",
	Help: `Answers apps, over TLS 1.3 under the fleet's CA, with the signed list of servers: the same bytes for everybody. It has no CA
key and writes nothing about who asked. Where it listens and what it is called the signed inventory says; a changed one takes
effect when it is started again. Of DIR/public it reads list.json only, which apps check by its signature. Its own key is made in RAM at each start; the signer, which
has to run, certifies it and renews the certificate.

It says "fleetctl: checkin: ready" on stderr when it listens.

Example:

  fleetctl checkin --dir lab`,
	Run: runCheckin,
}

// Bounds of check-in.
const (
	checkinDeadline = 10 * time.Second
	checkinHeader   = 8 << 10
	stopDeadline    = 5 * time.Second
)

func runCheckin(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	if _, err := users.Start(*dir, users.Checkin); err != nil {
		return err
	}
	d, log := state(*dir), logger(c.Stderr)
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	b, err := d.bundle(t, 0, time.Now()) // what apps are told lies in public, where others may write: it does not say where to listen
	if err != nil {
		return err
	}
	if err := needsController(b.Inventory); err != nil {
		return err
	}
	at := checkinAddress(b.Inventory)
	l, err := net.Listen("tcp", at)
	if err != nil {
		return hint.New(fmt.Errorf("listening for apps: %w", err), "another process has %s, or the address is not this machine's", at)
	}
	cert, err := newCertificate(ctx, signer.Dial(string(d)), inventory.NameCheckin, b.Inventory.FQDN(inventory.NameCheckin))
	if err != nil {
		return errors.Join(needsSigner(err), l.Close())
	}
	srv := &http.Server{
		Handler:           checkin.Handler(d.listFile()),
		ReadTimeout:       checkinDeadline,
		ReadHeaderTimeout: checkinDeadline,
		WriteTimeout:      checkinDeadline,
		IdleTimeout:       checkinDeadline,
		MaxHeaderBytes:    checkinHeader,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // who asked is written nowhere
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: cert.get, NextProtos: []string{"h2", "http/1.1"}}
	fmt.Fprintln(c.Stderr, "fleetctl: checkin: ready")
	renewing, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { cert.keep(renewing, log) })
	stopped := make(chan error, 1)
	end := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopDeadline)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	})
	err = srv.Serve(tls.NewListener(checkin.Limit(l), config))
	stop()
	wg.Wait()
	if end() {
		return fmt.Errorf("answering apps: %w", err)
	}
	return <-stopped
}
