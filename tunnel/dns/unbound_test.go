package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"mayfly/inventory"
	"mayfly/testenv/dnsroot"
)

func config() Config {
	return Config{
		Address: netip.MustParseAddr("10.64.1.1"),
		Network: netip.MustParsePrefix("10.64.1.0/24"),
		Private: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")},
	}
}

func ownRoot() inventory.DNS {
	return inventory.DNS{
		Roots:        []inventory.RootServer{{Name: "root.test.", Address: netip.MustParseAddr("203.0.113.53")}},
		TrustAnchors: []string{". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"},
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		address, network, want string
	}{
		{"10.64.1.1", "10.64.1.0/24", ""},
		{"10.64.0.1", "10.64.0.0/16", ""},
		{"10.64.2.1", "10.64.1.0/24", "not in network"},
		{"10.64.0.1", "10.64.0.0/12", "/16 to /29"}, // as in the inventory and the server
		{"10.64.1.1", "10.64.1.0/30", "/16 to /29"},
		{"192.0.2.1", "192.0.2.0/24", "private network"},
		{"fd00::1", "fd00::/64", "an IPv4 network"},
	} {
		err := Config{Address: netip.MustParseAddr(tt.address), Network: netip.MustParsePrefix(tt.network)}.Check()
		if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && !strings.Contains(got, tt.want) {
			t.Errorf("%s in %s: got %v, want %q", tt.address, tt.network, err, tt.want)
		}
	}
}

func TestSaysWhatMatters(t *testing.T) {
	text := string(Unbound(config()))
	for _, want := range []string{
		"interface: 10.64.1.1", "access-control: 10.64.1.0/24 allow", "access-control: 0.0.0.0/0 refuse", "verbosity: 0",
		"log-queries: no", "log-replies: no", "use-syslog: no", "logfile: \"\"", "pidfile: \"\"", "control-enable: no", "username: \"unbound\"",
		"module-config: \"validator iterator\"", "qname-minimisation: yes", "chroot: \"\"", "private-address: 10.77.0.0/24",
		"root-hints: \"/usr/share/dns/root.hints\"", "trust-anchor-file: \"/usr/share/dns/root.key\"",
	} {
		if !strings.Contains(text, "\t"+want+"\n") {
			t.Errorf("lacks %q", want)
		}
	}
	if n := strings.Count(text, "\tinterface: "); n != 1 {
		t.Errorf("it listens on %d addresses, want 1", n)
	}
	c := config()
	c.Root = ownRoot()
	text = string(Unbound(c))
	for _, never := range []string{"root-hints", "trust-anchor-file"} {
		if strings.Contains(text, never) {
			t.Errorf("with a root of its own it still has %s", never)
		}
	}
	c.Root.TrustAnchors = []string{"x\"\n\tverbosity: 5"}
	if strings.Contains(string(Unbound(c)), "\n\tverbosity: 5") {
		t.Error("an anchor breaks out of its quotes")
	}
}

// TestCheckconf asks Debian's own checker.
func TestCheckconf(t *testing.T) {
	run := debian(t)
	own := config()
	own.Root = ownRoot()
	for name, c := range map[string]Config{"public root": config(), "own root": own} {
		cmd := run("unbound-checkconf")
		root := rootOf(cmd)
		path := relocated(t, Unbound(c), quote("unbound"), quote(""), RootHints, root+RootHints, RootKey, root+RootKey)
		cmd.Args = append(cmd.Args, path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", name, err, out, Unbound(c))
		}
	}
}

// TestAnswers starts Debian's resolver with a root of our own: it answers what is signed, refuses what is forged, and who is not
// in the tunnel.
func TestAnswers(t *testing.T) {
	run := debian(t)
	records := []string{
		"test. 300 IN TXT \"-\"", "root.test. 300 IN A 127.0.0.1", "web.test. 300 IN A 203.0.113.10", "rebound.test. 300 IN A 10.77.0.1",
	}
	signed, err := dnsroot.Sign(records, "root.test.", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := dnsroot.Sign(records, "root.test.", time.Now()) // the same zone under another key
	if err != nil {
		t.Fatal(err)
	}
	rootPort := serveRoot(t, signed.Zone)
	ask := func(t *testing.T, anchor, network, name string) *dns.Msg {
		t.Helper()
		port := freePort(t)
		c := config()
		c.Address = netip.MustParseAddr("127.0.0.1")
		c.Network = netip.MustParsePrefix(network)
		c.Root = inventory.DNS{
			Roots:        []inventory.RootServer{{Name: "root.test.", Address: netip.MustParseAddr("127.0.0.1")}},
			TrustAnchors: []string{anchor},
		}
		local := "do-not-query-localhost: no\n"
		if !c.Network.Contains(c.Address) {
			local += "\taccess-control: 127.0.0.0/8 refuse\n"
		}
		path := relocated(t, Unbound(c), quote("unbound"), quote(""), "access-control: 127.0.0.0/8 refuse\n", local,
			"port: 53\n", "port: "+strconv.Itoa(port)+"\n", "stub-addr: 127.0.0.1\n", "stub-addr: 127.0.0.1@"+strconv.Itoa(rootPort)+"\n")
		cmd := run("unbound", "-d", "-p", "-c", path)
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			exit := (*exec.ExitError)(nil)
			if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
				t.Error(err)
			}
			for line := range strings.Lines(said.String()) {
				if !strings.Contains(line, "start of service") && !strings.Contains(line, "service stopped") {
					t.Errorf("it wrote something down: %s", line)
				}
			}
		}()
		return answer(t, port, name)
	}
	if got := ask(t, signed.Anchor, "127.0.0.0/8", "web.test."); got.Rcode != dns.RcodeSuccess || !got.AuthenticatedData || len(got.Answer) == 0 {
		t.Errorf("a signed name: got %s", got)
	}
	if got := ask(t, signed.Anchor, "127.0.0.0/8", "none.test."); got.Rcode != dns.RcodeNameError || !got.AuthenticatedData {
		t.Errorf("a name that is proved not to be: got %s", got)
	}
	if got := ask(t, other.Anchor, "127.0.0.0/8", "web.test."); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("signed by another key: got %s", got)
	}
	if got := ask(t, signed.Anchor, "127.0.0.0/8", "rebound.test."); len(got.Answer) != 0 && strings.Contains(got.Answer[0].String(), "10.77.0.1") {
		t.Errorf("a name that leads into the management network: got %s", got)
	}
	if got := ask(t, signed.Anchor, "10.64.1.0/24", "web.test."); got.Rcode != dns.RcodeRefused {
		t.Errorf("from outside the tunnel: got %s", got)
	}
}

func serveRoot(t *testing.T, zone []byte) (port int) {
	t.Helper()
	server, err := dnsroot.Load(zone)
	if err != nil {
		t.Fatal(err)
	}
	port = freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- server.Serve(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return port
}

// answer asks until the resolver listens.
func answer(t *testing.T, port int, name string) *dns.Msg {
	t.Helper()
	query := new(dns.Msg)
	query.SetQuestion(name, dns.TypeA)
	query.SetEdns0(1232, true)
	client := dns.Client{Timeout: 5 * time.Second}
	limit := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, _, err := client.Exchange(query, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return got
		}
		if time.Now().After(limit) {
			t.Fatalf("asking for %s: %v", name, err)
		}
		<-tick.C
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
