// Command bastion-alerts delivers a bastion's alerts to a webhook and to a program. The bastion starts it, before it confines itself, with
// a socket as its descriptor 3; it ends when the bastion does. docs/formats/alerts.md describes what it delivers.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"mayfly/bastion/alert/delivery"
	"mayfly/internal/command"
)

func main() {
	// It ends after the bastion, whose last alerts it delivers: signals that reach the whole group are not for it.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(program().Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func program() command.Program {
	return command.Program{
		Name:    "bastion-alerts",
		Summary: "deliver a bastion's alerts to a webhook and to a program",
		Verbs: []command.Verb{{
			Name: "run", Args: "", Summary: "(started by bastion) take alerts from the bastion on descriptor 3",
			Help: "Where alerts go is in [alerts] of bastion.toml; the bastion says it on the socket.", Run: run,
		}},
	}
}

// socketFD is where the bastion's socket is.
const socketFD = 3

func run(ctx context.Context, c *command.Call) (err error) {
	fs := c.Flags()
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return command.Usagef("want nothing else")
	}
	socket := os.NewFile(socketFD, "bastion")
	conn, err := net.FileConn(socket)
	if err != nil {
		return fmt.Errorf("taking the bastion's socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := socket.Close(); err != nil {
		return err
	}
	return delivery.Serve(ctx, conn, slog.New(slog.NewTextHandler(c.Stderr, nil)))
}
