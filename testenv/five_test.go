package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/rebuild/release"
	"mayfly/testenv/netlab"
)

// What goes wrong in TestFleetRotates5, by server. se-1 is left alone.
const (
	hangs   = "nl-1" // its machine stops right after it was switched on
	refuses = "nl-2" // its mirror gives it an altered root
	waits   = "se-3" // its first attempts to join are lost
	flaps   = "se-2" // it goes silent while it bakes
)

// TestFleetRotates5 rebuilds five machines under a client's traffic while one boot hangs, one refuses its root, one does not reach the controller
// for a while, and one goes silent. Nothing falls under the floor, nobody's traffic fails, each failure is named, and --retry mends them.
func TestFleetRotates5(t *testing.T) {
	t.Setenv(envTestFive, "1")
	three := machines
	machines = five
	defer func() { machines = three }()
	c := newClone(t)
	if code, out := c.run(t, "up"); code != command.OK || !strings.Contains(out, "The fleet is up.") {
		t.Fatalf("up: got exit %d, %q", code, out)
	}
	d := c.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	s, err := sqlite.Open(ctx, d.e.fleet("store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, err := d.servers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lab := &faults{d: d, store: s, before: before}
	lab.firewall(t)
	lab.liar(t)

	resolv := d.e.path("run", "resolv.conf")
	_, tunnelClient, err := d.startClient(ctx, resolv)
	if err != nil {
		t.Fatal(err)
	}
	events, err := d.events(ctx, 0)
	if err != nil || len(events) == 0 {
		t.Fatalf("got %d events, %v", len(events), err)
	}
	last := events[len(events)-1].ID
	fetcher, err := d.e.table.Start("fetch", d.background(d.e.bin("testenv"), "part", "fetch", "--url", targetURL(), "--resolv-conf", resolv), d.e.lab.Client.Start)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := d.watchList(ctx)
	if err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	faulty, end := context.WithCancel(ctx)
	var injecting sync.WaitGroup
	for _, f := range []func(context.Context) error{lab.hang, lab.lose, lab.flap} {
		injecting.Go(func() {
			if err := f(faulty); err != nil && faulty.Err() == nil {
				t.Error(err)
			}
		})
	}
	_, rotateErr := d.rotateNow(ctx, "with failures")
	took := time.Since(began)
	end()
	injecting.Wait()
	samples := lists.end()
	if err := errors.Join(fetcher.End(), tunnelClient.End()); err != nil {
		t.Errorf("the client: %v", err)
	}
	t.Logf("rotated with failures in %.0f s: %v", took.Seconds(), rotateErr)
	if rotateErr == nil {
		t.Error("rotate did not say that three servers are quarantined")
	}
	lab.injected(t)

	events, err = d.events(ctx, last)
	if err != nil {
		t.Fatal(err)
	}
	d.floorHeld(events, samples)
	d.r.check("no fetch failed", func() (string, error) { return d.countFetches(fetcher, began, took) })
	for _, check := range d.r.Checks {
		t.Logf("%s: %v %s", check.Name, check.OK, check.Detail)
		if !check.OK {
			t.Errorf("%s: %s", check.Name, check.Detail)
		}
	}
	now, err := d.servers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"se-1": "", waits: "",
		hangs:   `boot_limit`,
		refuses: `part_altered.*\(console: .*mayfly-stub`,
		flaps:   `silent`,
	} {
		x := now[name]
		state := inventory.Serving
		if want != "" {
			state = inventory.Quarantined
		}
		if x.State != state || x.Epoch != before[name].Epoch+1 {
			t.Errorf("%s: got %s in life %d, %q, want %s in life %d", name, x.State, x.Epoch, x.Cause, state, before[name].Epoch+1)
		}
		if want != "" && !regexp.MustCompile(want).MatchString(x.Cause) {
			t.Errorf("%s: got cause %q, want %s", name, x.Cause, want)
		}
		if want != "" {
			t.Logf("%s: %s", name, x.Cause)
		}
	}
	lab.endedOnce(t, ctx, 1)

	lab.mend(t)
	if _, err := d.fleetctl(ctx, "rotate", "--retry"); err != nil {
		t.Fatalf("rotate --retry: %v", err)
	}
	now, err = d.servers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		want := before[m.Name].Epoch + 1
		if slices.Contains([]string{hangs, refuses, flaps}, m.Name) {
			want++
		}
		if x := now[m.Name]; x.State != inventory.Serving || x.Epoch != want {
			t.Errorf("after --retry %s: got %s in life %d, %q, want serving in life %d", m.Name, x.State, x.Epoch, x.Cause, want)
		}
	}
	lab.endedOnce(t, ctx, 2)
	if code, _ := c.run(t, "down"); code != command.OK {
		t.Errorf("down: got exit %d", code)
	}
	c.nothingLeft(t)
}

// faults are what goes wrong in the lab, each when the server is where it shall.
type faults struct {
	d      *demo
	store  store.Store
	before map[string]store.Server

	mu   sync.Mutex // guards the rest
	hung bool
	lost bool
	mute bool
	lies int // altered roots that were given out
}

const faultTable = "testenv_faults"

func (f *faults) nft(ctx context.Context, text string) (string, error) {
	cmd := f.d.e.command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	return outputOf(cmd, f.d.e.lab.Core.Start)
}

func address(name string) netip.Addr {
	i := slices.IndexFunc(machines, func(m machine) bool { return m.Name == name })
	return netip.MustParsePrefix(machines[i].Address).Addr()
}

// firewall lays empty chains, and the way of one server to its liar.
func (f *faults) firewall(t *testing.T) {
	t.Helper()
	_, err := f.nft(t.Context(), fmt.Sprintf(`table inet %s {
	chain lost { }
	chain mute { }
	chain input { type filter hook input priority -10; jump lost; jump mute; }
	chain mirror { type nat hook prerouting priority dstnat; ip saddr %s tcp dport %d redirect to :%d; }
}
`, faultTable, address(refuses), bootPort, liarPort))
	if err != nil {
		t.Fatal(err)
	}
}

// joinPort of the lab's controller.
const joinPort = 8443

// liarPort is where the altering mirror listens.
const liarPort = 8099

// liar is the controller's boot port with one byte of the root changed.
func (f *faults) liar(t *testing.T) {
	t.Helper()
	l, err := f.d.e.lab.Core.Listen("tcp", netip.AddrPortFrom(netlab.Controller, liarPort).String())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: netip.AddrPortFrom(netlab.Controller, bootPort).String()})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
		return f.d.e.lab.Core.DialContext(ctx, network, to, netip.Addr{})
	}}
	proxy.ModifyResponse = func(r *http.Response) error {
		if !strings.HasSuffix(r.Request.URL.Path, release.RootFile) {
			return nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lies++
		head := make([]byte, 1)
		if _, err := io.ReadFull(r.Body, head); err != nil {
			return err
		}
		head[0] ^= 1
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), r.Body), r.Body}
		return nil
	}
	server := &http.Server{Handler: proxy}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// until waits for a state of a server's next life.
func (f *faults) until(ctx context.Context, name string, ok func(store.Server) bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := f.store.Server(ctx, name)
		if err != nil {
			return err
		}
		if s.Epoch > f.before[name].Epoch && ok(s) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// hang stops a machine once it was switched on.
func (f *faults) hang(ctx context.Context) error {
	err := f.until(ctx, hangs, func(s store.Server) bool {
		entries, err := f.store.Journal(ctx, hangs)
		return err == nil && slices.ContainsFunc(entries, func(e store.Entry) bool {
			return e.Epoch == s.Epoch && e.Step == "boot" && e.Outcome == "done"
		})
	})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(machines, func(m machine) bool { return m.Name == hangs })
	running, err := f.d.e.table.Running()
	if err != nil {
		return err
	}
	for _, r := range running {
		if machines[i].isRunBy(r.Command) {
			f.mu.Lock()
			f.hung = true
			f.mu.Unlock()
			return syscall.Kill(r.PID, syscall.SIGSTOP)
		}
	}
	return errors.New("no machine of " + hangs + " runs")
}

// lose drops what a booting machine sends to the join port, until some of it was lost.
func (f *faults) lose(ctx context.Context) error {
	err := f.until(ctx, waits, func(s store.Server) bool { return s.State == inventory.Booting })
	if err != nil {
		return err
	}
	if _, err := f.nft(ctx, fmt.Sprintf("add rule inet %s lost ip saddr %s tcp dport %d counter drop\n", faultTable, address(waits), joinPort)); err != nil {
		return err
	}
	counted := regexp.MustCompile(`counter packets ([0-9]+)`)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := f.d.e.outputIn(ctx, f.d.e.lab.Core, "nft", "list", "chain", "inet", faultTable, "lost")
		if err != nil {
			return err
		}
		if m := counted.FindStringSubmatch(text); m != nil && len(m[1]) == 1 && m[1] >= "3" || m != nil && len(m[1]) > 1 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	f.mu.Lock()
	f.lost = true
	f.mu.Unlock()
	_, err = f.nft(ctx, fmt.Sprintf("flush chain inet %s lost\n", faultTable))
	return err
}

// flap makes a server that bakes go silent.
func (f *faults) flap(ctx context.Context) error {
	err := f.until(ctx, flaps, func(s store.Server) bool { return s.State == inventory.Baking })
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.mute = true
	f.mu.Unlock()
	_, err = f.nft(ctx, fmt.Sprintf("add rule inet %s mute ip saddr %s tcp dport %d drop\n", faultTable, address(flaps), joinPort))
	return err
}

// injected wants every fault to have happened: otherwise the rest proves nothing.
func (f *faults) injected(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hung || !f.lost || !f.mute || f.lies == 0 {
		t.Errorf("hung %v, joins lost %v, muted %v, %d altered roots: want all of them", f.hung, f.lost, f.mute, f.lies)
	}
}

// mend takes all faults away.
func (f *faults) mend(t *testing.T) {
	t.Helper()
	if _, err := f.nft(t.Context(), fmt.Sprintf("delete table inet %s\n", faultTable)); err != nil {
		t.Fatal(err)
	}
}

// endedOnce wants one end for each life that a rotation began, with a proof of the restart where it serves.
func (f *faults) endedOnce(t *testing.T, ctx context.Context, rotations int) {
	t.Helper()
	all, err := f.store.Outcomes(ctx, "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	ends := map[string]int{}
	for _, o := range all {
		ends[fmt.Sprintf("%s %d", o.Server, o.Epoch)]++
		if o.Epoch > f.before[o.Server].Epoch && o.Served && !o.Restarted {
			data, _ := json.Marshal(o)
			t.Errorf("it serves and no proof says that it restarted: %s", data)
		}
	}
	now, err := f.d.servers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		for epoch := f.before[m.Name].Epoch + 1; epoch <= now[m.Name].Epoch; epoch++ {
			if n := ends[fmt.Sprintf("%s %d", m.Name, epoch)]; n != 1 {
				t.Errorf("rotation %d: life %d of %s ended %d times, want once", rotations, epoch, m.Name, n)
			}
		}
	}
}
