package bastion

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/bastion/alert"
	"mayfly/bastion/origin"
	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
	"mayfly/policies"
)

// Implementation constants of alerts.
const (
	maxAlertsWaiting = 256
	maxAlertsSaid    = 1024             // kinds and subjects that are remembered
	alertQuiet       = 10 * time.Minute // one of the same kind and subject is held back, and counted
	alertWrite       = 5 * time.Second  // for bastion-alerts to take a line
	alertReady       = 10 * time.Second // for it to begin
	alertEnd         = 15 * time.Second // for it to deliver the last ones
	defaultRefusals  = 10
	defaultWithin    = 10 * time.Minute
	maxRefusals      = 10000
	maxWithin        = 24 * time.Hour
)

// What becomes of an alert beside what bastion-alerts says.
const (
	alertRepeated = "repeated" // held back: one like it was sent just now
	alertDropped  = alert.Dropped
)

var alertOutcomes = []string{alert.Sent, alert.Failed, alertDropped, alertRepeated}

// AlertsConfig is [alerts] of bastion.toml.
type AlertsConfig struct {
	Webhook  string            `toml:"webhook"`  // https URL
	Token    string            `toml:"token"`    // optional: file with the bearer token that goes with it, mode 0600
	CA       string            `toml:"ca"`       // optional: file with the CAs of its server; the system's if left out
	Exec     string            `toml:"exec"`     // program that gets each alert on its standard input
	User     string            `toml:"user"`     // optional: who bastion-alerts runs as, a name or "UID:GID"; the bastion's own user if left out
	Program  string            `toml:"program"`  // optional: the program bastion-alerts; beside bastion if left out
	Networks string            `toml:"networks"` // optional: file with a line "PREFIX NAME" for each network
	Refusals int               `toml:"refusals"` // so many of a listed source, or of a user's name,
	Within   policies.Duration `toml:"within"`   // in this time
}

func (a AlertsConfig) set() bool { return a != AlertsConfig{} }

func (a AlertsConfig) settings() alert.Settings {
	return alert.Settings{Webhook: a.Webhook, Token: a.Token, CA: a.CA, Exec: a.Exec}
}

// absolute places relative paths beside the configuration.
func (a *AlertsConfig) absolute(dir string) {
	for _, p := range []*string{&a.Token, &a.CA, &a.Networks} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func (a AlertsConfig) check(doc *tomlfile.Doc) error {
	if !a.set() {
		return nil
	}
	if err := doc.WantString(`"10m"`, "alerts.within"); err != nil {
		return err
	}
	a.absolute("/")
	if err := a.settings().Check(); err != nil {
		return doc.Place(tomlfile.At("alerts", `webhook = "https://HOST/PATH" with token = "FILE", or exec = "/PATH"`, "alerts: %w", err))
	}
	switch {
	case a.Program != "" && !filepath.IsAbs(a.Program):
		return doc.Place(tomlfile.At("alerts.program", "an absolute path", "alerts: program %q is no absolute path", a.Program))
	case a.Refusals < 0 || a.Refusals > maxRefusals:
		return doc.Place(tomlfile.At("alerts.refusals", "refusals = 10", "alerts: refusals %d: at most %d", a.Refusals, maxRefusals))
	case a.Within < 0 || a.Within.Std() > maxWithin:
		return doc.Place(tomlfile.At("alerts.within", `within = "10m"`, "alerts: within %s: at most %s", a.Within, policies.Duration(maxWithin)))
	}
	return nil
}

// often is how many refusals in which time are an alert.
func (a AlertsConfig) often() (int, time.Duration) {
	n, within := a.Refusals, a.Within.Std()
	if n == 0 {
		n = defaultRefusals
	}
	if within == 0 {
		within = defaultWithin
	}
	return n, within
}

// alerts hands alerts to bastion-alerts. Nobody waits for it.
type alerts struct {
	log     *slog.Logger
	metrics *metrics
	conn    net.Conn
	queue   chan alert.Alert
	known   *origin.Known
	logins  chan loginSeen
	well    atomic.Bool
	tasks   sync.WaitGroup
	ended   func() // waits for the process

	mu     sync.Mutex
	closed bool
	said   map[string]*saidAlert
}

// saidAlert is when one of a kind and subject was sent, and how many were held back since.
type saidAlert struct {
	at   time.Time
	held int
}

// newAlerts serves a connection to bastion-alerts that is ready.
func newAlerts(conn net.Conn, in *bufio.Reader, known *origin.Known, m *metrics, log *slog.Logger) *alerts {
	a := &alerts{log: log, metrics: m, conn: conn, known: known, queue: make(chan alert.Alert, maxAlertsWaiting), logins: make(chan loginSeen, maxAlertsWaiting),
		said: make(map[string]*saidAlert), ended: func() {}}
	a.well.Store(true)
	a.tasks.Go(a.write)
	a.tasks.Go(func() { a.read(in) })
	return a
}

func (a *alerts) delivering() bool { return a.well.Load() }

// write hands over what waits, and throws it away once nobody takes it.
func (a *alerts) write() {
	for one := range a.queue {
		line, err := one.Marshal()
		if err == nil && a.well.Load() {
			if err = a.conn.SetWriteDeadline(time.Now().Add(alertWrite)); err == nil {
				_, err = a.conn.Write(append(line, '\n'))
			}
			if err != nil && a.well.Swap(false) {
				a.log.Error("alerts are not delivered until the bastion is started again", "error", err)
			}
		} else if err != nil {
			a.log.Error("an alert cannot be written", "kind", one.Kind, "error", err)
		}
		if err != nil || !a.well.Load() {
			a.metrics.alert(one.Kind, alertDropped)
		}
	}
	if half, ok := a.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// read counts what became of alerts.
func (a *alerts) read(in *bufio.Reader) {
	for {
		line, err := in.ReadSlice('\n')
		if err == nil {
			var r alert.Receipt
			if r, err = alert.ParseReceipt(line); err == nil {
				a.metrics.alert(r.Kind, r.Outcome)
				continue
			}
		}
		a.mu.Lock()
		closed := a.closed
		a.mu.Unlock()
		if a.well.Swap(false) && !closed {
			a.log.Error("bastion-alerts has ended: alerts are not delivered until the bastion is started again", "error", err)
		}
		return
	}
}

// raise queues an alert, unless one like it was sent just now, or too many wait.
func (s *Server) raise(one alert.Alert, now time.Time) {
	r := s.ruling.Load()
	one.Time, one.Severity, one.Fleet = now.UTC(), one.Kind.Severity(), r.bundle.Fleet
	if names := r.keys.certificate.ValidPrincipals; len(names) > 0 {
		one.Bastion = escape(names[0], maxText)
	}
	one.Subject, one.Detail, one.Reference = escape(one.Subject, maxDetail), escape(one.Detail, maxDetail), escape(one.Reference, maxText)
	s.alerts.raise(one, now)
}

func (a *alerts) raise(one alert.Alert, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		a.metrics.alert(one.Kind, alertDropped)
		return
	}
	key := string(one.Kind) + " " + one.Subject
	said := a.said[key]
	if said != nil {
		if d := now.Sub(said.at); d >= 0 && d < alertQuiet {
			said.held++
			a.metrics.alert(one.Kind, alertRepeated)
			return
		}
		one.Repeats = said.held
	}
	select {
	case a.queue <- one:
	default:
		a.metrics.alert(one.Kind, alertDropped)
		return
	}
	if said == nil && len(a.said) >= maxAlertsSaid {
		a.forget(now)
	}
	a.said[key] = &saidAlert{at: now}
}

// forget makes room: what is over, and else the oldest.
func (a *alerts) forget(now time.Time) {
	oldest := ""
	for key, one := range a.said {
		if now.Sub(one.at) >= alertQuiet {
			delete(a.said, key)
		} else if oldest == "" || one.at.Before(a.said[oldest].at) {
			oldest = key
		}
	}
	if len(a.said) >= maxAlertsSaid {
		delete(a.said, oldest)
	}
}

// end delivers what waits, as long as that takes no longer than alertEnd.
func (a *alerts) end() {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	close(a.queue)
	stop := time.AfterFunc(alertEnd, func() { a.conn.Close() })
	defer stop.Stop()
	a.tasks.Wait()
	if err := a.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		a.log.Debug("closing the socket of bastion-alerts", "error", err)
	}
	a.ended()
}

// startAlerts starts bastion-alerts, which must be before the bastion confines itself. It returns nil where none is configured.
func startAlerts(c Config, m *metrics, log *slog.Logger) (_ *alerts, err error) {
	if !c.Alerts.set() {
		return nil, nil
	}
	known, err := origin.Open(c.Audit, c.Alerts.Networks, log)
	if err != nil {
		return nil, err
	}
	path := c.Alerts.Program
	if path == "" {
		own, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("finding bastion-alerts: %w", err)
		}
		path = filepath.Join(filepath.Dir(own), "bastion-alerts")
	}
	cmd := exec.Command(path, "run")
	cmd.Dir, cmd.Env, cmd.Stderr = "/", []string{}, os.Stderr
	if c.Alerts.User != "" {
		credential, err := pluginUser(c.Alerts.User)
		if err != nil {
			return nil, fmt.Errorf("alerts: %w", err)
		}
		if int(credential.Uid) != os.Geteuid() {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket for alerts: %w", err)
	}
	here, there := os.NewFile(uintptr(pair[0]), "alerts"), os.NewFile(uintptr(pair[1]), "bastion")
	cmd.ExtraFiles = []*os.File{there}
	conn, err := net.FileConn(here)
	if err = errors.Join(err, here.Close()); err == nil {
		err = cmd.Start()
	}
	if err = errors.Join(err, there.Close()); err != nil {
		return nil, hint.New(fmt.Errorf("starting %s: %w", path, err), "alerts.program in bastion.toml says where it is; another user's process takes root, or CAP_SETUID and CAP_SETGID")
	}
	in := bufio.NewReaderSize(conn, alert.MaxLine)
	if err := greetAlerts(conn, in, c.Alerts.settings()); err != nil {
		conn.Close()
		return nil, hint.New(errors.Join(fmt.Errorf("%s does not begin: %w", path, err), cmd.Wait()), "what it says of [alerts] is above")
	}
	a := newAlerts(conn, in, known, m, log)
	a.ended = func() {
		if err := cmd.Wait(); err != nil {
			log.Error("bastion-alerts ended", "error", err)
		}
	}
	return a, nil
}

// greetAlerts says where alerts go, and waits until that is understood.
func greetAlerts(conn net.Conn, in *bufio.Reader, settings alert.Settings) error {
	data, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(alertReady)); err != nil {
		return err
	}
	if _, err := conn.Write(append(data, '\n')); err != nil {
		return err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if line != alert.Ready {
		return fmt.Errorf("it says %q", escape(line, maxText))
	}
	return conn.SetDeadline(time.Time{})
}
