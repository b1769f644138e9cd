package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"mayfly/bastion"
	"mayfly/bastion/listen"
	"mayfly/internal/command"
)

const serveHelp = configHelp + `

It prints a line on stderr when it listens. It reads bundle and host certificate again within a second of a change, or at
once on HUP, and keeps the old ones if the new ones are refused. TERM ends it: nobody is accepted, sessions may go on for drain_limit, a second TERM cuts them at once, and every one gets its closing
record. A listening socket that the service manager hands over (LISTEN_FDS) is used instead of one of its own: a restart refuses nobody.

  bastion serve --config bastion.toml`

func serveVerb() command.Verb {
	return command.Verb{
		Name:    "serve",
		Args:    "--config FILE",
		Summary: "let engineers in, as the signed policy says",
		Help:    serveHelp,
		Run:     serve,
	}
}

func serve(ctx context.Context, c *command.Call) error {
	config, err := parseConfig(c, c.Flags())
	if err != nil {
		return err
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	inherited, err := listen.Inherited()
	if err != nil {
		return err
	}
	log := config.Log.Logger(c.Stderr)
	manager, err := newNotifier()
	if err != nil {
		return err
	}
	defer manager.close()
	tell := func(err error) {
		if err != nil {
			log.Warn("the service manager does not hear", "error", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { tell(manager.stopping()) })
	defer stop()
	cut, release := secondSignal()
	defer release()
	return bastion.Serve(ctx, config, log, bastion.Signals{Reload: reload, Cut: cut}, inherited, func(address net.Addr, policy uint64) {
		if config.Log == bastion.LogJSON {
			log.Info("ready", "listen", address.String(), "version", policy)
		} else {
			fmt.Fprintf(c.Stderr, "bastion: serve: ready on %s, policy %d\n", address, policy)
		}
		tell(manager.ready(fmt.Sprintf("on %s, policy %d", address, policy)))
	})
}

// secondSignal tells of the second signal to end; the first ends the context.
func secondSignal() (second <-chan os.Signal, release func()) {
	all, cut, done := make(chan os.Signal, 4), make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(all, os.Interrupt, syscall.SIGTERM)
	go func() {
		for n := 1; ; n++ {
			select {
			case sig := <-all:
				if n == 2 {
					cut <- sig
					return
				}
			case <-done:
				return
			}
		}
	}()
	return cut, func() { signal.Stop(all); close(done) }
}
