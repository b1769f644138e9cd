package bastion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/bastion/listen"
	"mayfly/bastion/recording"
	"mayfly/bastion/sandbox"
	"mayfly/internal/audit"
	"mayfly/policies/witness"
)

// Bounds of what is healthy in a machine, and of what a doctor does there.
const (
	leastSpace    = 64 << 20 // bytes: below this the log takes nobody new
	littleSpace   = 1 << 30
	clockAgrees   = 30 * time.Second
	maxDoctorDial = 256 // servers
	doctorDialers = 16
	doctorDial    = 2 * time.Second
	doctorSystemd = 5 * time.Second
	maxNamed      = 10
)

// witnesses asks each by itself: whether it answers, what it knows, and what its clock says.
func (d *doctor) witnesses(ctx context.Context) {
	if d.trust == nil || d.bundle == nil {
		return
	}
	if d.trust.WitnessThreshold == 0 {
		d.note("witnesses", Warn, "fleetctl witness is one; trust.json says how many must confirm", "nobody is asked whether the policy is the newest")
		return
	}
	var answers [][]byte
	q := witness.Ask(d.trust.Fleet, witness.SubjectPolicy)
	for _, url := range d.config.Witnesses {
		asking, cancel := context.WithTimeout(ctx, askLimit)
		got := askWitnesses(asking, []string{url}, q, func([][]byte) bool { return true })
		cancel()
		if len(got) == 0 {
			d.note("witnesses", Warn, "is it up, and is the way there open?", "%s does not answer", url)
			continue
		}
		a, err := witness.Open(d.trust, got[0])
		if err != nil {
			d.fail("witnesses", fmt.Errorf("%s: %w", url, err), "its key is not the one in trust.json, or something else answers there")
			continue
		}
		switch apart := time.Until(a.Time).Abs(); {
		case apart > witness.MaxSkew:
			d.note("witnesses", Fails, "set the clocks: its answers do not count", "%s: its clock is %s from ours", url, apart.Round(time.Second))
		case apart > clockAgrees:
			d.note("witnesses", Warn, "set the clocks", "%s: its clock is %s from ours", url, apart.Round(time.Second))
		case a.Version != d.bundle.Version:
			d.note("witnesses", Warn, "fleetctl policy publish brings it the newest", "%s knows version %d", url, a.Version)
		}
		answers = append(answers, got[0])
	}
	if v := witness.Judge(d.trust, q, d.bundle.Version, d.sum, answers, d.now); !v.Fresh {
		d.note("witnesses", Fails, witnessHint(v.Reason), "%s", v.Error())
	} else {
		d.ok("witnesses", "%s confirm version %d, %d needed", strings.Join(v.Witnesses, " "), d.bundle.Version, d.trust.WitnessThreshold)
	}
}

// addresses looks at the list of who may connect.
func (d *doctor) addresses() {
	if d.bundle == nil {
		return
	}
	allow := d.bundle.Policy.SSH.Allow
	if len(allow) == 0 && len(d.bundle.Policy.SSH.Proxies) == 0 {
		d.note("addresses", Fails, "list in ssh.allow from where engineers connect", "nobody can connect")
		return
	}
	d.ok("addresses", "%d prefixes; doctor --from ADDRESS says whether yours is in", len(allow))
}

// kernel looks at what the sandbox and the address filter need.
func (d *doctor) kernel(ctx context.Context) {
	switch {
	case d.config.Sandbox == SandboxOff:
		d.note("sandbox", Warn, `sandbox = "on"`, "off: whoever takes over the process has all that its user has")
	case d.ruling != nil:
		report := d.config.reportSandbox(d.ruling)
		for _, m := range report.Missing {
			h := Warn
			if d.config.Sandbox == SandboxRequire {
				h = Fails
			}
			d.note("sandbox", h, "boot a kernel that has it", "this kernel lacks %s", m)
		}
		for _, n := range report.Notes {
			d.note("sandbox", Warn, "move the audit log", "%s", n)
		}
		if len(report.Missing)+len(report.Notes) == 0 {
			d.ok("sandbox", "%s", strings.Join(report.Enforced, ", "))
		}
	default:
		if missing := sandbox.Probe(sandbox.Rules{}).Missing; len(missing) > 0 {
			d.note("sandbox", Warn, "boot a kernel that has it", "this kernel lacks %s", strings.Join(missing, "; "))
		}
	}
	if d.ruling == nil {
		return
	}
	l, err := listen.On(ctx, netip.MustParseAddrPort("127.0.0.1:0"), d.ruling.filter)
	if err != nil {
		d.fail("filter", err, "some kernels want CAP_NET_ADMIN for it: see bastion.service")
		return
	}
	l.Close()
	d.ok("filter", "the kernel takes the address list (%d instructions)", len(d.ruling.filter))
}

// listening looks whether a bastion serves, or could.
func (d *doctor) listening(ctx context.Context) {
	if d.serving != nil {
		d.ok("listen", "a bastion serves on %s since %s", d.serving.Listen, d.serving.Began.Format(time.RFC3339))
		if !d.serving.Audit.Works {
			d.note("audit", Fails, "bastion status says more", "the serving bastion cannot write it: %s", d.serving.Audit.Error)
		}
		return
	}
	if d.ruling == nil {
		return
	}
	l, err := listen.On(ctx, d.config.Listen, d.ruling.filter)
	switch {
	case errors.Is(err, unix.EADDRINUSE) && unitState(ctx, "bastion.socket")["ActiveState"] == "active":
		d.ok("listen", "%s is kept by bastion.socket", d.config.Listen)
	case errors.Is(err, unix.EADDRINUSE) && d.config.Control == "":
		d.note("listen", Warn, `control = "FILE.sock" lets the bastion answer doctor and status`, "%s is in use: by a bastion, or by something else", d.config.Listen)
	case err != nil:
		d.fail("listen", err, "name another address in bastion.toml")
	default:
		l.Close()
		d.note("listen", Healthy, "", "%s is free, and no bastion serves", d.config.Listen)
	}
}

// auditLog verifies the log by the key beside it, and looks at the room it has.
func (d *doctor) auditLog() {
	dir := d.config.Audit
	switch _, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		d.ok("audit", "%s is made at the first start", dir)
		dir = filepath.Dir(dir)
	case err != nil:
		d.fail("audit", err, "run doctor as the bastion's user, or as root")
		return
	default:
		d.verifyAudit(dir)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		d.fail("space", fmt.Errorf("asking for free space of %s: %w", dir, err), "make the directory")
		return
	}
	free := s.Bavail * uint64(s.Bsize)
	switch {
	case free < leastSpace:
		d.note("space", Fails, "make room, or give the log a file system of its own", "%d MiB are free at %s: nobody new gets in", free>>20, dir)
	case free < littleSpace:
		d.note("space", Warn, "below 64 MiB nobody new gets in", "%d MiB are free at %s", free>>20, dir)
	default:
		d.ok("space", "%d MiB are free at %s", free>>20, dir)
	}
}

// recordings looks at the room that recorded sessions have, and whose it is.
func (d *doctor) recordings() {
	dir := d.config.Session.Recordings
	if dir == "" {
		return
	}
	var s unix.Statfs_t
	var own, log unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &s), unix.Stat(dir, &own)); err != nil {
		d.fail("recordings", fmt.Errorf("looking at %s: %w", dir, err), "make the directory")
		return
	}
	near := d.config.Audit
	if _, err := os.Stat(near); errors.Is(err, fs.ErrNotExist) {
		near = filepath.Dir(near) // where it is going to be
	}
	free := s.Bavail * uint64(s.Bsize)
	switch err := unix.Stat(near, &log); {
	case free < recording.Reserve:
		d.note("recordings", Fails, "make room: nothing deletes recordings", "%d MiB are free at %s: no session is recorded, so none is begun", free>>20, dir)
	case err == nil && own.Dev == log.Dev:
		d.note("recordings", Warn, "give recordings a file system of their own",
			"%s is on the audit log's file system: recordings that fill it to %d MiB bring nearer when nobody new gets in", dir, recording.Reserve>>20)
	default:
		d.ok("recordings", "%d MiB are free at %s", free>>20, dir)
	}
}

func (d *doctor) verifyAudit(dir string) {
	path := d.config.AuditKey
	if path == "" {
		path = filepath.Join(dir, audit.KeyName)
	}
	key, err := audit.ReadVerifier(path + ".pub")
	if errors.Is(err, fs.ErrNotExist) {
		d.ok("audit", "%s holds no log yet", dir)
		return
	}
	var report audit.Report
	if err == nil {
		report, err = audit.Verify(dir, audit.Trusted{Log: key})
	}
	if err != nil {
		d.fail("audit", err, "keep the directory as it is, and compare it with a copy: somebody may have written to it")
		return
	}
	d.ok("audit", "%d records hold by the key beside them; keep a copy of %s.pub elsewhere", report.Size, path)
	if report.Last != nil && report.Last.After(d.now.Add(time.Minute)) {
		d.note("clock", Fails, "set the clock", "the log's last record is of %s, which has yet to come", report.Last.Format(time.RFC3339))
	}
}

// clock asks the kernel whether anything sets it.
func (d *doctor) clock() {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		d.note("clock", Warn, "run doctor as root", "the kernel does not say whether the clock is set: %v", err)
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		d.note("clock", Warn, "run chrony or systemd-timesyncd: expiries go by this clock", "nothing keeps the clock right")
	default:
		d.ok("clock", "is kept right")
	}
}

// servers connects to each that somebody may be let through to, from the address that the bastion dials from. Names are not looked up: addresses
// are the inventory's.
func (d *doctor) servers(ctx context.Context) {
	if d.ruling == nil {
		return
	}
	dial := dialingFrom(d.config.Listen.Addr())
	var mu sync.Mutex
	var silent []string
	var tasks sync.WaitGroup
	places := make(chan struct{}, doctorDialers)
	all := d.bundle.Inventory.Servers
	for _, server := range all[:min(len(all), maxDoctorDial)] {
		places <- struct{}{}
		tasks.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, doctorDial)
			defer cancel()
			conn, err := dial(ctx, netip.AddrPortFrom(server.Address.Addr(), 22))
			if err == nil {
				err = conn.Close()
			}
			if err != nil {
				mu.Lock()
				silent = append(silent, server.Name)
				mu.Unlock()
			}
		})
	}
	tasks.Wait()
	slices.Sort(silent)
	switch n := len(silent); {
	case n == 0:
		d.ok("servers", "%d answer on port 22", min(len(all), maxDoctorDial))
	default:
		d.note("servers", Warn, "are they up, and does their firewall let the bastion's address in?", "%d of %d do not answer on port 22: %s", n, len(all), strings.Join(silent[:min(n, maxNamed)], " "))
	}
}

// units looks at the service, where systemd runs.
func (d *doctor) units(ctx context.Context) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		d.ok("systemd", "does not run here")
		return
	}
	for _, unit := range []string{"bastion.service", "bastion.socket", "bastion-renew.service"} {
		s := unitState(ctx, unit)
		switch {
		case s["LoadState"] != "loaded":
			d.note("systemd", Warn, "install the units of bastion/systemd", "%s is not installed", unit)
		case s["UnitFileState"] != "enabled":
			d.note("systemd", Warn, "systemctl enable "+unit, "%s is %s: it does not begin at boot", unit, s["UnitFileState"])
		case s["ActiveState"] != "active":
			d.note("systemd", Fails, "journalctl -u "+unit, "%s is %s", unit, s["ActiveState"])
		default:
			d.ok("systemd", "%s is enabled and active", unit)
		}
	}
}

// unitState asks systemd about a unit; empty where there is none.
func unitState(ctx context.Context, unit string) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, doctorSystemd)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=LoadState,UnitFileState,ActiveState", unit).Output()
	state := make(map[string]string)
	if err != nil {
		return state
	}
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		state[key] = value
	}
	return state
}
