package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/testenv/netlab"
	"mayfly/testenv/supervise"
	"mayfly/tunnel/checkin"
	"mayfly/tunnel/client"
)

func (d *demo) clientConfig() string { return d.e.fleet("public", "client.json") }

// targetURL has %d for the number of bytes.
func targetURL() string { return "http://" + webName + "/bytes/%d" }

// checkinClient asks for the list from inside the client's namespace.
func (d *demo) checkinClient() (*checkin.Client, error) {
	config, err := checkin.LoadConfig(d.clientConfig())
	if err != nil {
		return nil, err
	}
	return &checkin.Client{Config: config, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return d.e.lab.Client.DialContext(ctx, network, address, netlab.Engineer)
	}}, nil
}

// tunnel carries traffic with our client and with stock tools.
func (d *demo) tunnel(ctx context.Context) error {
	if err := d.must("check-in gives the signed list of all servers", func() (string, error) {
		c, err := d.checkinClient()
		if err != nil {
			return "", err
		}
		list, err := d.awaitList(ctx, c, len(machines))
		if err != nil {
			return "", err
		}
		var names []string
		for _, s := range list.Servers {
			names = append(names, s.Name)
		}
		return fmt.Sprintf("%s, until %s", strings.Join(names, " "), list.Expires.Format(time.TimeOnly)), nil
	}); err != nil {
		return err
	}
	resolv := d.e.path("run", "resolv.conf")
	session, p, err := d.startClient(ctx, resolv)
	if err != nil {
		d.r.add("tunnel client is up", "", err, 0)
		return err
	}
	d.r.add("tunnel client is up", fmt.Sprintf("on %s, address %s, resolver %s", session.Server, session.Address, session.DNS), nil, 0)
	d.r.check("tunnel client pulls through the server's NAT", func() (string, error) {
		return d.pull(ctx, resolv, session.Server, session.DNS)
	})
	if err := p.End(); err != nil {
		return err
	}
	d.r.check("without the tunnel nothing gets through", func() (string, error) {
		dialing, cancel := context.WithTimeout(ctx, silentLimit/2)
		defer cancel()
		at := netip.AddrPortFrom(netlab.WebTarget, webPort).String()
		if err := unanswered(d.e.lab.Client.DialContext(dialing, "tcp", at, netip.Addr{})); err != nil {
			return "", err
		}
		return "the client left no route behind", nil
	})
	d.r.check("stock WireGuard tools pull with the registered file", func() (string, error) { return d.stock(ctx) })
	return nil
}

// awaitList asks until the list holds so many servers, none of them draining.
func (d *demo) awaitList(ctx context.Context, c *checkin.Client, want int) (*checkin.List, error) {
	ctx, cancel := context.WithTimeout(ctx, tunnelLimit)
	defer cancel()
	tick := time.NewTicker(samplePause)
	defer tick.Stop()
	for {
		list, err := c.Fetch(ctx, time.Now())
		if err == nil && len(list.Servers) == want {
			return list, nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("the list holds %d servers, want %d", len(list.Servers), want)
			}
			return nil, err
		case <-tick.C:
		}
	}
}

// startClient starts `tunnel client` and waits until it is up.
func (d *demo) startClient(ctx context.Context, resolv string) (client.Event, *supervise.Process, error) {
	if err := os.RemoveAll(d.e.log("tunnel-client")); err != nil {
		return client.Event{}, nil, err
	}
	p, err := d.daemon(ctx, "tunnel-client", d.e.lab.Client, `"event":"up"`,
		d.background(d.e.bin("tunnel"), "client", "--config", d.clientConfig(), "--route", netlab.Targets.String(), "--resolv-conf", resolv))
	if err != nil {
		return client.Event{}, nil, err
	}
	events, err := clientEvents(p.Log)
	if err != nil {
		return client.Event{}, nil, err
	}
	for _, e := range events {
		if e.Event == "up" {
			return e, p, nil
		}
	}
	return client.Event{}, nil, errors.New("tunnel client said that it is up, and not where")
}

// clientEvents reads the JSON lines of `tunnel client`'s output.
func clientEvents(log string) ([]client.Event, error) {
	data, err := os.ReadFile(log)
	if err != nil {
		return nil, fmt.Errorf("reading the client's events: %w", err)
	}
	var events []client.Event
	for line := range bytes.Lines(data) {
		var e client.Event
		if bytes.HasPrefix(line, []byte("{")) && json.Unmarshal(line, &e) == nil {
			events = append(events, e)
		}
	}
	return events, nil
}

// pull fetches a few MB by name and sees that DNS was validated by the server's resolver and that the target saw the server.
func (d *demo) pull(ctx context.Context, resolv, server string, resolver netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tunnelLimit)
	defer cancel()
	out, err := d.e.outputIn(ctx, d.e.lab.Client, d.e.bin("testenv"), "part", "fetch", "--url", targetURL(), "--resolv-conf", resolv,
		"--bytes", fmt.Sprint(pullBytes), "--count", "1")
	var f fetched
	if jsonErr := json.Unmarshal([]byte(out), &f); jsonErr != nil {
		return "", errors.Join(err, fmt.Errorf("reading %q: %w", out, jsonErr))
	}
	if f.Error != "" || err != nil {
		return "", fmt.Errorf("fetching: %s", f.Error)
	}
	want := ""
	for _, m := range machines {
		if m.Name == server {
			want = netip.MustParsePrefix(m.Address).Addr().String()
		}
	}
	switch {
	case f.Source != want:
		return "", fmt.Errorf("the target saw %s, want %s of %s", f.Source, want, server)
	case f.DNS != resolver.String():
		return "", fmt.Errorf("asked name server %s, want %s", f.DNS, resolver)
	case !f.Validated:
		return "", fmt.Errorf("%s did not say that it checked DNSSEC", f.DNS)
	}
	return fmt.Sprintf("%.0f MB in %.1f s (%.0f Mbit/s), DNS checked by %s, the target saw %s", mb(f.Bytes), f.Seconds,
		float64(f.Bytes)*8/1e6/f.Seconds, f.DNS, f.Source), nil
}

// stock uses wg-quick with the file that `tunnel register` wrote. Where the kernel has no WireGuard, wg-quick starts the stock
// userspace program. Its DNS line goes through resolvconf, here a script that writes the file that the fetch reads.
func (d *demo) stock(ctx context.Context) (detail string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*tunnelLimit)
	defer cancel()
	config, resolv, shim := d.e.path("run", "mfstock.conf"), d.e.path("run", "stock-resolv.conf"), d.e.path("run", "shim")
	if err := os.MkdirAll(shim, 0o755); err != nil {
		return "", err
	}
	script := fmt.Sprintf("#!/bin/sh\n# stands in for resolvconf in the client's namespace\ncase \"$1\" in\n-a) cat > %q ;;\n-d) rm -f %q ;;\nesac\n", resolv, resolv)
	if err := d.write(filepath.Join(shim, "resolvconf"), []byte(script), 0o755); err != nil {
		return "", err
	}
	out, err := d.e.outputIn(ctx, d.e.lab.Client, d.e.bin("tunnel"), "register", "--config", d.clientConfig(), "--route", netlab.Targets.String(),
		"--out", config, "-o", "json")
	if err != nil {
		return "", err
	}
	var registered struct {
		Server string     `json:"server"`
		DNS    netip.Addr `json:"dns"`
	}
	if err := json.Unmarshal([]byte(out), &registered); err != nil {
		return "", fmt.Errorf("reading what tunnel register printed: %w", err)
	}
	quick := func(verb string) error {
		cmd := d.e.command(ctx, "wg-quick", verb, config)
		cmd.Env = append(cmd.Env, "PATH="+shim+":"+envValue(cmd.Env, "PATH"), "WG_QUICK_USERSPACE_IMPLEMENTATION="+d.e.bin("wireguard-go"))
		_, err := outputOf(cmd, d.e.lab.Client.Start)
		return err
	}
	if err := quick("up"); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, quick("down")) }()
	kind, err := d.e.outputIn(ctx, d.e.lab.Client, "ip", "-details", "link", "show", "mfstock")
	if err != nil {
		return "", err
	}
	with := "wireguard-go"
	if strings.Contains(kind, "wireguard") {
		with = "the kernel's WireGuard"
	}
	detail, err = d.pull(ctx, resolv, registered.Server, registered.DNS)
	return fmt.Sprintf("wg-quick with %s on %s: %s", with, registered.Server, detail), err
}

// envValue is the last value of a variable.
func envValue(env []string, name string) string {
	value := ""
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			value = rest
		}
	}
	return value
}
