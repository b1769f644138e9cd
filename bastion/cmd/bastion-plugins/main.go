// Command bastion-plugins runs a bastion's plugins. The bastion starts it, before it confines itself and as the plugins' own
// user, with a socket as its descriptor 3; it ends when the bastion does. docs/formats/plugin.md describes it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"mayfly/internal/command"
	"mayfly/policies/plugin"
	"mayfly/policies/plugin/host"
)

func main() {
	ctx, stop := command.Signals(context.Background())
	defer stop()
	os.Exit(program().Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func program() command.Program {
	return command.Program{
		Name:    "bastion-plugins",
		Summary: "run the deciders of a site's own that a signed policy pins",
		Verbs: []command.Verb{{
			Name: "run", Args: "--directory DIR [--owner UID]", Summary: "(started by bastion) answer the bastion on descriptor 3",
			Help: "DIR and all above it belong to root, or to UID, and nobody else may write there; so do the plugins' files.", Run: run,
		}},
	}
}

// socketFD is where the bastion's socket is.
const socketFD = 3

func run(ctx context.Context, c *command.Call) (err error) {
	fs := c.Flags()
	dir := fs.String("directory", "", "`directory` of the plugins' files")
	owner := fs.Uint("owner", 0, "`user id` that may own them beside root")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if *dir == "" || fs.NArg() > 0 {
		return command.Usagef("want --directory DIR and nothing else")
	}
	socket := os.NewFile(socketFD, "bastion")
	conn, err := net.FileConn(socket)
	if err != nil {
		return fmt.Errorf("taking the bastion's socket: %w", err)
	}
	if err := socket.Close(); err != nil {
		return err
	}
	h, err := host.New(*dir, []uint32{0, uint32(*owner)}, slog.New(slog.NewTextHandler(c.Stderr, nil)))
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	return plugin.ServeRelay(ctx, conn, h)
}
