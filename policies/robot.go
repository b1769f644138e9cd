package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Robot is an identity for automation. Nobody touches its key, which may be software's; so it is bound to one address, to hosts, which
// carry nobody's traffic, and there to the commands that are listed.
type Robot struct {
	Name     string       `toml:"name" json:"name"`       // Unix account name, no person's
	Public   string       `toml:"public" json:"public"`   // "TYPE BASE64"
	Source   netip.Prefix `toml:"source" json:"source"`   // one address: /32 or /128
	Servers  []string     `toml:"servers" json:"servers"` // names of hosts
	Ports    []uint16     `toml:"ports" json:"ports"`
	Commands []string     `toml:"commands" json:"commands"` // what the hosts let it run, each to the letter
}

// Bounds of robots.
const (
	maxRobots   = 256
	maxCommands = 64
	maxCommand  = 512 // characters
)

// robotKeyTypes are those that a robot may have. Those of hardware ask for a touch all the same.
var robotKeyTypes = []string{ssh.KeyAlgoED25519, skEd25519, skECDSA}

// decideRobot decides on a robot's login. What was proven is that it holds the key.
func (p Policy) decideRobot(r Robot, l Login) Verdict {
	source := l.Source.Unmap().WithZone("")
	revoked := p.revokedKey(l.Key)
	switch {
	case l.Certificate != nil:
		return deny(CertificateKeyUnknown, "robot %s logs in with its key, not with a certificate", r.Name)
	case !r.Source.IsValid() || !r.Source.IsSingleIP() || r.Source.Addr() != source:
		return deny(AddressNotListed, "%s is not robot %s's address", l.Source, r.Name)
	case !slices.Contains(robotKeyTypes, keyType(l.Key)):
		return deny(KeyNotHardware, "key type %q", keyType(l.Key))
	case r.Public != l.Key:
		return deny(KeyUnknown, "not the key of robot %s", r.Name)
	case revoked != "":
		return deny(KeyRevoked, "the key of robot %s is revoked, by %s", r.Name, revoked)
	}
	return allow("robot %s", r.Name)
}

// decideTarget decides where a robot may go. The role is decided first, whatever the list says: a name may mean another machine now.
func (r Robot) decideTarget(t Target, server inventory.Server) Verdict {
	switch {
	case server.Role != inventory.RoleHost:
		return deny(RobotNotToVPN, "%s has role %q: robots go to hosts only", t.Server, server.Role)
	case !slices.Contains(r.Servers, t.Server):
		return deny(TargetNotGranted, "%s is not for robot %s", t.Server, r.Name)
	case t.Port == 0 || !slices.Contains(r.Ports, t.Port):
		return deny(PortNotGranted, "port %d of %s is not for robot %s", t.Port, t.Server, r.Name)
	}
	return allow("robot %s", r.Name)
}

// checkRobots runs after the checks of engineers and break-glass identities, so their names and keys are good.
func (p Policy) checkRobots() error {
	if len(p.Robots) > maxRobots {
		return tomlfile.At("robot", "split the fleet", "%d robots: at most %d", len(p.Robots), maxRobots)
	}
	names, keys := map[string]bool{}, map[string]string{}
	for _, e := range p.Engineers {
		names[e.Name] = true
		for _, k := range e.Keys {
			keys[k.Public] = e.Name
		}
	}
	for _, b := range p.BreakGlass {
		names[b.Name] = true
		for _, k := range b.Keys {
			keys[k.Public] = b.Name
		}
	}
	for i, r := range p.Robots {
		path := fmt.Sprintf("robot[%d]", i)
		if !AccountName(r.Name) {
			return tomlfile.At(path+".name", "lower-case letters, digits and -, at most 31, a letter first, and no account of the system", "robot name %q is no Unix account name for a robot", r.Name)
		}
		if names[r.Name] {
			return tomlfile.At(path+".name", "a name of its own: records tell robots from people", "robot %q has the name of somebody else", r.Name)
		}
		names[r.Name] = true
		if err := p.checkRobot(path, r, keys); err != nil {
			return err
		}
	}
	return nil
}

func (p Policy) checkRobot(path string, r Robot, owners map[string]string) error {
	key, err := plainKey(r.Public)
	if err != nil {
		return tomlfile.At(path+".public", `the first two words of the .pub file: "ssh-ed25519 AAAA…"`, "key of robot %q: %v", r.Name, err)
	}
	if !slices.Contains(robotKeyTypes, key.Type()) {
		return tomlfile.At(path+".public", "make one with ssh-keygen -t ed25519", "key of robot %q is of type %s", r.Name, key.Type())
	}
	if a, err := p.SSH.Algorithms(); err == nil && slices.Contains(securityKeyTypes, key.Type()) && !slices.Contains(a.PublicKeys, key.Type()) {
		return tomlfile.At(path+".public", "a key of another type, or add the type to ssh.user_keys", "key of robot %q is of type %s, which ssh.user_keys does not have", r.Name, key.Type())
	}
	if other, ok := owners[r.Public]; ok {
		return tomlfile.At(path+".public", "each key belongs to one, once", "key of robot %q is there twice, first as a key of %q", r.Name, other)
	}
	if slices.Contains(p.Hardware.Revoked, Fingerprint(r.Public)) {
		return tomlfile.At(path+".public", "give the robot another key", "key of robot %q is in hardware.revoked", r.Name)
	}
	owners[r.Public] = r.Name
	if !r.Source.IsValid() || !r.Source.IsSingleIP() || r.Source.Addr().Is4In6() {
		return tomlfile.At(path+".source", `for example source = "198.51.100.7/32"`, "robot %q has source %s: it must be one address, /32 or /128", r.Name, r.Source)
	}
	if _, ok := listed(p.SSH.Allow, r.Source.Addr()); !ok {
		return tomlfile.At(path+".source", "add it to ssh.allow, or correct it", "robot %q could never connect: %s is not in ssh.allow", r.Name, r.Source.Addr())
	}
	if err := checkReach(path, fmt.Sprintf("robot %q", r.Name), r.Servers, r.Ports); err != nil {
		return err
	}
	if len(r.Commands) == 0 || len(r.Commands) > maxCommands {
		return tomlfile.At(path+".commands", `for example commands = ["/usr/local/bin/backup --daily"]`, "robot %q has %d commands: there must be 1 to %d", r.Name, len(r.Commands), maxCommands)
	}
	for j, c := range r.Commands {
		at := fmt.Sprintf("%s.commands[%d]", path, j)
		switch {
		case c == "" || len(c) > maxCommand || c != strings.TrimSpace(c) || strings.ContainsFunc(c, func(r rune) bool { return r < ' ' || r > '~' }):
			return tomlfile.At(at, "the line as it is asked for, without spaces around it", "robot %q: a command is 1 to %d printable ASCII characters", r.Name, maxCommand)
		case slices.Contains(r.Commands[:j], c):
			return tomlfile.At(at, "each command once", "robot %q has command %q twice", r.Name, c)
		}
	}
	return nil
}

// checkRobotServers asks that a robot's servers are hosts of the fleet.
func checkRobotServers(path string, r Robot, f inventory.Fleet) error {
	for j, name := range r.Servers {
		at := fmt.Sprintf("%s.servers[%d]", path, j)
		s, ok := f.Server(name)
		if !ok {
			return tomlfile.At(at, "name each host: robots have neither regions nor \"*\"", "robot %q: server %q does not exist", r.Name, name)
		}
		if s.Role != inventory.RoleHost {
			return tomlfile.At(at, "robots go to servers with role = \"host\" only", "robot %q may not go to %q, which has role %q", r.Name, name, s.Role)
		}
	}
	return nil
}
