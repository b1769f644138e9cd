package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"mayfly/testenv/target"
)

// askedBytes is what the web target is asked for before anything depends on it.
const askedBytes = 64 << 10

// dialer dials IP:PORT from some namespace.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// askWeb fetches from the target by its address and checks every byte.
func askWeb(ctx context.Context, dial dialer, web netip.AddrPort) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/bytes/%d", web, askedBytes), nil)
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true, DialContext: dial}).RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking the target %s: %w", web, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get(target.Source) == "" {
		return fmt.Errorf("the target %s answered %s", web, resp.Status)
	}
	return target.Check(resp.Body, askedBytes)
}

// askRoot asks the DNS root for the target's name, and wants its address with a signature.
func askRoot(ctx context.Context, dial dialer, root netip.AddrPort, want netip.Addr) error {
	conn, err := dial(ctx, "udp", root.String())
	if err != nil {
		return fmt.Errorf("asking the DNS root %s: %w", root, err)
	}
	defer conn.Close()
	query := new(dns.Msg)
	query.SetQuestion(dns.Fqdn(webName), dns.TypeA)
	query.SetEdns0(1232, true)
	client := dns.Client{Timeout: dnsTry}
	answer, _, err := client.ExchangeWithConnContext(ctx, query, &dns.Conn{Conn: conn})
	if err != nil {
		return fmt.Errorf("asking the DNS root %s: %w", root, err)
	}
	address, signed := "", false
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			address = rr.A.String()
		case *dns.RRSIG:
			signed = true
		}
	}
	if address != want.String() || !signed {
		return fmt.Errorf("the DNS root %s answered %s, address %q, signed %v, want %s", root, dns.RcodeToString[answer.Rcode], address, signed, want)
	}
	return nil
}

// unanswered wants a dial to have failed for want of an answer or of a way. Anything else was an answer, or another fault, and
// proves nothing.
func unanswered(conn net.Conn, err error) error {
	if err == nil {
		conn.Close()
		return errors.New("the target answered")
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return nil
	}
	return fmt.Errorf("got neither silence nor unreachable: %w", err)
}
