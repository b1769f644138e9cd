package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"

	"mayfly/internal/command"
	"mayfly/testenv/target"
)

// ready is what a part says when it can be asked.
const ready = "testenv: part: ready"

// fetched is one fetch through the tunnel.
type fetched struct {
	N         int       `json:"n"`
	At        time.Time `json:"at"`
	Seconds   float64   `json:"seconds"`
	DNS       string    `json:"dns"`       // the name server asked
	Validated bool      `json:"validated"` // it says that it checked the signatures (AD)
	Address   string    `json:"address"`   // what the name resolved to
	Source    string    `json:"source"`    // the address that the target saw
	Bytes     int64     `json:"bytes"`
	Error     string    `json:"error,omitempty"`
}

// fetchOnce resolves and fetches once. It has its own deadline: ending the program lets it end.
func fetchOnce(url, resolv string, size int64) (f fetched) {
	f.At = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	err := f.fetch(ctx, url, resolv, size)
	f.Seconds = time.Since(f.At).Seconds()
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

func (f *fetched) fetch(ctx context.Context, url, resolv string, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf(url, size), nil)
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	config, err := os.ReadFile(resolv)
	if err != nil {
		return fmt.Errorf("reading the name server: %w", err)
	}
	if f.DNS = nameServer(string(config)); f.DNS == "" {
		return fmt.Errorf("%s names no name server", resolv)
	}
	if f.Address, f.Validated, err = resolve(ctx, f.DNS, req.URL.Hostname()); err != nil {
		return err
	}
	port := req.URL.Port()
	if port == "" {
		port = "80"
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(f.Address, port))
		},
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the target answered %s", resp.Status)
	}
	f.Source = resp.Header.Get(target.Source)
	if err := target.Check(resp.Body, size); err != nil {
		return err
	}
	f.Bytes = size
	return nil
}

// nameServer is the first name server of a resolv.conf.
func nameServer(config string) string {
	for line := range strings.Lines(config) {
		if words := strings.Fields(line); len(words) >= 2 && words[0] == "nameserver" {
			return words[1]
		}
	}
	return ""
}

// resolve asks the name server, a few times as resolvers do over UDP. Names are never looked up anywhere else.
func resolve(ctx context.Context, server, name string) (address string, validated bool, err error) {
	query := new(dns.Msg)
	query.SetQuestion(dns.Fqdn(name), dns.TypeA)
	query.SetEdns0(1232, true)
	query.AuthenticatedData = true
	client := dns.Client{Timeout: dnsTry}
	var answer *dns.Msg
	for range dnsTries {
		if answer, _, err = client.ExchangeContext(ctx, query, net.JoinHostPort(server, "53")); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return "", false, fmt.Errorf("resolving %s at %s: %w", name, server, err)
	}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			return a.A.String(), answer.AuthenticatedData, nil
		}
	}
	return "", false, fmt.Errorf("resolving %s at %s: %s and no address", name, server, dns.RcodeToString[answer.Rcode])
}

// parseRequired parses flags of which some must be given, and no arguments.
func parseRequired(c *command.Call, fs *flag.FlagSet, required ...string) error {
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return command.Usagef("unexpected argument %q", fs.Arg(0))
	}
	var missing []error
	for _, name := range required {
		if fs.Lookup(name).Value.String() == "" {
			missing = append(missing, fmt.Errorf("--%s is missing", name))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return command.Usagef("%w", err)
	}
	return nil
}
