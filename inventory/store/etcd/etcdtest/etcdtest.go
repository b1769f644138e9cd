// Package etcdtest starts Debian's etcd for tests.
package etcdtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"mayfly/inventory"
)

// startLimit is for a cluster to elect its leader, on a machine that has much else to do.
const startLimit = time.Minute

// attempts is how often a port that somebody else took meanwhile is chosen anew.
const attempts = 3

// Member is one running etcd.
type Member struct {
	Client string // HOST:PORT
	peer   string
	name   string
	cmd    *exec.Cmd
	log    *os.File
	tls    []string
	dir    string
	all    string
}

// Cluster is a running cluster on this machine.
type Cluster struct {
	Members []*Member
}

// Start starts a cluster whose files are below dir. Further arguments go to every member; with them its clients speak TLS.
func Start(ctx context.Context, dir string, members int, tls ...string) (*Cluster, error) {
	var err error
	for range attempts {
		var c *Cluster
		if c, err = start(ctx, dir, members, tls); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func start(ctx context.Context, dir string, members int, tls []string) (*Cluster, error) {
	dir, err := os.MkdirTemp(dir, "etcd-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	var all []string
	for i := range members {
		m := &Member{name: fmt.Sprintf("m%d", i), dir: dir, tls: tls}
		for _, a := range []*string{&m.Client, &m.peer} {
			if *a, err = free(); err != nil {
				return nil, err
			}
		}
		all = append(all, m.name+"=http://"+m.peer)
		c.Members = append(c.Members, m)
	}
	for _, m := range c.Members {
		m.all = strings.Join(all, ",")
		if err := m.Run(); err != nil {
			c.Stop()
			return nil, err
		}
	}
	for _, m := range c.Members {
		if err := m.ready(ctx); err != nil {
			c.Stop()
			return nil, err
		}
	}
	return c, nil
}

// free returns a port that nobody has at the moment.
func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Run starts the member, also after Kill.
func (m *Member) Run() error {
	scheme := "http://"
	if len(m.tls) > 0 {
		scheme = "https://"
	}
	log, err := os.OpenFile(filepath.Join(m.dir, m.name+".log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	m.log = log
	args := append([]string{"--name", m.name, "--data-dir", filepath.Join(m.dir, m.name), "--listen-client-urls", scheme + m.Client, "--advertise-client-urls", scheme + m.Client,
		"--listen-peer-urls", "http://" + m.peer, "--initial-advertise-peer-urls", "http://" + m.peer, "--initial-cluster", m.all, "--logger", "zap", "--log-outputs", "stderr"}, m.tls...)
	m.cmd = exec.Command("etcd", args...)
	m.cmd.Stderr, m.cmd.Stdout = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return m.cmd.Start()
}

// ready waits for the line with which a member says that it serves.
func (m *Member) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	over := make(chan struct{})
	go func() { // the log is a file: whoever reads it has to look again
		defer close(over)
		f, err := os.Open(m.log.Name())
		if err != nil {
			return
		}
		defer f.Close()
		r := bufio.NewReader(f)
		line := ""
		for ctx.Err() == nil {
			part, err := r.ReadString('\n')
			if line += part; err == io.EOF {
				if syscall.Kill(m.cmd.Process.Pid, 0) != nil || gone(m.cmd.Process.Pid) {
					return
				}
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if strings.Contains(line, "serving client traffic") {
				return
			}
			line = ""
		}
	}()
	<-over
	data, _ := os.ReadFile(m.log.Name())
	if !strings.Contains(string(data), "serving client traffic") {
		return fmt.Errorf("etcd %s does not serve: %s", m.name, tail(string(data)))
	}
	return nil
}

// gone reports whether a process has ended and is only left to be waited for.
func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// Signal sends a signal, to stop a member in the middle or have it go on.
func (m *Member) Signal(sig os.Signal) error { return m.cmd.Process.Signal(sig) }

// Kill ends the member.
func (m *Member) Kill() {
	if m.cmd == nil || m.cmd.Process == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	_ = m.log.Close()
	m.cmd = nil
}

// Stop ends all members.
func (c *Cluster) Stop() {
	for _, m := range c.Members {
		m.Kill()
	}
}

// Address is a store's place in the cluster.
func (c *Cluster) Address(prefix string) inventory.StoreAddress {
	a := inventory.StoreAddress{Prefix: prefix}
	for _, m := range c.Members {
		a.Endpoints = append(a.Endpoints, m.Client)
	}
	return a
}

// Client is a client of the cluster without TLS, to look at it and to change what a store would not.
func (c *Cluster) Client() (*clientv3.Client, error) {
	var endpoints []string
	for _, m := range c.Members {
		endpoints = append(endpoints, "http://"+m.Client)
	}
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: startLimit, Logger: zap.NewNop()})
}
