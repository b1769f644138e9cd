package client

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mayfly/internal/dump"
	"mayfly/internal/hint"
)

// What is ours in the system's routing.
const (
	Mark          = 0x6d617966 // "mayf": packets to servers and check-in, which stay outside
	maxSlots      = 8          // sessions at once: the current one and old ones that are being left
	tableSession  = 7760       // + slot: everything through that session
	tableRoutes   = 7750       // prefixes that go through the current session
	tableAll      = 7751       // the default route, if that goes through it too
	priorityFrom  = 7600       // from an inner address: its session's table
	priorityRoute = 7610       // not marked: tableRoutes
	priorityLocal = 7611       // main, without its default route: the local network stays local
	priorityAll   = 7612       // not marked: tableAll
	metricClosed  = 1 << 30    // of routes that end where a session's interface is gone
)

// markKey is whether the reverse path check sees marks.
const markKey = "net/ipv4/conf/all/src_valid_mark"

var (
	everything4 = netip.MustParsePrefix("0.0.0.0/0")
	everything6 = netip.MustParsePrefix("::/0")
)

// slots hands out places for sessions.
type slots struct {
	mu    sync.Mutex
	taken [maxSlots]bool
}

// slot is a place: an interface name, a table, a rule.
type slot int

func (s *slots) take() (slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, taken := range s.taken {
		if !taken {
			s.taken[i] = true
			return slot(i), nil
		}
	}
	return 0, fmt.Errorf("%d sessions are open already", maxSlots)
}

func (s *slots) free(n slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[n] = false
}

func (n slot) name() string { return fmt.Sprintf("mayfly%d", int(n)) }
func (n slot) table() int   { return tableSession + int(n) }

func (n slot) rule(inner netip.Addr) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table = unix.AF_INET, priorityFrom, n.table()
	r.Src = ipNet(netip.PrefixFrom(inner, inner.BitLen()))
	return r
}

// raise gives the session's interface its address, and sends what comes from that address through it.
func (n slot) raise(g grant) error {
	link, err := netlink.LinkByName(n.name())
	if err != nil {
		return fmt.Errorf("finding %s: %w", n.name(), err)
	}
	if err := sysctl("net/ipv6/conf/"+n.name()+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if g.mtu < link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, g.mtu); err != nil {
			return fmt.Errorf("setting the MTU of %s: %w", n.name(), err)
		}
	}
	if err := free(g.address); err != nil {
		return fmt.Errorf("setting an address on %s: %w", n.name(), err)
	}
	own := ipNet(netip.PrefixFrom(g.address, g.address.BitLen()))
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: own}); err != nil {
		return fmt.Errorf("setting an address on %s: %w", n.name(), err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting %s up: %w", n.name(), err)
	}
	if err := through(link, n.table(), everything4, g.address); err != nil {
		return err
	}
	if err := netlink.RuleAdd(n.rule(g.address)); err != nil {
		return fmt.Errorf("adding the rule for %s: %w", n.name(), err)
	}
	return nil
}

// free refuses an inner address that this machine has for something else: the rule would send that into the tunnel.
func free(inner netip.Addr) error {
	list, err := dump.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("listing this machine's addresses: %w", err)
	}
	for _, a := range list {
		if a.IP.Equal(inner.AsSlice()) {
			return errors.New("this machine has that address already")
		}
	}
	return nil
}

// lower takes the rule away; the routes go with the interface.
func (n slot) lower(g grant) error {
	err := netlink.RuleDel(n.rule(g.address))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("removing the rule for %s: %w", n.name(), err)
	}
	return nil
}

// routes is what leads into the current session.
type routes struct {
	prefixes []netip.Prefix
	rules    []*netlink.Rule
	marks    string // what markKey was before; empty: it was not changed
}

func (r *routes) all() bool {
	for _, p := range r.prefixes {
		if p == everything4 {
			return true
		}
	}
	return false
}

// prepare removes what a killed client left and adds the rules. Nothing is routed before the first switch.
func (r *routes) prepare() error {
	if err := sweep(); err != nil {
		return err
	}
	rules := []*netlink.Rule{unmarked(unix.AF_INET, priorityRoute, tableRoutes)}
	if r.all() {
		rules = append(rules, local(unix.AF_INET), unmarked(unix.AF_INET, priorityAll, tableAll))
		if ipv6() {
			rules = append(rules, local(unix.AF_INET6), unmarked(unix.AF_INET6, priorityAll, tableAll))
		}
		// Answers to marked packets come from where no unmarked packet would go: the reverse path check must see the mark.
		before, err := os.ReadFile("/proc/sys/" + markKey)
		if err != nil {
			return fmt.Errorf("reading %s: %w", markKey, err)
		}
		if err := sysctl(markKey, "1"); err != nil {
			return err
		}
		r.marks = strings.TrimSpace(string(before))
	}
	for _, rule := range rules {
		if err := netlink.RuleAdd(rule); err != nil {
			return hint.New(fmt.Errorf("adding a routing rule: %w", err), "the client needs CAP_NET_ADMIN: run it as root")
		}
		r.rules = append(r.rules, rule)
	}
	return nil
}

// to sends new connections through a session, in one step for each prefix.
func (r *routes) to(s *session) error {
	link, err := netlink.LinkByName(s.slot.name())
	if err != nil {
		return fmt.Errorf("finding %s: %w", s.slot.name(), err)
	}
	dns := netip.PrefixFrom(s.grant.dns, s.grant.dns.BitLen())
	if err := closed(tableRoutes, dns); err != nil {
		return err
	}
	if err := through(link, tableRoutes, dns, s.grant.address); err != nil {
		return err
	}
	for _, p := range r.prefixes {
		table := tableRoutes
		if p == everything4 {
			table = tableAll
			if err := block6(); err != nil {
				return err
			}
		}
		if err := closed(table, p); err != nil {
			return err
		}
		if err := through(link, table, p, s.grant.address); err != nil {
			return err
		}
	}
	return nil
}

// closed makes a prefix unreachable for when no session's interface leads there: better nowhere than around the tunnel.
func closed(table int, p netip.Prefix) error {
	route := &netlink.Route{Table: table, Dst: ipNet(p), Type: unix.RTN_UNREACHABLE, Family: unix.AF_INET, Priority: metricClosed}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("closing %s outside the tunnel: %w", p, err)
	}
	return nil
}

// remove takes the rules away, and what the interfaces did not take with them.
func (r *routes) remove() error {
	var errs []error
	for _, rule := range r.rules {
		if err := netlink.RuleDel(rule); err != nil && !errors.Is(err, syscall.ENOENT) {
			errs = append(errs, fmt.Errorf("removing a routing rule: %w", err))
		}
	}
	r.rules = nil
	if r.marks != "" {
		if err := sysctl(markKey, r.marks); err != nil {
			errs = append(errs, err)
		}
		r.marks = ""
	}
	return errors.Join(append(errs, sweep())...)
}

func through(link netlink.Link, table int, to netip.Prefix, from netip.Addr) error {
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Table: table, Dst: ipNet(to), Src: from.AsSlice(), Scope: netlink.SCOPE_LINK,
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("routing %s through %s: %w", to, link.Attrs().Name, err)
	}
	return nil
}

// block6 makes IPv6 unreachable where everything goes through the tunnel, which carries IPv4 alone: better none than around it.
func block6() error {
	if !ipv6() {
		return nil
	}
	route := &netlink.Route{Table: tableAll, Dst: ipNet(everything6), Type: unix.RTN_UNREACHABLE, Family: unix.AF_INET6}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("closing IPv6: %w", err)
	}
	return nil
}

func ipv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

func unmarked(family, priority, table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Mark, r.Invert = family, priority, table, Mark, true
	return r
}

func local(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.SuppressPrefixlen = family, priorityLocal, unix.RT_TABLE_MAIN, 0
	return r
}

// sweep removes rules and routes of ours. There is one client in a network namespace, so that whatever is there is left over.
func sweep() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if family == unix.AF_INET6 && !ipv6() {
			continue
		}
		rules, err := dump.Whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			return fmt.Errorf("listing the routing rules: %w", err)
		}
		for _, rule := range rules {
			if rule.Priority < priorityFrom || rule.Priority > priorityAll {
				continue
			}
			rule.Family = family
			if err := netlink.RuleDel(&rule); err != nil && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("removing an old routing rule: %w", err)
			}
		}
		for _, table := range []int{tableRoutes, tableAll} {
			old, err := dump.Whole(func() ([]netlink.Route, error) {
				return netlink.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			})
			if err != nil {
				return fmt.Errorf("listing table %d: %w", table, err)
			}
			for _, route := range old {
				if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("removing an old route: %w", err)
				}
			}
		}
	}
	return nil
}

func sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting %s to %s: %w", name, value, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// only is the mark that there is a client in this network namespace: an abstract socket, which ends with the process.
func only() (net.Listener, error) {
	l, err := net.Listen("unix", "@mayfly-tunnel-client")
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, hint.New(errors.New("another tunnel client runs here"), "stop it first: one carries the machine's routes")
	}
	return l, err
}

// outside dials around the tunnel.
func outside() dialer {
	return (&net.Dialer{Control: socketOption(unix.SOL_SOCKET, unix.SO_MARK, Mark)}).DialContext
}

// socketOption is a net.Dialer's Control that sets one option.
func socketOption(level, option, value int) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
		if err := errors.Join(err, failed); err != nil {
			return fmt.Errorf("setting a socket option: %w", err)
		}
		return nil
	}
}
