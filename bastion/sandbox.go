package bastion

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mayfly/bastion/sandbox"
	"mayfly/internal/hint"
)

// Sandbox is how the bastion confines itself once it listens.
type Sandbox string

// What bastion.toml can say of the sandbox.
const (
	SandboxOn      Sandbox = "on"      // as far as the kernel can; what it cannot is logged
	SandboxRequire Sandbox = "require" // wholly, or the bastion does not serve
	SandboxOff     Sandbox = "off"
)

// check refuses what is none of them; nothing at all is "on".
func (s Sandbox) check() error {
	switch s {
	case "", SandboxOn, SandboxRequire, SandboxOff:
		return nil
	}
	return fmt.Errorf("sandbox %q: want on, require or off", s)
}

// rules is all that a bastion does with files and ports after its start: it reads its own configuration's files anew, writes its
// log, and dials what somebody may be granted. Whatever else it will open later has to be named here.
func (c Config) rules(r *ruling) sandbox.Rules {
	rules := allowances{sandbox.Rules{Connect: r.ports(), Filter: true}}
	for _, path := range []string{c.Trust, c.Bundle, c.Bundle + ".sig", c.HostKey, c.HostCertificate} {
		rules.Read = append(rules.Read, sandbox.Beside(path)...)
	}
	rules.Read = append(rules.Read, itself(c.trustPlace().directory()))
	if c.Statements != "" {
		rules.Read = append(rules.Read, itself(c.Statements))
	}
	if c.Session != (SessionConfig{}) {
		rules.Read = append(rules.Read, sandbox.Beside(c.Session.HostCAs)...)
		rules.Write = append(rules.Write, c.Session.Recordings)
	}
	// The control socket goes with the process, unless its directory holds what must stay.
	if dir := filepath.Dir(c.Control); c.Control != "" && !slices.Contains(rules.Read, dir) {
		rules.Remove = append(rules.Remove, dir)
	}
	rules.Write = append(rules.Write, c.Audit, filepath.Dir(versionFile(c)))
	for _, text := range c.Witnesses {
		rules.reach(text)
	}
	rules.replica(c)
	for _, w := range c.AuditWitnesses {
		rules.reach(w.URL)
	}
	return rules.Rules
}

// itself is the path of a directory, or for anything else, and for a directory that has yet to be made, the one that it lies in.
func itself(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// allowances grow into the sandbox's rules.
type allowances struct{ sandbox.Rules }

// reach allows what asking at a URL takes: its port, and looking up its name or its certificate's issuer.
func (a *allowances) reach(text string) {
	u, err := url.Parse(text)
	if err != nil {
		return // parseConfig has refused it
	}
	port := map[string]uint16{"http": 80, "https": 443}[u.Scheme]
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		port = uint16(n)
	}
	a.Connect = append(a.Connect, port)
	if _, err := netip.ParseAddr(u.Hostname()); err != nil || u.Scheme == "https" {
		a.Resolve = true
	}
}

// ports are all that the policy's grants open.
func (r *ruling) ports() []uint16 {
	var ports []uint16
	for _, g := range r.bundle.Policy.Grants {
		ports = append(ports, g.Ports...)
	}
	for _, b := range r.bundle.Policy.BreakGlass {
		ports = append(ports, b.Ports...)
	}
	for _, b := range r.bundle.Policy.Robots {
		ports = append(ports, b.Ports...)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// confinement is what a sandbox comes to on this machine.
type confinement struct {
	sandbox.Report
	ports []uint16 // the only ones that can be dialled until a restart; owned by watch
}

// confine gives up all that serving does not need. It is for good: a later policy's new ports need a restart.
func (s *Server) confine(r *ruling) error {
	if s.config.Sandbox == SandboxOff || s.applySandbox == nil {
		return nil
	}
	own, err := s.ownAddresses()
	if err != nil {
		return fmt.Errorf("listing this machine's addresses: %w", err)
	}
	report, err := s.applySandbox(s.config.rules(r))
	if err != nil {
		return hint.New(err, `see "bastion check"; sandbox = "off" serves without`)
	}
	if report.NoNetlink {
		s.ownAddresses = func() ([]netip.Addr, error) { return own, nil }
	}
	s.confined = &confinement{Report: report, ports: r.ports()}
	s.log.Info("confined", "enforced", strings.Join(report.Enforced, ", "))
	for _, m := range report.Missing {
		s.log.Warn("this kernel cannot enforce a part of the sandbox", "missing", m)
	}
	return nil
}

// checkSandbox refuses to start where the sandbox is required and the kernel lacks a part of it.
func (c Config) checkSandbox() error {
	if c.Sandbox != SandboxRequire {
		return nil
	}
	if err := sandbox.Probe(sandbox.Rules{}).Require(); err != nil {
		return hint.New(err, `boot a kernel that has it, or set sandbox = "on"`)
	}
	return nil
}

// warnPorts says which ports of a newer policy cannot be reached before a restart.
func (s *Server) warnPorts(r *ruling, log *slog.Logger) {
	if s.confined == nil {
		return
	}
	for _, port := range r.ports() {
		if !slices.Contains(s.confined.ports, port) {
			log.Warn("the new policy grants a port that the sandbox keeps closed until a restart", "port", port, "hint", "systemctl restart bastion")
		}
	}
}

// ReportSandbox is what becomes of the sandbox on this machine.
type ReportSandbox struct {
	Mode Sandbox `json:"mode"`
	sandbox.Report
	Notes []string `json:"notes"`
}

// sandboxStatus is what this process has done to itself; confine ran before anybody could ask.
func (s *Server) sandboxStatus() ReportSandbox {
	report := ReportSandbox{Mode: SandboxOff, Report: sandbox.Report{Enforced: []string{}, Missing: []string{}}, Notes: []string{}}
	if s.confined != nil {
		report.Mode, report.Report = cmp.Or(s.config.Sandbox, SandboxOn), s.confined.Report
	}
	return report
}

func (c Config) reportSandbox(r *ruling) ReportSandbox {
	report := ReportSandbox{Mode: SandboxOn, Report: sandbox.Report{Enforced: []string{}, Missing: []string{}}, Notes: []string{}}
	if c.Sandbox != "" {
		report.Mode = c.Sandbox
	}
	if report.Mode == SandboxOff {
		return report
	}
	rules := c.rules(r)
	report.Report = sandbox.Probe(rules)
	for _, dir := range rules.Read {
		if inside(rules.Write, dir) {
			note := dir + " holds what the bastion is configured by, and the sandbox has to let it be written: give the audit log a directory of its own"
			if !slices.Contains(report.Notes, note) {
				report.Notes = append(report.Notes, note)
			}
		}
	}
	return report
}

// inside says whether a directory is one of these, or lies in one.
func inside(dirs []string, dir string) bool {
	return slices.ContainsFunc(dirs, func(parent string) bool {
		relative, err := filepath.Rel(parent, dir)
		return err == nil && relative != ".." && !strings.HasPrefix(relative, "../")
	})
}

// errSandboxed is what dialling a closed port ends with.
var errSandboxed = errors.New("the sandbox keeps this port closed until the bastion is restarted")

// explainDial tells a refusal by our own sandbox from the network's.
func (s *Server) explainDial(err error, port uint16) error {
	if s.confined != nil && !slices.Contains(s.confined.ports, port) {
		return errors.Join(errSandboxed, err)
	}
	return err
}
