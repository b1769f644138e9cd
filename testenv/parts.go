package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mayfly/internal/command"
	"mayfly/testenv/dnsroot"
	"mayfly/testenv/netlab"
	"mayfly/testenv/target"
)

// The parts are the environment's own small servers, each a process of its own inside a namespace of the lab.

var partDNSVerb = command.Verb{
	Name: "part dns", Args: "--zone FILE --listen IP:PORT", Summary: "(started by up) the lab's root name server",
	Help: "Answers on UDP and TCP from a root zone that `testenv up` signed.",
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		zone := fs.String("zone", "", "signed zone `FILE`")
		listen := fs.String("listen", "", "`IP:PORT` to answer on")
		if err := parseRequired(c, fs, "zone", "listen"); err != nil {
			return err
		}
		text, err := os.ReadFile(*zone)
		if err != nil {
			return fmt.Errorf("reading the zone: %w", err)
		}
		server, err := dnsroot.Load(text)
		if err != nil {
			return err
		}
		return server.Serve(ctx, *listen, func() { fmt.Fprintln(c.Stderr, ready) })
	},
}

var partWebVerb = command.Verb{
	Name: "part web", Args: "--listen IP:PORT", Summary: "(started by up) the web target behind the fleet",
	Help: "Answers GET /bytes/N with N bytes and says in a header from which address it was asked.",
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		listen := fs.String("listen", "", "`IP:PORT` to answer on")
		if err := parseRequired(c, fs, "listen"); err != nil {
			return err
		}
		listener, err := net.Listen("tcp", *listen)
		if err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		server := target.Server()
		defer context.AfterFunc(ctx, func() { server.Close() })()
		fmt.Fprintln(c.Stderr, ready)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving: %w", err)
		}
		return nil
	},
}

var partEngineVerb = command.Verb{
	Name: "part engine", Args: "PROGRAM [ARGUMENT...]", Summary: "(started by up) a container engine, with control groups where this machine has none mounted",
	Help: "Becomes the program.",
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() == 0 {
			return command.Usagef("part engine takes a program")
		}
		path, err := exec.LookPath(fs.Arg(0))
		if err != nil {
			return fmt.Errorf("finding the container engine: %w", err)
		}
		runtime.LockOSThread() // what is mounted is this thread's
		if err := mountCgroups(); err != nil {
			return err
		}
		return fmt.Errorf("starting %s: %w", path, unix.Exec(path, fs.Args(), os.Environ()))
	},
}

var partForwardVerb = command.Verb{
	Name: "part forward", Args: "--to IP:PORT --namespace NAME --from IP --port-file FILE",
	Summary: "(started by up) a loopback port of this machine that leads to the bastion",
	Help: `Listens on 127.0.0.1 (or at --listen, which must be a loopback address), dials inside the namespace from an address there, and
writes the port it got into a file.`,
	Run: runForward,
}

func runForward(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	listen := fs.String("listen", "127.0.0.1:0", "loopback `IP:PORT`")
	to := fs.String("to", "", "`IP:PORT` in the namespace")
	namespace := fs.String("namespace", "", "`NAME` of the namespace")
	from := fs.String("from", "", "`IP` in the namespace to dial from")
	portFile := fs.String("port-file", "", "`FILE` to write the address to")
	if err := parseRequired(c, fs, "to", "namespace", "from", "port-file"); err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(*listen)
	if err != nil || !at.Addr().IsLoopback() {
		return command.Usagef("--listen %q: a loopback address and a port", *listen)
	}
	source, err := netip.ParseAddr(*from)
	if err != nil {
		return command.Usagef("--from: %v", err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	if err := os.WriteFile(*portFile, []byte(listener.Addr().String()), 0o644); err != nil {
		return fmt.Errorf("writing the port: %w", err)
	}
	fmt.Fprintln(c.Stderr, ready)
	slots := make(chan struct{}, maxForwarded)
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		go func() {
			defer func() { <-slots }()
			forward(ctx, conn, netlab.Namespace{Name: *namespace}, *to, source)
		}()
	}
}

// maxForwarded bounds the forwarder's connections.
const maxForwarded = 64

// forward copies between an accepted connection and a new one inside the namespace until both ways have ended.
func forward(ctx context.Context, a net.Conn, n netlab.Namespace, to string, from netip.Addr) {
	defer a.Close()
	dialing, cancel := context.WithTimeout(ctx, 10*time.Second)
	b, err := n.DialContext(dialing, "tcp", to, from)
	cancel()
	if err != nil {
		return // the other side sees a closed connection
	}
	defer b.Close()
	defer context.AfterFunc(ctx, func() { a.Close(); b.Close() })()
	var both errgroup.Group
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() error {
			_, err := io.Copy(way[1], way[0])
			if half, ok := way[1].(interface{ CloseWrite() error }); ok {
				err = errors.Join(err, half.CloseWrite())
			}
			return err
		})
	}
	_ = both.Wait() // a connection that broke is closed on both sides
}

var partFetchVerb = command.Verb{
	Name: "part fetch", Args: "--url URL --resolv-conf FILE [--bytes N] [--count N]",
	Summary: "(started by demo) a client that fetches through the tunnel and counts failures",
	Help: `Resolves the URL's host with the name server in the resolv.conf of the moment, fetches, checks every byte, and prints a line of JSON
for each fetch. It goes on until --count fetches, or until INT or TERM, which lets the fetch under way end.`,
	Run: runFetch,
}

func runFetch(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	url := fs.String("url", "", "`URL` with %d for the number of bytes")
	resolv := fs.String("resolv-conf", "", "`FILE` with the name server, read anew for each fetch")
	size := fs.Int64("bytes", fetchBytes, "`N` bytes a fetch")
	count := fs.Int("count", 0, "`N` fetches; 0: until ended")
	if err := parseRequired(c, fs, "url", "resolv-conf"); err != nil {
		return err
	}
	out := json.NewEncoder(c.Stdout)
	failed := 0
	for n := 1; *count == 0 || n <= *count; n++ {
		f := fetchOnce(*url, *resolv, *size)
		f.N = n
		if f.Error != "" {
			failed++
		}
		if err := out.Encode(f); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fetchPause):
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d fetches failed", failed, *count)
	}
	return nil
}
