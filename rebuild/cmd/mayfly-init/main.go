package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(notInit(context.Background(), os.Args[1:]))
	}
	con := &console{w: os.Stdout}
	ctx, cancel := context.WithCancel(context.Background())
	inside := inContainer(os.Args)
	end := &ending{con: con, cancel: cancel, inContainer: inside}
	limit := newDeadline()
	b := &boot{con: con, end: end, limit: limit, inContainer: inside, up: uptime}
	if inside {
		b.up = since(uptime)
	}
	b.watchEnds(ctx)
	if err := b.run(ctx); err != nil {
		b.hold(ctx, err)
	}
	select {} // PID 1 must not end; stop switches off
}

// notInit answers a person who runs the program.
func notInit(ctx context.Context, args []string) int {
	return command.Program{
		Name:    "mayfly-init",
		Summary: "PID 1 of a mayfly server. The stub starts it on the verified root; it has no verbs of its own.",
	}.Main(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}

// boot is a machine on its way.
type boot struct {
	con    *console
	end    *ending
	limit  *deadline
	papers *papers                       // nil until they are read
	up     func() (time.Duration, error) // how long this life has lasted
	dogs   *watchdogs
	told   warnings // what does not keep the machine from going on, and the controller has to know

	inContainer bool
	mu          sync.Mutex
	live        *machine // nil until it has joined; guarded by mu
}

// watchEnds starts all that may end the machine: signals, the power button, the end of life.
func (b *boot) watchEnds(ctx context.Context) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT, unix.SIGPWR)
	// Handled and not ignored: what PID 1 ignores, every program after it would ignore.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGPIPE)
	go func() { b.end.stop((<-stop).String()) }()
	go b.limit.watch(ctx, b.up, b.lastDrain, b.end.stop)
}

// lastDrain lets users go before the end, if nobody ordered it.
func (b *boot) lastDrain(left time.Duration) {
	b.mu.Lock()
	m := b.live
	b.mu.Unlock()
	if m != nil {
		m.beginDrain(context.Background(), left)
	}
}

// run is the boot. Each stage is told as it begins.
func (b *boot) run(ctx context.Context) error {
	for _, s := range b.stages() {
		b.con.stage("%s", s.name)
		if err := s.do(); err != nil {
			return coded(s.code, err)
		}
	}
	if err := watchButtons("/dev/input", func() { go b.end.stop("power button") }); err != nil {
		b.con.stage("power button: %v", err)
	}
	m, err := b.join(ctx)
	if err != nil {
		return err
	}
	return b.serve(ctx, m)
}

// stage is one step of a boot, with the reason code of its failures that have none of their own.
type stage struct {
	name, code string
	do         func() error
}

// stages of a boot, in order.
func (b *boot) stages() []stage {
	if b.inContainer {
		return []stage{
			{"mounts", codeMounts, mountAll},
			{"taking over", codePapers, func() error { return takePapers(containerPapers, runDir) }},
			{"papers", codePapers, b.readPapers},
			{"network", codeNetwork, func() error { return configureNetwork(b.papers.ticket) }},
			{"packet filter", codeFirewall, b.firstRules},
			{"lockdown", codeLockdown, func() error { return lockdown("/proc/sys", ownNetwork(settings)) }},
		}
	}
	// The stub handed over its file descriptors; services and sessions shall not find more.
	return []stage{
		{"mounts", codeMounts, mountAll},
		{"limits", codeMounts, limitSessions},
		{"modules", codeModules, func() error { return loadModules(release.ModulesPath) }},
		{"watchdog", codeModules, b.armWatchdogs},
		{"probing", codeProbing, func() error { return stopProbing("/sys/bus") }},
		{"papers", codePapers, b.readPapers},
		{"network", codeNetwork, func() error { return configureNetwork(b.papers.ticket) }},
		{"refusals", codeDisk, b.refusals},
		{"packet filter", codeFirewall, b.firstRules},
		{"lockdown", codeLockdown, func() error { return lockdown("/proc/sys", settings) }},
		{"hardening", codeNoLockdown, func() error { return harden(b.papers.statement.Cmdline) }},
	}
}

// coded gives an error of a stage the stage's reason code, if it has none.
func coded(code string, err error) error {
	if _, ok := errors.AsType[*refusal](err); ok {
		return err
	}
	return refuse(code, "%w", err)
}

func (b *boot) readPapers() error {
	p, err := readPapers(runDir, time.Now())
	if err != nil {
		return err
	}
	b.papers = p
	up, err := b.up()
	if err != nil {
		return err
	}
	b.limit.life(lifeUntil(p.lifetime(), p.ticket.Deadline, time.Now(), up))
	return nil
}

// refusals come when the network is there, so that the controller hears of them.
func (b *boot) refusals() error {
	idle, err := disks("/sys", b.papers.ticket.Disks)
	if err != nil {
		return err
	}
	if len(idle) > 0 {
		b.told.add("storage that no driver drives: %s", strings.Join(idle, " "))
	}
	if err := noSwap("/proc/swaps"); err != nil {
		return err
	}
	return clockBefore(time.Now(), b.papers.statement.NotBefore)
}

// armWatchdogs begins to be watched; who is not heard is ended. From here on the watch of the deadline feeds them: a machine that would not
// end by itself is ended.
func (b *boot) armWatchdogs() error { return b.armEach(watchdogFiles) }

func (b *boot) armEach(pattern string) error {
	dogs, err := armWatchdogs(pattern, watchdogSeconds)
	if err != nil {
		b.told.add("watchdog: %v", err)
	}
	if len(dogs.names) == 0 {
		b.told.add("no watchdog")
	}
	b.dogs = dogs
	for _, name := range dogs.names {
		b.con.stage("watchdog: %s", name)
	}
	b.limit.feed(dogs.feed)
	return nil
}

// firstRules let nobody in: who may come is not known yet.
func (b *boot) firstRules() error {
	return applyRules(&nftables.Conn{}, []pass{{in: "lo"}, {invalid: true, discard: true}, {state: true}})
}

// join makes the keys and begins the life.
func (b *boot) join(ctx context.Context) (*machine, error) {
	b.con.stage("keys")
	t := b.papers.ticket
	k, err := makeKeys(t.ServerName())
	if err != nil {
		return nil, coded(codeKeys, err)
	}
	if b.inContainer {
		k.bootID = containerID()
	}
	client, err := join.NewClient(t)
	if err != nil {
		return nil, coded(codeJoin, err)
	}
	r, err := newReaper(b.inContainer)
	if err != nil {
		return nil, coded(codeServices, err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go r.run(children)
	m := &machine{
		restart: b.end.restart, span: span{limit: b.limit, up: b.up},
		con: b.con, papers: b.papers, keys: k, client: client, end: b.end.stop,
		sup: newSupervisor(r.start), tunnel: newTunnelClient(tunnelControl), changed: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
	}
	m.told = &b.told
	m.logins = &loginReports{now: time.Now, wake: m.poke}
	request := join.Request{
		Ticket: b.papers.data, Signature: b.papers.sig, CSR: k.csr, HostKey: k.host, TunnelKey: k.public, BootID: k.bootID,
	}
	if t.TPM == ticket.TPMRequired {
		b.con.stage("attestation")
		if err := b.attest(ctx, client, &request); err != nil {
			return nil, coded(codeTPM, err)
		}
	}
	b.con.stage("join")
	answer, err := joinController(ctx, client, request)
	if err != nil {
		return nil, err
	}
	b.con.stage("joined: %s", answer.Evidence)
	if err := burn(runDir); err != nil {
		return nil, coded(codeJoin, err)
	}
	b.con.stage("policy")
	if err := m.becomeRole(answer.Bundle, answer.BundleSig, time.Now()); err != nil {
		return nil, coded(codeServices, err)
	}
	for _, do := range []func() error{
		m.writeKeys,
		func() error { return m.setCertificates(answer.Certificates, time.Now()) },
		overlayAccounts,
		func() error { return m.newPolicy(answer.Bundle, answer.BundleSig, time.Now()) },
	} {
		if err := do(); err != nil {
			return nil, coded(codeServices, err)
		}
	}
	b.mu.Lock()
	b.live = m
	b.mu.Unlock()
	return m, nil
}

// serve starts the services and stays.
func (b *boot) serve(ctx context.Context, m *machine) error {
	b.con.stage("services")
	f := m.bundle.Inventory
	server, _ := f.Server(m.papers.ticket.Server)
	if m.gate != nil {
		return b.serveGate(ctx, m, server)
	}
	config, err := tunnelConfiguration(f, server)
	if err != nil {
		return coded(codeServices, err)
	}
	if err := writeOwned(tunnelConf, config, 0o644, tunnelUID); err != nil {
		return coded(codeServices, err)
	}
	config, err = resolverConfiguration(f, server)
	if err != nil {
		return coded(codeServices, err)
	}
	if err := durable.WriteFile(resolverConf, config, 0o644); err != nil {
		return coded(codeServices, err)
	}
	if err := openTun("/dev/net/tun"); err != nil {
		return coded(codeServices, err)
	}
	b.end.onServices(m.sup.wg.Wait)
	b.stay(ctx, m, server, sshdService(m.logins.take), tunnelService(), resolverService())
	return nil
}

// stay runs the services and all that keeps a machine going, until ctx ends.
func (b *boot) stay(ctx context.Context, m *machine, server inventory.Server, services ...spec) {
	for _, s := range services {
		m.sup.run(ctx, s)
	}
	var wg sync.WaitGroup
	m.watchServices(ctx, &wg, server)
	wg.Go(func() { m.holdStream(ctx) })
	wg.Go(func() { m.keepCertificates(ctx) })
	wg.Go(func() { m.watchPolicy(ctx) })
	wg.Go(func() { b.tellReady(ctx, m) })
	if !b.inContainer { // whose disks are its host's
		look := func() error {
			_, err := disks("/sys", m.papers.ticket.Disks)
			return errors.Join(err, noSwap("/proc/swaps"))
		}
		wg.Go(func() { watchDisks(ctx, diskEvery, look, func(err error) { b.leave(ctx, m, err, b.end.stop) }) })
	}
	wg.Wait()
}

// tellReady says once that every service answers.
func (b *boot) tellReady(ctx context.Context, m *machine) {
	for sleep(ctx, probeEvery/2) {
		if _, ready := m.sup.all(); ready {
			up, err := b.up()
			if err != nil {
				b.con.stage("ready")
				return
			}
			b.con.stage("ready after %.1f s", up.Seconds())
			return
		}
	}
}

// openTun lets the tunnel's user open the TUN device; what it may do there its capability says.
func openTun(path string) error {
	if err := os.Chown(path, tunnelUID, tunnelUID); err != nil {
		return fmt.Errorf("giving the tunnel its device: %w", err)
	}
	return os.Chmod(path, 0o600)
}

// Bounds of holding.
const (
	reportAttempts = 5
	reportPause    = 2 * time.Second
	leaveLimit     = lastDrain
)

// leave ends a machine that cannot go on as it is: the controller hears why, users go, and it switches itself off.
func (b *boot) leave(ctx context.Context, m *machine, err error, end func(string)) {
	reason, detail := code(err)
	b.con.stage("leaving: %s: %s", reason, detail)
	b.told.add("%s: %s", reason, detail)
	m.poke()
	go func() { _ = report(ctx, b.papers, err) }() // the health says it as well
	m.beginDrain(ctx, leaveLimit)
	for end := time.Now().Add(leaveLimit + 2*drainGrace); time.Now().Before(end); {
		if _, drained := m.health(); drained != nil || !sleep(ctx, drainLook) {
			break
		}
	}
	sleep(ctx, 2*join.HealthInterval) // for the last words
	go end(reason)                    // it does not return
}

// hold says why, tells the controller, and waits to be switched off or for the deadline. There is no shell and no way on.
func (b *boot) hold(ctx context.Context, err error) {
	reason, detail := code(err)
	b.con.stage("refused: %s: %s", reason, detail)
	if b.papers == nil {
		return
	}
	for range reportAttempts {
		rerr := report(ctx, b.papers, err)
		if _, answered := join.IsRefusal(rerr); rerr == nil || answered {
			break
		}
		if !sleep(ctx, jitter(reportPause)) {
			break
		}
	}
	b.con.stage("held")
}
