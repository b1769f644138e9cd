package bench

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"mayfly/tunnel/device"
)

// plane is a data plane that can be started at side 0 or 1.
type plane interface {
	name() string
	start(ctx context.Context, side int, keys [2]device.Key) (*exec.Cmd, error)
}

var (
	_ plane = (*ownPlane)(nil)
	_ plane = (*stockPlane)(nil)
)

const (
	port       = 51820
	startLimit = 10 * time.Second
	stopLimit  = 5 * time.Second
)

func newPair() (keys [2]device.Key, err error) {
	for i := range keys {
		if keys[i], err = device.NewPrivateKey(); err != nil {
			return keys, err
		}
	}
	return keys, nil
}

func outer(side int) string                 { return fmt.Sprintf("192.0.2.%d", side+1) }
func inner(side int) string                 { return fmt.Sprintf("10.99.0.%d", side+1) }
func (b *tunnelBench) node(side int) string { return fmt.Sprintf("%s-%d", b.tag, side) }
func (b *tunnelBench) tun(side int) string  { return fmt.Sprintf("%st%d", b.tag, side) }

// in is a command in a side's namespace, ended with ctx.
func (b *tunnelBench) in(ctx context.Context, side int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", b.node(side)}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	return cmd
}

// ownPlane is `tunnel device`.
type ownPlane struct{ b *tunnelBench }

func (p *ownPlane) name() string { return "mayfly" }

func (p *ownPlane) start(ctx context.Context, side int, keys [2]device.Key) (*exec.Cmd, error) {
	path := filepath.Join(p.b.dir, fmt.Sprintf("device-%d.json", side))
	data, err := json.Marshal(map[string]any{
		"name": p.b.tun(side), "private_key": keys[side].Base64(), "port": port, "peer_key": keys[1-side].Public().Base64(),
		"endpoint": fmt.Sprintf("%s:%d", outer(1-side), port), "allowed": []string{inner(1-side) + "/32"},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return nil, err
	}
	cmd := p.b.in(ctx, side, filepath.Join(p.b.dir, "tunnel"), "device", "--config", path)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("tunnel device said %q: %w", line, err), end(cmd))
	}
	return cmd, nil
}

// stockPlane is wireguard-go, configured through its own socket.
type stockPlane struct{ b *tunnelBench }

func (p *stockPlane) name() string { return wireguardGo }

func (p *stockPlane) start(ctx context.Context, side int, keys [2]device.Key) (*exec.Cmd, error) {
	cmd := p.b.in(ctx, side, filepath.Join(p.b.dir, "wireguard-go"), "--foreground", p.b.tun(side))
	cmd.Env = append(os.Environ(), "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=silent")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	private, public := keys[side], keys[1-side].Public()
	err := configure(ctx, "/var/run/wireguard/"+p.b.tun(side)+".sock", fmt.Sprintf(
		"set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s:%d\npersistent_keepalive_interval=25\nallowed_ip=%s/32\n\n",
		hex.EncodeToString(private[:]), port, hex.EncodeToString(public[:]), outer(1-side), port, inner(1-side)))
	if err != nil {
		return nil, errors.Join(err, end(cmd))
	}
	return cmd, nil
}

// configure waits for wireguard-go's socket and sends it its configuration.
func configure(ctx context.Context, socket, text string) error {
	conn, err := await(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(startLimit)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != "errno=0" {
		return fmt.Errorf("wireguard-go answered %q", answer)
	}
	return nil
}

func await(ctx context.Context, socket string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for wireguard-go: %w", err)
		case <-tick.C:
		}
	}
}

// end stops a process and waits for it.
func end(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(stopLimit, func() {
		if err := cmd.Process.Kill(); err != nil {
			return // it has ended
		}
	})
	defer kill.Stop()
	exit := (*exec.ExitError)(nil)
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
