package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
)

// Bounds of what is shown of a bundle. Whatever is left out is counted, so that nobody takes a part for the whole.
const (
	maxShownLines = 100 // of one kind
	maxShownNames = 16  // in one line
	maxShownLine  = 4096
)

// showBundle writes what a person is about to sign: who gets where, from where, and what holds the fleet up. was is the bundle that it would follow,
// nil if there is none.
func showBundle(w io.Writer, path string, data []byte, b, was *bundle.Bundle) error {
	p, f := b.Policy.Verified(b.Inventory, b.Made), b.Inventory
	sections := [][]string{{
		fmt.Sprintf("policy %d of fleet %s, made %s, until %s", b.Version, b.Fleet, b.Made.Format(time.RFC3339), b.Expires.Format(time.RFC3339)),
		fmt.Sprintf("test: %t", f.Test),
		fmt.Sprintf("ssh level %s; test roots: %s", p.SSH.Level, shown(p.Hardware.TestRoots, "none")),
	}, showHistory(p, was), showHardware(p.Hardware)}
	var lines []string
	for _, prefix := range p.SSH.Allow {
		lines = append(lines, "allow "+prefix.String())
	}
	sections = append(sections, lines, showKeys(p))
	lines = nil
	for _, e := range p.Engineers {
		lines = append(lines, showEngineer(p, e))
	}
	sections = append(sections, lines)
	lines = nil
	for _, r := range p.Robots {
		lines = append(lines, showRobot(r))
	}
	sections = append(sections, lines)
	lines = nil
	for _, g := range p.Grants {
		lines = append(lines, showGrant(g))
	}
	for _, x := range p.BreakGlass {
		lines = append(lines, fmt.Sprintf("break-glass %s, when as many people open it as sign this: %s, ports %s; %s", x.Name, shown(x.Servers, "no server"), shown(texts(x.Ports), "none"),
			showEngineer(p, policies.Engineer{Name: x.Name, Keys: x.Keys})))
	}
	for _, o := range p.Operators {
		for _, action := range o.Actions {
			lines = append(lines, fmt.Sprintf("operators: %s, by %d of %s", action, o.Needs(action), shown(o.Engineers, "nobody")))
		}
	}
	sections = append(sections, lines)
	lines = nil
	if p.Session.On() {
		lines = append(lines, "SESSION MODE: whoever has the key of this authority opens the servers of the grants by recorded session: "+shown(fingerprints([]string{p.Session.Authority}), "none"),
			"recordings can be read by "+shown(p.Session.Recipients, "nobody"))
	}
	sections = append(sections, lines)
	lines = nil
	for _, x := range f.AllBastions() {
		lines = append(lines, fmt.Sprintf("bastion %s at %s, port %d", x.Name, x.Address, x.Port))
	}
	sections = append(sections, lines)
	lines = nil
	for _, x := range f.Servers {
		if x.Role == inventory.RoleHost {
			lines = append(lines, fmt.Sprintf("host %s at %s, not rebuilt, known by %s", x.Name, x.Address.Addr(), shown(fingerprints(x.HostKeys), "no host key")))
		}
	}
	sections = append(sections, lines)
	lines = nil
	for _, g := range f.Regions {
		var servers []string
		for _, x := range f.Servers {
			if f.RegionOf(x.Name) == g.Name {
				servers = append(servers, x.Name+" "+x.Address.Addr().String())
			}
		}
		total := f.Capacity(g.Name)
		lines = append(lines, fmt.Sprintf("region %s: floor %d of %d Mbit/s: %s", g.Name, g.Floor.Of(total), total, shown(servers, "no server")))
	}
	sections = append(sections, lines)
	if f.BastionsOnly() {
		lines = []string{"no controller, and nothing is rebuilt"}
	} else {
		r := p.Rotation
		lines = []string{fmt.Sprintf("controller at %s", f.Controller.Address),
			fmt.Sprintf("rotation: max_age %v, max_parallel %d, drain_limit %v, boot_limit %v, bake %v, retries %d; releases from version %d",
				time.Duration(r.MaxAge), r.MaxParallel, time.Duration(r.DrainLimit), time.Duration(r.BootLimit), time.Duration(r.Bake), r.Retries, p.Image.MinVersion)}
	}
	for _, g := range p.Plugins {
		lines = append(lines, fmt.Sprintf("plugin %s is asked about %s within %v, SHA-256 %s", g.Name, shown(g.Decides, "nothing"), g.Limit(), g.SHA256))
	}
	lines = append(lines, fmt.Sprintf("witnesses may be silent for %v", p.WitnessGrace()))
	sections = append(sections, append(lines, fmt.Sprintf("the rest is in %s, SHA-256 %x", path, sha256.Sum256(data))))
	var out strings.Builder
	for _, lines := range sections {
		for i, line := range lines {
			if i == maxShownLines {
				fmt.Fprintf(&out, "fleetctl:   AND %d MORE that are not shown: read %s before you sign\n", len(lines)-i, join.Printable(path, maxShownLine))
				break
			}
			out.WriteString("fleetctl:   " + join.Printable(line, maxShownLine) + "\n")
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func showGrant(g policies.Grant) string {
	line := fmt.Sprintf("grant %s: %s, ports %s", shown(g.Engineers, "nobody"), shown(g.Servers, "no server"), shown(texts(g.Ports), "none"))
	if g.Session {
		line += ", by recorded session"
	}
	if g.Approval {
		line += ", with another engineer's approval"
	}
	if g.Drained {
		line += ", VPN servers while they are drained"
	}
	var windows []string
	for _, w := range g.Windows {
		windows = append(windows, strings.Join(w.Days, " ")+" "+w.From+"-"+w.To)
	}
	if len(windows) > 0 {
		line += ", in UTC " + shown(windows, "")
	}
	return line
}

func texts(ports []uint16) []string {
	var list []string
	for _, port := range ports {
		list = append(list, fmt.Sprint(port))
	}
	return list
}

func fingerprints(keys []string) []string {
	var list []string
	for _, k := range keys {
		name := "a key that does not parse"
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k)); err == nil {
			name = ssh.FingerprintSHA256(key)
		}
		list = append(list, name)
	}
	return list
}

// showEngineer shows what each key proves, and why one that does not lets nobody in.
func showEngineer(p policies.Policy, e policies.Engineer) string {
	var keys, from []string
	for _, k := range e.Keys {
		name := "a key that does not parse"
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Public)); err == nil {
			name = ssh.FingerprintSHA256(key)
		}
		r := reportKey(p, e.Name, policies.KindEngineer, k)
		text := r.text()
		if !r.Accepted {
			text += "; LETS NOBODY IN: " + string(r.Reason)
		}
		keys = append(keys, name+" ("+text+")")
	}
	for _, prefix := range e.Allow {
		from = append(from, prefix.String())
	}
	return fmt.Sprintf("engineer %s, from %s: %s", e.Name, shown(from, "every allowed address"), shown(keys, "no key"))
}

// shown is a list of bounded length.
func shown(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	if n := len(names) - maxShownNames; n > 0 {
		return strings.Join(names[:maxShownNames], ", ") + fmt.Sprintf(" AND %d MORE", n)
	}
	return strings.Join(names, ", ")
}
