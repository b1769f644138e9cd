package controllers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/testenv/debian"
)

// childTask is the environment of a process that is a Child: a Task as JSON.
const childTask = "MAYFLY_CONTROLLERS_TASK"

func TestMain(m *testing.M) {
	if text := os.Getenv(childTask); text != "" {
		ctx, stop := command.Signals(context.Background())
		var t Task
		err := json.Unmarshal([]byte(text), &t)
		if err == nil {
			err = Child(ctx, t, os.Stdout, os.Stderr)
		}
		stop()
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", t.Do, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// etcdNeed is the store that they share.
var etcdNeed = debian.Need{Name: "etcd", Package: "etcd-server"}

// limit is for any state to come about.
const limit = 5 * time.Minute

// lab is etcd and the hosts in one namespace, and a namespace for each controller, joined to it by a veth pair.
type lab struct {
	t      *testing.T
	dir    string
	prefix string // of namespaces
	etcd   *process

	started int // controllers that were started again
}

type process struct {
	cmd  *exec.Cmd
	out  *bytes.Buffer
	log  string
	done chan struct{}
	err  error // once done is closed
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it runs controllers for a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	if missing := debian.Missing([]debian.Need{etcdNeed, {Name: "ip", Package: "iproute2"}}); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	l := &lab{t: t, dir: t.TempDir(), prefix: fmt.Sprintf("mfc%d-", os.Getpid())}
	l.ip("netns", "add", l.ns(0))
	t.Cleanup(func() { l.ip("netns", "del", l.ns(0)) })
	l.ip("-n", l.ns(0), "link", "set", "lo", "up")
	for i := 1; i <= 3; i++ {
		l.ip("netns", "add", l.ns(i))
		t.Cleanup(func() { l.ip("netns", "del", l.ns(i)) })
		l.ip("-n", l.ns(i), "link", "set", "lo", "up")
		l.ip("-n", l.ns(0), "link", "add", fmt.Sprintf("c%d", i), "type", "veth", "peer", "name", "eth0", "netns", l.ns(i))
		l.ip("-n", l.ns(0), "addr", "add", fmt.Sprintf("10.9.%d.1/24", i), "dev", fmt.Sprintf("c%d", i))
		l.ip("-n", l.ns(i), "addr", "add", fmt.Sprintf("10.9.%d.2/24", i), "dev", "eth0")
		l.ip("-n", l.ns(0), "link", "set", fmt.Sprintf("c%d", i), "up")
		l.ip("-n", l.ns(i), "link", "set", "eth0", "up")
	}
	l.certificates()
	return l
}

func (l *lab) ns(i int) string { return fmt.Sprintf("%s%d", l.prefix, i) }

func (l *lab) ip(args ...string) {
	l.t.Helper()
	cmd := exec.Command("ip", args...)
	cmd.Env = append(os.Environ(), "PATH="+debian.Path(os.Getenv("PATH")))
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// certificates are of one CA: the server's for all its addresses, and one client's.
func (l *lab) certificates() {
	l.t.Helper()
	folder := filepath.Join(l.dir, "etcd")
	check := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
	}
	check(os.Mkdir(folder, 0o700))
	write := func(name, kind string, der []byte) {
		check(os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	now := time.Now()
	make := func(name string, change func(*x509.Certificate), parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		c := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		change(c)
		if parent == nil {
			parent, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		check(err)
		c, err = x509.ParseCertificate(der)
		check(err)
		private, err := x509.MarshalPKCS8PrivateKey(key)
		check(err)
		write(name+".pem", "CERTIFICATE", der)
		write(name+".key", "PRIVATE KEY", private)
		return c, key
	}
	ca, key := make("ca", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	}, nil, nil)
	make("server", func(c *x509.Certificate) {
		for i := 1; i <= 3; i++ {
			c.IPAddresses = append(c.IPAddresses, net.IPv4(10, 9, byte(i), 1))
		}
		c.IPAddresses = append(c.IPAddresses, net.IPv4(127, 0, 0, 1))
	}, ca, key)
	make("client", func(*x509.Certificate) {}, ca, key)
}

// start starts a program in a namespace.
func (l *lab) start(i int, name string, env []string, args ...string) *process {
	l.t.Helper()
	p := &process{out: &bytes.Buffer{}, log: filepath.Join(l.dir, name+".log"), done: make(chan struct{})}
	f, err := os.Create(p.log)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", l.ns(i)}, args...)...)
	p.cmd.Env = append(append(os.Environ(), "PATH="+debian.Path(os.Getenv("PATH"))), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, f
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may have ended, or not be stopped
		_ = p.cmd.Process.Kill()
		<-p.done
		if l.t.Failed() {
			data, err := os.ReadFile(p.log)
			l.t.Logf("%s said (%v):\n%s", name, err, data[max(0, len(data)-6000):])
		}
	})
	return p
}

// until waits for a state, and for nothing longer than limit.
func (l *lab) until(what string, ok func() bool) {
	l.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			l.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// says reports whether a process has said something n times.
func (p *process) says(text string, n int) bool {
	data, err := os.ReadFile(p.log)
	return err == nil && bytes.Count(data, []byte(text)) >= n
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (l *lab) startEtcd(name string) {
	l.t.Helper()
	folder := filepath.Join(l.dir, "etcd")
	l.etcd = l.start(0, name, nil, "etcd", "--data-dir", filepath.Join(l.dir, "data"), "--listen-client-urls", "https://0.0.0.0:2379", "--advertise-client-urls", "https://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--client-cert-auth", "--trusted-ca-file", filepath.Join(folder, "ca.pem"),
		"--cert-file", filepath.Join(folder, "server.pem"), "--key-file", filepath.Join(folder, "server.key"), "--log-level", "warn", "--logger", "zap")
	l.until("etcd listens", func() bool {
		cmd := exec.Command("ip", "netns", "exec", l.ns(0), "ss", "-Hltn", "sport = :2379")
		cmd.Env = append(os.Environ(), "PATH="+debian.Path(os.Getenv("PATH")))
		out, err := cmd.Output()
		return err == nil && bytes.Contains(out, []byte("2379"))
	})
}

func (l *lab) child(i int, name string, t Task) *process {
	l.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	host := "127.0.0.1"
	if i > 0 {
		host = fmt.Sprintf("10.9.%d.1", i)
	}
	t.Dir = filepath.Join(l.dir, fmt.Sprintf("state-%d", i)) // each controller has its own, and remembers its store there
	folder := filepath.Join(t.Dir, "etcd")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		l.t.Fatal(err)
	}
	for _, file := range []string{"ca.pem", "client.pem", "client.key"} {
		if err := os.WriteFile(filepath.Join(folder, file), read(l.t, filepath.Join(l.dir, "etcd", file)), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	t.Socket = filepath.Join(l.dir, "power")
	if t.Name == "" {
		t.Name = name
	}
	t.Store = "etcd://" + host + ":2379/lab"
	data, err := json.Marshal(t)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.start(i, name, []string{childTask + "=" + string(data)}, exe)
}

// again starts a controller once more, as cron does.
func (l *lab) again(i int, name string) *process {
	l.t.Helper()
	l.started++
	return l.child(i, fmt.Sprintf("%s-%d", name, l.started), Task{Do: "rotate", Name: name})
}

// finishes waits for a controller's end, and starts it again for as long as it ends for want of etcd: what comes back has done its part of the run.
func (l *lab) finishes(i int, name string, p *process) *process {
	l.t.Helper()
	l.until(name+" finishes the run", func() bool {
		if !p.ended() {
			return false
		}
		if p.err != nil {
			p = l.again(i, name)
			return false
		}
		return true
	})
	return p
}

// TestThreeControllers: one is killed, one cut off, one stopped past its claims and continued, and etcd ends and comes back.
func TestThreeControllers(t *testing.T) {
	l := newLab(t)
	l.startEtcd("etcd-1")
	machines := l.child(0, "hosts", Task{Do: "hosts"})
	l.until("the hosts serve", func() bool { return machines.says("hosts: ready", 1) || machines.ended() })
	const works = "booting life"
	a := l.child(1, "a", Task{Do: "rotate"})
	b := l.child(2, "b", Task{Do: "rotate"})
	c := l.child(3, "c", Task{Do: "rotate"})
	rotates := func(p *process, n int) func() bool {
		return func() bool { return p.says(works, n) || p.ended() }
	}
	l.until("all three carry servers", func() bool { return rotates(a, 1)() && rotates(b, 1)() && rotates(c, 1)() })

	t.Log("a is killed")
	if err := a.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-a.done

	t.Log("b is cut off")
	l.ip("-n", l.ns(0), "link", "set", "c2", "down")
	l.until("b has lost its claims and stopped, or says so", func() bool { return b.ended() || b.says("claim was lost", 1) })
	l.until("c goes on alone", rotates(c, 4))
	l.ip("-n", l.ns(0), "link", "set", "c2", "up")
	if b.ended() {
		b = l.again(2, "b")
	}

	t.Log("etcd ends and comes back")
	if err := l.etcd.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-l.etcd.done
	l.startEtcd("etcd-2")

	t.Log("c is stopped past its claims, and continued")
	for stopped, carried := false, bytes.Count(read(t, c.log), []byte(works)); !stopped; carried++ {
		l.until("c begins another boot", rotates(c, carried+1))
		if c.ended() { // it found no etcd, and said so: cron begins it again
			if c.err == nil {
				t.Fatal("the run was over before c could be stopped")
			}
			c, carried = l.again(3, "c"), -1
			continue
		}
		if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		said := read(t, c.log)
		if stopped = bytes.Count(said, []byte(works)) > bytes.Count(said, []byte(": serving (")); !stopped { // it holds nothing: the stop would prove nothing
			if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
	}
	// b ends the run only when what c had under way was taken over.
	b = l.finishes(2, "b", b)
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	l.until("c ends", c.ended)
	last := l.finishes(1, "a", l.again(1, "a"))
	if want := "a: all is done\n"; last.out.String() != want {
		t.Errorf("got %q, want %q", last.out, want)
	}

	if err := machines.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-machines.done
	var f Found
	if err := json.Unmarshal(machines.out.Bytes(), &f); err != nil {
		t.Fatalf("the hosts said %q: %v, %v", machines.out, err, machines.err)
	}
	judge(t, f)
	t.Logf("b said %q (%v), c %q (%v)", strings.TrimSpace(b.out.String()), b.err, strings.TrimSpace(c.out.String()), c.err)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// judge wants every server to serve a new life, each life booted once and ended once, and floors and width kept by every event.
func judge(t *testing.T, f Found) {
	t.Helper()
	b, err := shape().Bundle()
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Servers) != servers || f.Open {
		t.Errorf("got %d servers, a run open %v, want %d and none", len(f.Servers), f.Open, servers)
	}
	ends := map[string]int{}
	for _, o := range f.Outcomes {
		key := fmt.Sprintf("%s %d", o.Server, o.Epoch)
		if ends[key]++; ends[key] > 1 {
			t.Errorf("the rotation to life %d of %s ended twice", o.Epoch, o.Server)
		}
		if o.Served && !o.Restarted {
			t.Errorf("the rotation to life %d of %s counts without a proof that it restarted", o.Epoch, o.Server)
		}
	}
	boots, again := 0, 0
	for _, s := range f.Servers {
		if s.State != inventory.Serving || s.Epoch < 2 {
			t.Errorf("%s is %s in life %d (%s), want serving in a new one", s.Name, s.State, s.Epoch, s.Cause)
		}
		if ends[fmt.Sprintf("%s %d", s.Name, s.Epoch)] != 1 {
			t.Errorf("the rotation to life %d of %s has not ended", s.Epoch, s.Name)
		}
		for epoch, n := range f.Boots[s.Name] {
			boots += n
			if n != 1 {
				t.Errorf("life %d of %s was booted %d times", epoch, s.Name, n)
			}
		}
		again += int(s.Epoch) - 2
	}
	serving, up, out := map[string]int{}, map[string]bool{}, map[string]bool{}
	most := 0
	for _, e := range f.Events {
		g := b.Inventory.RegionOf(e.Server)
		switch {
		case e.To == string(inventory.Serving):
			serving[g]++
			up[e.Server] = true
			delete(out, e.Server)
		case e.From == string(inventory.Serving):
			serving[g]--
			out[e.Server] = true
		}
		if len(up) < servers {
			continue // being brought up
		}
		if most = max(most, len(out)); len(out) > width {
			t.Errorf("%d servers are out at once, want %d at most", len(out), width)
		}
		for name, n := range serving {
			if n*100 < floor*servers/regions {
				t.Errorf("region %s has %d servers, its floor is %d %% of %d", name, n, floor, servers/regions)
			}
		}
	}
	if again > 4*width {
		t.Errorf("%d lives beside the least: each fault costs those that were under way, and no more", again)
	}
	t.Logf("%d servers, %d boots, %d lives beside the least, %d ends, %d out at most, %d events", len(f.Servers), boots, again, len(f.Outcomes), most, len(f.Events))
}
