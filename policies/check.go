package policies

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Bounds of a policy.
const (
	MaxEngineers = 1000
	MaxGrants    = 1000
	maxKeys      = 16 // of one engineer
	maxPrefixes  = 1000
	maxList      = 1000 // names in one grant
	maxPorts     = 64
	maxRoots     = 16
)

const (
	skEd25519    = "sk-ssh-ed25519@openssh.com"
	skECDSA      = "sk-ecdsa-sha2-nistp256@openssh.com"
	regionPrefix = "region:"
	everyServer  = "*"
)

var (
	account = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	word    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
)

// reserved are Unix accounts that a server or a host has for itself, which nobody may be.
var reserved = []string{"root", "toor",
	// Debian's base-passwd; groups that are as good as root
	"daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data", "backup", "list", "irc", "gnats", "nobody", "nogroup",
	"adm", "disk", "shadow", "sudo", "wheel", "staff", "operator", "kmem", "tty",
	// Red Hat's, and of common packages
	"shutdown", "halt", "ftp", "messagebus", "dbus", "polkitd", "sshd", "ntp", "chrony", "unbound", "bind", "named", "postfix", "rpc", "tss", "uuidd", "syslog", "tcpdump",
	"systemd-network", "systemd-resolve", "systemd-timesync", "systemd-journal", "systemd-oom", "systemd-coredump",
	// our own
	"mayfly", "mayfly-tunnel", "mayfly-bastion", "tunnel"}

// AccountName reports whether an engineer's name can be a Unix account beside those of a server.
func AccountName(name string) bool {
	return account.MatchString(name) && forbiddenUser(name) == ""
}

// Check refuses a policy that must not take effect in this fleet. Its errors name places by their path:
// "engineer[0].key[1].evidence: …".
func Check(p Policy, f inventory.Fleet) error {
	if err := p.check(); err != nil {
		return err
	}
	if len(p.Hardware.TestRoots) > 0 && !f.Test {
		return tomlfile.At("hardware.test_roots", "enrol keys that prove their hardware, or set test = true in fleet.toml of a test fleet",
			"test roots are accepted only in a fleet with test = true, and %q is none", f.Name)
	}
	if len(p.Hardware.TestIssuers) > 0 && !f.Test {
		return tomlfile.At("hardware.test_issuer", "enrol keys of real hardware, or set test = true in fleet.toml of a test fleet",
			"test issuers are accepted only in a fleet with test = true, and %q is none", f.Name)
	}
	if !f.BastionsOnly() || !reflect.ValueOf(p.Rotation).IsZero() {
		if err := p.checkRotation(f); err != nil {
			return err
		}
	}
	servers, regions := map[string]bool{}, map[string]bool{}
	for _, s := range f.Servers {
		servers[s.Name] = true
	}
	for _, r := range f.Regions {
		regions[r.Name] = true
	}
	for i, g := range p.Grants {
		if err := checkReferences(fmt.Sprintf("grant[%d]", i), g.Servers, servers, regions); err != nil {
			return err
		}
		if g.Drained && !slices.ContainsFunc(f.Servers, func(s inventory.Server) bool {
			return s.Role == inventory.RoleVPN && g.Covers(s.Name, f.RegionOf(s.Name))
		}) {
			return tomlfile.At(fmt.Sprintf("grant[%d].drained", i), "leave it out", "grant %d says drained and covers no VPN server: nothing else has traffic to drain", i+1)
		}
	}
	for i, r := range p.Robots {
		if err := checkRobotServers(fmt.Sprintf("robot[%d]", i), r, f); err != nil {
			return err
		}
	}
	for i, b := range p.BreakGlass {
		if err := checkReferences(fmt.Sprintf("break_glass[%d]", i), b.Servers, servers, regions); err != nil {
			return err
		}
	}
	return nil
}

func checkReferences(path string, names []string, servers, regions map[string]bool) error {
	for j, s := range names {
		if err := checkReference(fmt.Sprintf("%s.servers[%d]", path, j), s, servers, regions); err != nil {
			return err
		}
	}
	return nil
}

// checkReference asks that what a grant names exists.
func checkReference(path, s string, servers, regions map[string]bool) error {
	if s == everyServer {
		return nil
	}
	if r, ok := strings.CutPrefix(s, regionPrefix); ok {
		if !regions[r] {
			return tomlfile.At(path, "correct it, or add the region to fleet.toml", "region %q does not exist", r)
		}
		return nil
	}
	if !servers[s] {
		return tomlfile.At(path, `correct it, or add the server to fleet.toml; a region is "region:NAME"`, "server %q does not exist", s)
	}
	return nil
}

// check is all of Check that needs no inventory.
func (p Policy) check() error {
	for _, step := range []func() error{p.checkTop, p.checkSSH, p.checkHardware, p.checkEngineers, p.checkBreakGlass, p.checkOperators, p.checkRobots, p.checkCertificates, p.checkImage, p.checkGrants, p.checkSession, p.checkWitness, p.checkPlugins, p.checkHistory} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (p Policy) checkTop() error {
	if p.Version == 0 {
		return tomlfile.At("version", "start with version = 1 and raise it with every change", "version is missing or 0")
	}
	if p.Expires.IsZero() {
		return tomlfile.At("expires", "for example expires = 2030-01-01T00:00:00Z", "expires is missing: a policy that never ends is refused")
	}
	return nil
}

func (p Policy) checkSSH() error {
	s := p.SSH
	if err := s.checkAlgorithms(); err != nil {
		return err
	}
	if len(s.Allow) == 0 {
		return tomlfile.At("ssh.allow", "list the networks that engineers come from", "ssh.allow is empty: nobody could connect, and empty never means everybody")
	}
	if err := checkPrefixes("ssh.allow", s.Allow); err != nil {
		return err
	}
	if err := checkPrefixes("ssh.proxies", s.Proxies); err != nil {
		return err
	}
	if err := checkPrefixes("ssh.penalty_exempt", s.PenaltyExempt); err != nil {
		return err
	}
	for _, d := range []struct {
		key       string
		have, max time.Duration
	}{
		{"handshake_deadline", s.HandshakeDeadline.Std(), ceilings.HandshakeDeadline},
		{"idle_timeout", s.IdleTimeout.Std(), ceilings.IdleTimeout},
		{"session_limit", s.SessionLimit.Std(), ceilings.SessionLimit},
	} {
		if d.have < 0 || d.have > d.max {
			return tomlfile.At("ssh."+d.key, "leave it out for the default", "%s is %s: at most %s", d.key, Duration(d.have), Duration(d.max))
		}
	}
	for _, n := range []struct {
		key       string
		have, max int
	}{
		{"max_startups", s.MaxStartups, ceilings.MaxStartups},
		{"max_per_source", s.MaxPerSource, ceilings.MaxPerSource},
		{"max_sessions", s.MaxSessions, ceilings.MaxSessions},
		{"max_per_engineer", s.MaxPerEngineer, ceilings.MaxPerEngineer},
		{"max_channels", s.MaxChannels, ceilings.MaxChannels},
		{"max_robots", s.MaxRobots, ceilings.MaxRobots},
		{"max_per_robot", s.MaxPerRobot, ceilings.MaxPerRobot},
	} {
		if n.have < 0 || n.have > n.max {
			return tomlfile.At("ssh."+n.key, "leave it out for the default", "%s is %d: 1 to %d, or left out", n.key, n.have, n.max)
		}
	}
	return nil
}

func (p Policy) checkEngineers() error {
	if len(p.Engineers) > MaxEngineers {
		return tomlfile.At("engineer", "split the fleet", "%d engineers: at most %d", len(p.Engineers), MaxEngineers)
	}
	names, keys := map[string]bool{}, map[string]string{}
	for i, e := range p.Engineers {
		path := fmt.Sprintf("engineer[%d]", i)
		if slices.Contains(reserved, e.Name) {
			return tomlfile.At(path+".name", "use the person's own account name", "engineer may not be called %q: the account is the system's", e.Name)
		}
		if !account.MatchString(e.Name) {
			return tomlfile.At(path+".name", "lower-case letters, digits and -, at most 31, a letter first", "engineer name %q is no Unix account name", e.Name)
		}
		if names[e.Name] {
			return tomlfile.At(path+".name", "each engineer once; several keys are several [[engineer.key]]", "engineer %q is there twice", e.Name)
		}
		names[e.Name] = true
		if err := checkPrefixes(path+".allow", e.Allow); err != nil {
			return err
		}
		if len(e.Keys) > maxKeys { // one without a key can do nothing, and has a place for the first
			return tomlfile.At(path, "fleetctl key revoke takes one away", "engineer %q has %d keys: at most %d", e.Name, len(e.Keys), maxKeys)
		}
		for j, k := range e.Keys {
			if err := p.checkKey(fmt.Sprintf("%s.key[%d]", path, j), e.Name, k, keys); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p Policy) checkGrants() error {
	if len(p.Grants) > MaxGrants {
		return tomlfile.At("grant", "put several engineers and servers into one grant", "%d grants: at most %d", len(p.Grants), MaxGrants)
	}
	known := map[string]bool{}
	for _, e := range p.Engineers {
		known[e.Name] = true
	}
	for i, g := range p.Grants {
		path := fmt.Sprintf("grant[%d]", i)
		if len(g.Engineers) == 0 {
			return tomlfile.At(path+".engineers", "say whom, where and which ports, or remove the grant", "grant %d has no engineers: empty grants nothing", i+1)
		}
		if len(g.Engineers) > maxList {
			return tomlfile.At(path+".engineers", "make several grants of it", "grant %d has %d engineers: at most %d", i+1, len(g.Engineers), maxList)
		}
		for j, e := range g.Engineers {
			if at := fmt.Sprintf("%s.engineers[%d]", path, j); !known[e] {
				return tomlfile.At(at, "add an [[engineer]] of that name, or correct it", "grant %d names engineer %q, who does not exist", i+1, e)
			} else if slices.Contains(g.Engineers[:j], e) {
				return tomlfile.At(at, "each name once", "grant %d names engineer %q twice", i+1, e)
			}
		}
		if err := checkReach(path, fmt.Sprintf("grant %d", i+1), g.Servers, g.Ports); err != nil {
			return err
		}
		if err := checkWindows(path, g.Windows); err != nil {
			return err
		}
		if g.Approval && len(p.Engineers) < 2 {
			return tomlfile.At(path+".approval", "add an engineer who can approve, or leave it out", "grant %d asks for another engineer's approval, and there is no other", i+1)
		}
	}
	return nil
}

// checkReach checks where a grant or a break-glass identity leads; whose says whose it is.
func checkReach(path, whose string, servers []string, ports []uint16) error {
	for _, l := range []struct {
		key       string
		have, max int
	}{{"servers", len(servers), maxList}, {"ports", len(ports), maxPorts}} {
		if l.have == 0 {
			return tomlfile.At(path+"."+l.key, "say where and which ports, or remove it", "%s has no %s: empty grants nothing", whose, l.key)
		}
		if l.have > l.max {
			return tomlfile.At(path+"."+l.key, "make several of it", "%s has %d %s: at most %d", whose, l.have, l.key, l.max)
		}
	}
	for j, s := range servers {
		if at := fmt.Sprintf("%s.servers[%d]", path, j); s == "" {
			return tomlfile.At(at, `a server's name, "region:NAME" or "*"`, "%s names an empty server", whose)
		} else if slices.Contains(servers[:j], s) {
			return tomlfile.At(at, "each name once", "%s names server %q twice", whose, s)
		}
	}
	for j, port := range ports {
		if at := fmt.Sprintf("%s.ports[%d]", path, j); port == 0 {
			return tomlfile.At(at, "for example ports = [22]", "%s has port 0", whose)
		} else if slices.Contains(ports[:j], port) {
			return tomlfile.At(at, "each port once", "%s has port %d twice", whose, port)
		}
	}
	return nil
}

func checkPrefixes(path string, list []netip.Prefix) error {
	if len(list) > maxPrefixes {
		return tomlfile.At(path, "join neighbouring networks", "%d networks: at most %d", len(list), maxPrefixes)
	}
	for i, p := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !p.IsValid() || p.Addr().Is4In6():
			return tomlfile.At(at, `for example "198.51.100.0/24"`, "%s is no network", at)
		case p != p.Masked():
			return tomlfile.At(at, fmt.Sprintf("write %q", p.Masked()), "%s is %s, which has host bits set", at, p)
		case p.Bits() == 0:
			return tomlfile.At(at, "list the networks that are meant", "%s is %s, which is every address", at, p)
		case slices.Contains(list[:i], p):
			return tomlfile.At(at, "each network once", "%s is %s, which is there twice", at, p)
		}
	}
	return nil
}
