package bastion

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
	"mayfly/policies"
)

// Config is bastion.toml. Relative paths are relative to the file's own directory.
type Config struct {
	Listen          netip.AddrPort `toml:"listen"`           // where engineers connect
	Trust           string         `toml:"trust"`            // trust.json: who may sign a policy
	TrustChain      string         `toml:"trust_chain"`      // optional: directory of the trust policies that follow it; "trust" beside it if left out
	Bundle          string         `toml:"bundle"`           // bundle.json; its signatures are in FILE.sig
	HostKey         string         `toml:"host_key"`         // Ed25519 private key, OpenSSH form, mode 0600
	HostCertificate string         `toml:"host_certificate"` // its certificate, authorized_keys form
	Audit           string         `toml:"audit"`            // directory of the audit log, written by this process only
	AuditKey        string         `toml:"audit_key"`        // optional: the log's signing key; audit_key in that directory if left out
	AuditReplica    string         `toml:"audit_replica"`    // optional: "http://127.0.0.1:PORT", which has each record before it counts
	AuditLife       uint64         `toml:"audit_life"`       // optional: this machine's life, in the log's origin
	Statements      string         `toml:"statements"`       // optional: directory of signed approvals, openings and drained statements
	ControllerCA    string         `toml:"controller_ca"`    // optional: the fleet's TLS CA, for "bastion renew"

	Control    string            `toml:"control"`     // optional: socket of "bastion status" and "bastion drain"
	DrainLimit policies.Duration `toml:"drain_limit"` // how long sessions may go on after TERM

	Witnesses      []string       `toml:"witnesses"`     // http or https URLs of who confirms that a policy is the newest
	AuditWitnesses []AuditWitness `toml:"audit_witness"` // optional: who cosigns the audit log's checkpoints
	Sandbox        Sandbox        `toml:"sandbox"`       // "on", the default; "require" or "off"
	Plugin         PluginConfig   `toml:"plugin"`        // optional: how the plugins that a policy pins are run

	Metrics      Metrics        `toml:"metrics"`       // optional: address and port, or socket, where numbers are published
	MetricsAllow []netip.Prefix `toml:"metrics_allow"` // optional: who may read them, beside this machine
	Alerts       AlertsConfig   `toml:"alerts"`        // optional: who is told of what should not happen
	Log          Log            `toml:"log"`           // "text", the default, or "json"

	Session SessionConfig `toml:"session"` // optional: the bastion itself logs in at servers, and records
}

// LoadConfig reads and checks a configuration file.
func LoadConfig(path string) (Config, error) {
	data, err := durable.ReadFile(path, tomlfile.MaxSize)
	if err != nil {
		return Config{}, hint.New(fmt.Errorf("reading configuration: %w", err), "name the file with --config")
	}
	c, err := parseConfig(path, data)
	if err != nil {
		return Config{}, err
	}
	for _, p := range []*string{&c.Trust, &c.Bundle, &c.HostKey, &c.HostCertificate, &c.Audit} {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	c.Session.absolute(filepath.Dir(path))
	c.Alerts.absolute(filepath.Dir(path))
	if c.Metrics.isSocket() && !filepath.IsAbs(string(c.Metrics)) {
		c.Metrics = Metrics(filepath.Join(filepath.Dir(path), string(c.Metrics)))
	}
	if c.TrustChain != "" && !filepath.IsAbs(c.TrustChain) {
		c.TrustChain = filepath.Join(filepath.Dir(path), c.TrustChain)
	}
	if c.Statements != "" && !filepath.IsAbs(c.Statements) {
		c.Statements = filepath.Join(filepath.Dir(path), c.Statements)
	}
	if c.AuditKey != "" && !filepath.IsAbs(c.AuditKey) {
		c.AuditKey = filepath.Join(filepath.Dir(path), c.AuditKey)
	}
	if c.Control != "" && !filepath.IsAbs(c.Control) {
		c.Control = filepath.Join(filepath.Dir(path), c.Control)
	}
	if c.ControllerCA != "" && !filepath.IsAbs(c.ControllerCA) {
		c.ControllerCA = filepath.Join(filepath.Dir(path), c.ControllerCA)
	}
	return c, nil
}

// parseConfig is strict: an unknown key, a duplicate, a wrong type or a missing value is an error with its line.
func parseConfig(name string, data []byte) (Config, error) {
	c := Config{DrainLimit: policies.Duration(DefaultDrain)}
	doc, err := tomlfile.Decode(name, data, &c)
	if err != nil {
		return Config{}, err
	}
	if err := doc.WantString(`"30s"`, "drain_limit"); err != nil {
		return Config{}, err
	}
	if c.DrainLimit.Std() > MaxDrain {
		return Config{}, doc.Place(tomlfile.At("drain_limit", `drain_limit = "30s"`, "drain_limit is %s: at most %s", c.DrainLimit, policies.Duration(MaxDrain)))
	}
	switch {
	case !c.Listen.IsValid():
		return Config{}, doc.Place(tomlfile.At("", `listen = "10.77.0.2:22"`, "listen is missing: an address and a port"))
	case c.Listen.Addr().Zone() != "":
		return Config{}, doc.Place(tomlfile.At("listen", "use an address without %", "listen %s: an address with a zone", c.Listen))
	}
	for _, p := range []struct{ key, value string }{
		{"trust", c.Trust}, {"bundle", c.Bundle}, {"host_key", c.HostKey}, {"host_certificate", c.HostCertificate}, {"audit", c.Audit},
	} {
		if p.value == "" {
			return Config{}, doc.Place(tomlfile.At("", p.key+` = "FILE"`, "%s is missing: the path of a file", p.key))
		}
	}
	if _, err := checkReplica(c.AuditReplica); err != nil {
		return Config{}, doc.Place(tomlfile.At("audit_replica", `audit_replica = "http://127.0.0.1:9101": what brings records to the controller runs on this machine`, "audit_replica: %w", err))
	}
	if err := c.Sandbox.check(); err != nil {
		return Config{}, doc.Place(tomlfile.At("sandbox", `leave it out for "on"`, "%w", err))
	}
	if err := c.Plugin.check(); err != nil {
		return Config{}, doc.Place(tomlfile.At("plugin", `directory = "/usr/lib/mayfly/plugins" and user = "NAME"`, "plugin: %v", err))
	}
	if err := c.checkMetrics(doc); err != nil {
		return Config{}, err
	}
	if err := c.Alerts.check(doc); err != nil {
		return Config{}, err
	}
	if err := c.Log.check(); err != nil {
		return Config{}, doc.Place(tomlfile.At("log", `leave it out for "text"`, "%w", err))
	}
	if err := c.Session.check(); err != nil {
		return Config{}, doc.Place(tomlfile.At("session", "[session] has ca, host_cas and recordings", "%w", err))
	}
	if err := c.checkWitnesses(doc); err != nil {
		return Config{}, err
	}
	if err := c.checkAuditWitnesses(doc); err != nil {
		return Config{}, err
	}
	return c, nil
}

// checkWitnesses asks for URLs that lead to one place each.
func (c Config) checkWitnesses(doc *tomlfile.Doc) error {
	if len(c.Witnesses) > maxAskers {
		return doc.Place(tomlfile.At("witnesses", "the trust policy has no more", "%d witnesses: at most %d", len(c.Witnesses), maxAskers))
	}
	for i, text := range c.Witnesses {
		at := fmt.Sprintf("witnesses[%d]", i)
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
			return doc.Place(tomlfile.At(at, `witnesses = ["http://ADDRESS:PORT"]`, "witness %q is no http or https URL", text))
		case slices.Contains(c.Witnesses[:i], text):
			return doc.Place(tomlfile.At(at, "each witness once", "witness %q is there twice", text))
		}
	}
	return nil
}
