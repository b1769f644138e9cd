package bastion

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/origin"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
)

const kindDiagnosis = "mayfly-bastion-doctor/1"

// Health is what a check comes to.
type Health string

const (
	Healthy Health = "ok"
	Warn    Health = "warn" // it works, and somebody should know
	Fails   Health = "fail" // it does not work, or not as meant
)

// Finding is the result of one check.
type Finding struct {
	Check  string `json:"check"`
	Health Health `json:"status"`
	What   string `json:"what"`
	Hint   string `json:"hint,omitempty"` // its mend
}

// Diagnosis is what "bastion doctor" found.
type Diagnosis struct {
	Kind     string    `json:"kind"`
	At       time.Time `json:"at"`
	Findings []Finding `json:"findings"`
	Failures int       `json:"failures"`
	Warnings int       `json:"warnings"`
}

// Suppose is somebody about whom a doctor is asked: what would happen to them.
type Suppose struct {
	From   netip.Addr
	User   string
	Key    ssh.PublicKey // taken as proven
	Server string
	Port   uint16
}

// Bounds of what is healthy.
const (
	soonPolicy   = 7 * 24 * time.Hour
	soonHostCert = 15 * time.Minute // it lasts an hour, and is renewed at half of that
	longHostCert = 25 * time.Hour   // what is not renewed
)

// doctor collects findings.
type doctor struct {
	config  Config
	now     time.Time
	trust   *trust.Trust
	bundle  *bundle.Bundle
	sum     string
	ruling  *ruling
	serving *Status // nil: no bastion answers

	findings []Finding
}

func (d *doctor) note(check string, h Health, mend, format string, args ...any) {
	if h == Healthy {
		mend = ""
	}
	d.findings = append(d.findings, Finding{Check: check, Health: h, What: escape(fmt.Sprintf(format, args...), 4*maxDetail), Hint: mend})
}

func (d *doctor) ok(check, format string, args ...any) { d.note(check, Healthy, "", format, args...) }

// fail notes an error with its own hint, or another.
func (d *doctor) fail(check string, err error, otherwise string) {
	if own := hint.Of(err); own != "" {
		otherwise = own
	}
	d.note(check, Fails, otherwise, "%v", err)
}

// Doctor looks at all that a bastion needs. It changes nothing, and goes on after what is wrong as far as it can.
func Doctor(ctx context.Context, path string, who *Suppose, now time.Time) Diagnosis {
	d := &doctor{now: now}
	d.examine(ctx, path, who)
	diagnosis := Diagnosis{Kind: kindDiagnosis, At: now.UTC(), Findings: listed(d.findings)}
	for _, f := range d.findings {
		switch f.Health {
		case Fails:
			diagnosis.Failures++
		case Warn:
			diagnosis.Warnings++
		}
	}
	return diagnosis
}

func (d *doctor) examine(ctx context.Context, path string, who *Suppose) {
	config, err := LoadConfig(path)
	if err != nil {
		d.fail("configuration", err, "bastion serve --help explains the file")
		return
	}
	d.config = config
	d.ok("configuration", "%s", path)
	if config.Control != "" {
		if s, err := AskStatus(ctx, config); err == nil {
			d.serving = &s
		}
	}
	if d.serving != nil && d.serving.Plugins != nil && !d.serving.Plugins.Works {
		d.note("plugins", Fails, "systemctl restart bastion: a confined bastion cannot start their host", "their host has ended: what they decide is denied")
	}
	d.files(path)
	d.policy()
	d.witnesses(ctx)
	keys := d.hostKeys()
	if d.bundle != nil && keys != nil {
		if d.ruling, err = rule(d.bundle, keys); err != nil {
			d.fail("policy", err, "fleetctl policy check says what is wrong")
		}
	}
	d.addresses()
	d.kernel(ctx)
	d.listening(ctx)
	d.auditLog()
	d.recordings()
	d.clock()
	d.servers(ctx)
	d.deliverer()
	d.units(ctx)
	if who != nil {
		d.suppose(*who)
	}
}

// files looks at who may write to what the bastion goes by: only root, and its own user.
func (d *doctor) files(config string) {
	before := len(d.findings)
	c := d.config
	secret := map[string]bool{c.HostKey: true, c.Session.CA: true, c.AuditKey: true, c.Alerts.Token: true}
	for _, path := range []string{config, c.Trust, c.Bundle, c.Bundle + ".sig", c.HostKey, c.HostCertificate, c.Statements, c.ControllerCA, c.AuditKey,
		c.Session.CA, c.Session.HostCAs, c.Session.Recordings, c.Alerts.Token, c.Alerts.CA, c.Alerts.Networks, c.Alerts.Exec, c.TrustChain} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			if path != c.AuditKey { // made at the first start
				d.fail("files", err, "make it, or name another in bastion.toml")
			}
			continue
		}
		d.owned(path, info)
		if parent, err := os.Stat(filepath.Dir(path)); err == nil {
			d.owned(filepath.Dir(path), parent)
		}
		if secret[path] && info.Mode().Perm()&0o077 != 0 {
			d.note("files", Fails, "chmod 600 "+path, "%s: others can read it (mode %#o)", path, info.Mode().Perm())
		}
	}
	if len(d.findings) == before {
		d.ok("files", "nobody but root and this user can write to what the bastion goes by")
	}
}

func (d *doctor) owned(path string, info os.FileInfo) {
	for _, f := range d.findings {
		if f.Check == "files" && len(f.What) > len(path) && f.What[:len(path)+1] == path+":" {
			return // a directory of several files
		}
	}
	if mode := info.Mode(); mode.Perm()&0o022 != 0 && mode&os.ModeSticky == 0 {
		d.note("files", Fails, "chmod go-w "+path, "%s: others can write to it (mode %#o)", path, mode.Perm())
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		d.note("files", Warn, "chown root "+path+", or run doctor as the bastion's user", "%s: belongs to uid %d", path, stat.Uid)
	}
}

// policy opens trust and bundle as serve would.
func (d *doctor) policy() {
	var err error
	var steps []trust.Change
	if d.trust, steps, err = d.config.trustPlace().load(); err != nil {
		d.fail("trust", err, "fleetctl init makes it")
		return
	}
	d.ok("trust", "fleet %s, %d of %d approvers, trust policy %d (steps from %s: %d)", d.trust.Fleet, d.trust.Threshold, len(d.trust.Approvers), d.trust.Version, filepath.Base(d.config.Trust), len(steps))
	if d.trust.Test {
		d.note("trust", Warn, "a fleet that matters has test = false", "a test fleet: software keys can be enrolled")
	}
	seen, err := seenVersion(d.config)
	if err != nil {
		d.fail("policy", err, "look at the audit log's directory")
	}
	if d.bundle, _, d.sum, err = openBundle(d.config, d.config.trustPlace(), seen, d.now); err != nil {
		d.fail("policy", err, "fleetctl policy check says what is wrong")
		d.bundle = nil
		return
	}
	if err := d.config.checkPlugins(d.bundle.Policy); err != nil {
		d.fail("policy", err, "")
	}
	if left := d.bundle.Expires.Sub(d.now); left < soonPolicy {
		d.note("policy", Warn, "raise the policy's version and expiry, make a new bundle and have it signed", "version %d ends in %s: nobody gets in after that", d.bundle.Version, left.Round(time.Minute))
	} else {
		d.ok("policy", "version %d, signed, until %s", d.bundle.Version, d.bundle.Expires.UTC().Format(time.RFC3339))
	}
	d.enrolled()
	if d.serving != nil && d.serving.Policy != d.bundle.Version {
		d.note("policy", Fails, "the bastion's log and \"bastion audit tail --event policy\" say why", "the bastion serves version %d, and not %d", d.serving.Policy, d.bundle.Version)
	}
}

// enrolled looks for keys that let nobody in.
func (d *doctor) enrolled() {
	rejected := d.bundle.Policy.Rejected()
	if len(rejected) == 0 {
		d.ok("keys", "the evidence of every enrolled key is accepted")
	}
	for i, k := range rejected {
		if i == maxWarnings {
			d.note("keys", Warn, "bastion check lists them", "%d more enrolled keys let nobody in", len(rejected)-i)
			return
		}
		mend := k.Mend
		if mend == "" {
			mend = "fleetctl key revoke takes it away, fleetctl key add enrols another"
		}
		d.note("keys", Warn, mend, "%s of %s lets nobody in: %s: %s", k.Fingerprint, k.Name, k.Reason, k.Detail)
	}
}

// hostKeys looks at the key, its certificate, and what keeps that young.
func (d *doctor) hostKeys() *hostKeys {
	key, err := readHostKey(d.config.HostKey)
	if err != nil {
		d.fail("host_key", err, "ssh-keygen -t ed25519 makes one")
		return nil
	}
	d.ok("host_key", "%s", ssh.FingerprintSHA256(key.PublicKey()))
	keys, err := loadHostKeys(d.config.HostKey, d.config.HostCertificate, d.now)
	if err != nil {
		d.fail("host_certificate", err, certifyHint)
		return nil
	}
	switch left := keys.validBefore().Sub(d.now); {
	case left < soonHostCert:
		d.note("host_certificate", Warn, "does bastion renew run? systemctl status bastion-renew", "ends in %s", left.Round(time.Second))
	case left > longHostCert:
		d.note("host_certificate", Warn, "fleetctl certify makes one of an hour, bastion renew keeps it young", "lasts until %s: whoever copies the host key is the bastion until then", keys.validBefore().UTC().Format(time.RFC3339))
	default:
		d.ok("host_certificate", "for %v until %s", keys.certificate.ValidPrincipals, keys.validBefore().UTC().Format(time.RFC3339))
	}
	if d.config.ControllerCA == "" {
		d.note("renewal", Warn, `controller_ca = "tls-ca.pem" lets bastion renew ask the controller`, "nothing here can renew the host certificate")
	} else if data, err := durable.ReadFile(d.config.ControllerCA, maxCertificate); err != nil || len(data) == 0 {
		d.fail("renewal", errors.Join(errors.New("controller_ca cannot be read"), err), "it is the fleet's tls-ca.pem")
	} else {
		d.ok("renewal", "by %s", d.config.ControllerCA)
	}
	return keys
}

// deliverer looks at what alerts need.
func (d *doctor) deliverer() {
	a := d.config.Alerts
	if !a.set() {
		d.note("alerts", Warn, "[alerts] in bastion.toml names a webhook or a program", "nobody is told of what should not happen")
		return
	}
	var errs []error
	if a.Token != "" {
		secret, err := durable.ReadSecret(a.Token)
		clear(secret)
		errs = append(errs, err)
	}
	if a.Networks != "" {
		_, err := origin.ReadTable(a.Networks)
		errs = append(errs, err)
	}
	if a.Program != "" {
		_, err := os.Stat(a.Program)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		d.fail("alerts", err, "docs/formats/alerts.md says what is needed")
		return
	}
	d.ok("alerts", "go to %s%s", a.Webhook, map[bool]string{true: " and " + a.Exec}[a.Exec != ""])
}

// suppose traces what would be decided about somebody, step by step.
func (d *doctor) suppose(who Suppose) {
	step := func(name string, v policies.Verdict, mend string) bool {
		if v.Allow {
			d.ok(name, "allowed: %s", v.Detail)
		} else {
			d.note(name, Fails, mend, "%s: %s", v.Reason, v.Detail)
		}
		return v.Allow
	}
	if d.ruling == nil {
		d.note("from", Fails, "mend the failures above first", "there is no policy to decide by")
		return
	}
	from := who.From.Unmap().WithZone("")
	policy := d.bundle.Policy
	if policy.Balancer(from) {
		d.note("from", Warn, "ask about an address behind it", "%s is a balancer: a PROXY header says who connects", from)
	} else if !step("from", policy.Admit(from, d.now), "add the address to ssh.allow, raise the version and have the policy signed") {
		return
	}
	if d.serving != nil {
		for _, p := range d.serving.Penalties {
			if p.Network == network(from).String() {
				d.note("from", Fails, "wait, or list it in ssh.penalty_exempt", "%s: %s refused until %s after %d failures, the last %s", sourcePenalised, p.Network, p.Until.Format(time.RFC3339), p.Failures, p.Why)
			}
		}
	}
	if who.User == "" {
		return
	}
	statements := statementDir{path: d.config.Statements, trust: d.config.Trust, chain: d.config.TrustChain}
	if d.config.Statements != "" {
		if _, _, err := statements.look(policy, d.now); err != nil {
			d.fail("statements", err, "")
		}
	}
	d.ruling.statements = statements.collected()
	credential := attest(policy, who.User, who.Key)
	login := policies.Login{Source: from, User: who.User, Key: credential.public, Certificate: credential.certificate}
	if !step("login", d.ruling.decideLogin(login, d.now), "docs/formats/audit.md explains the reason; bastion check lists who is enrolled") || who.Server == "" {
		return
	}
	target := policies.Target{Server: serverName(&d.bundle.Inventory, who.Server), Port: who.Port}
	if !step("target", d.ruling.decideTarget(login, target, d.now), "bastion check lists who may open what; docs/formats/policy.md explains conditions") {
		return
	}
	if len(pins(policy, "")) > 0 {
		d.note("target", Warn, "their own log says what they would decide", "%d plugins are asked as well, and not by this", len(pins(policy, "")))
	}
}
