package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"mayfly/testenv/softkey"
)

// chunk is what the ends of a transfer read and write at once.
const chunk = 256 << 10

// forward measures bytes through direct-tcpip for each CPU-second of the server, with OpenSSH's client, each way.
func (b *bastionBench) forward(ctx context.Context) error {
	stop, socket, err := b.lab.agent(ctx)
	if err != nil {
		return err
	}
	defer stop()
	ways := []string{"forward_up", "forward_down"}
	got := map[string][]float64{}
	err = b.alternate(ctx, "forward", []sshServer{ownServer{}, openSSHServer{}, bareServer{}}, func(ctx context.Context, r *running) error {
		total := 0.0
		for _, way := range ways {
			stop, err := b.profiled(ctx, r, way)
			if err != nil {
				return err
			}
			seconds, wall, err := r.transfer(ctx, socket, way == "forward_up", b.Bytes)
			if err := errors.Join(err, stop()); err != nil {
				return fmt.Errorf("%s: %w", way, err)
			}
			total += seconds
			rate := float64(b.Bytes) / 1e6 / seconds
			got[way+r.name()] = append(got[way+r.name()], rate)
			fmt.Fprintf(b.Log, "%s: %s: %.0f MB/core-s, %.0f MB/s\n", way, r.name(), rate, float64(b.Bytes)/1e6/wall)
		}
		got["forward"+r.name()] = append(got["forward"+r.name()], float64(len(ways))*float64(b.Bytes)/1e6/total)
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range append([]string{"forward"}, ways...) {
		for _, peer := range []string{openSSH, xcrypto} {
			b.results = append(b.results, paired(name, "MB/core-s", peer, got[name+"mayfly"], got[name+peer], false))
		}
	}
	return nil
}

// agent serves the lab's first key to OpenSSH's client.
func (l *sshLab) agent(ctx context.Context) (stop func(), socket string, err error) {
	socket = l.path("agent")
	listener, err := softkey.Listen(socket)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = softkey.NewAgent(l.keys[0].Signer(softkey.Always)).Serve(ctx, listener) // a client that finds no agent says so
	}()
	return func() { cancel(); listener.Close(); <-done }, socket, nil
}

// profiled begins a profile of a server by perf, if one was asked for. It ends with stop.
func (b *bastionBench) profiled(ctx context.Context, r *running, what string) (stop func() error, err error) {
	if b.Profile == "" {
		return func() error { return nil }, nil
	}
	cmd := exec.CommandContext(ctx, "perf", "record", "-q", "-g", "-F", "999", "-o",
		filepath.Join(b.Profile, what+"-"+filepath.Base(r.name())+".perf"), "-p", fmt.Sprint(r.cmd.Process.Pid))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		exit := (*exec.ExitError)(nil)
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			return err
		}
		return nil
	}, nil
}

// transfer sends so many bytes one way through a forwarded connection and returns the server's CPU-seconds and the time it took.
func (r *running) transfer(ctx context.Context, agent string, up bool, size int64) (seconds, wall float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	client := r.lab.in(ctx, 0, "ssh", "-F", "none", "-T", "-p", fmt.Sprint(r.port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "GlobalKnownHostsFile="+os.DevNull, "-o", "UserKnownHostsFile="+r.lab.path("known_hosts"), "-o", "HostKeyAlgorithms=ssh-ed25519",
		"-o", "IdentityAgent="+agent, "-o", "IdentityFile=none", "-o", "KexAlgorithms=curve25519-sha256", "-o", "Ciphers="+cipherUsed,
		"-W", fmt.Sprintf("%s:%d", r.target(), targetPort), r.user(0)+"@"+serverAddress)
	stdin, err := client.StdinPipe()
	if err != nil {
		return 0, 0, err
	}
	stdout, err := client.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	var said bytes.Buffer
	client.Stderr = &said
	if err := client.Start(); err != nil {
		return 0, 0, err
	}
	defer func() {
		stdin.Close()
		if werr := client.Wait(); err != nil {
			err = errors.Join(err, werr, errors.New(said.String()))
		}
	}()
	defer context.AfterFunc(ctx, func() { r.lab.target.(*net.TCPListener).SetDeadline(time.Now()) })()
	conn, err := r.accept(client)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	before, err := r.cpu()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	var from io.Reader = conn
	var to io.WriteCloser = stdin
	if !up {
		from, to = stdout, conn
	}
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(send(to, size), to.Close()) }()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{from}, make([]byte, chunk))
	wall = time.Since(began).Seconds()
	if err := errors.Join(err, <-sent); err != nil {
		return 0, 0, err
	}
	if n != size {
		return 0, 0, fmt.Errorf("%d bytes of %d arrived", n, size)
	}
	after, err := r.cpu()
	if err != nil {
		return 0, 0, err
	}
	if after <= before {
		return 0, 0, errors.New("the server used no CPU time")
	}
	return after - before, wall, nil
}

// accept waits for the target's connection, no longer than the client lives.
func (r *running) accept(*exec.Cmd) (net.Conn, error) {
	listener := r.lab.target.(*net.TCPListener)
	if err := listener.SetDeadline(time.Now().Add(loginLimit)); err != nil {
		return nil, err
	}
	return listener.Accept()
}

func send(to io.Writer, size int64) (err error) {
	defer recovered(&err)
	zeros := make([]byte, chunk)
	for size > 0 {
		n, err := to.Write(zeros[:min(int64(len(zeros)), size)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}
