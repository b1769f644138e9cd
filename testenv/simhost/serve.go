package simhost

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"

	"mayfly/fleetctl/rotate"
	"mayfly/inventory"
)

// maxLine bounds a request and its answer.
const maxLine = 64 << 10

// Serve lets other processes switch the machines, over a socket in the file system, until ctx ends.
func (h *Hosts) Serve(ctx context.Context, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		all.Go(func() {
			defer conn.Close()
			end := context.AfterFunc(ctx, func() { conn.Close() })
			defer end()
			lines := bufio.NewScanner(conn)
			lines.Buffer(nil, maxLine)
			for lines.Scan() {
				var r request
				a := answer{Err: "no request"}
				if json.Unmarshal(lines.Bytes(), &r) == nil {
					a = h.do(r)
				}
				if json.NewEncoder(conn).Encode(a) != nil {
					return
				}
			}
		})
	}
}

// Remote are machines that another process serves.
type Remote struct{ Socket string }

var _ rotate.Machines = Remote{}

// Machine is a server's machine.
func (r Remote) Machine(s inventory.Server) (rotate.Machine, error) {
	return driver{r.ask, s.Name}, nil
}

func (r Remote) ask(ctx context.Context, q request) (a answer, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", r.Socket)
	if err != nil {
		return a, fmt.Errorf("asking the machine of %s: %w", q.Server, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return a, err
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() {
		return a, fmt.Errorf("asking the machine of %s: no answer: %w", q.Server, lines.Err())
	}
	return a, json.Unmarshal(lines.Bytes(), &a)
}
