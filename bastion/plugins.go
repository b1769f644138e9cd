package bastion

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/plugin"
)

// hostLimit is how long a host may take to end its plugins.
const hostLimit = 3 * time.Second

// PluginConfig is [plugin] of bastion.toml.
type PluginConfig struct {
	Directory string `toml:"directory"` // of the plugins' files: root's, and nobody else may write there
	User      string `toml:"user"`      // who they run as: a name, or "UID:GID"
	Host      string `toml:"host"`      // optional: the program bastion-plugins; beside bastion if left out
}

func (p PluginConfig) set() bool { return p != PluginConfig{} }

func (p PluginConfig) check() error {
	switch {
	case !p.set():
		return nil
	case !filepath.IsAbs(p.Directory):
		return fmt.Errorf("directory %q is no absolute path", p.Directory)
	case p.User == "":
		return errors.New("user is missing: plugins run as a user of their own")
	case p.Host != "" && !filepath.IsAbs(p.Host):
		return fmt.Errorf("host %q is no absolute path", p.Host)
	}
	return nil
}

// pins are the plugins of a policy, as the host knows them.
func pins(p policies.Policy, asked string) (list []plugin.Pin) {
	for _, g := range p.Plugins {
		if asked == "" || g.Asked(asked) {
			list = append(list, plugin.Pin{Name: g.Name, SHA256: g.SHA256, Deadline: g.Limit()})
		}
	}
	return list
}

// checkPlugins refuses a policy whose plugins could never be asked: it would let nobody in.
func (c Config) checkPlugins(p policies.Policy) error {
	if len(p.Plugins) > 0 && !c.Plugin.set() {
		return hint.New(fmt.Errorf("the policy pins plugin %s, and bastion.toml has no [plugin]", p.Plugins[0].Name), "[plugin] names the directory and the user of plugins")
	}
	return nil
}

// startPlugins starts the host of plugins, which must be before the bastion confines itself. It returns nil where none is configured.
func startPlugins(c PluginConfig, test bool, log *slog.Logger) (relay *plugin.Relay, end func(), err error) {
	if !c.set() {
		return nil, func() {}, nil
	}
	program := c.Host
	if program == "" {
		own, err := os.Executable()
		if err != nil {
			return nil, nil, fmt.Errorf("finding bastion-plugins: %w", err)
		}
		program = filepath.Join(filepath.Dir(own), "bastion-plugins")
	}
	credential, err := pluginUser(c.User)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(program, "run", "--directory", c.Directory)
	cmd.Dir, cmd.Env, cmd.Stderr = "/", []string{}, &hostLog{log: log}
	cmd.WaitDelay = hostLimit // a child of a plugin may hold the pipe
	switch {
	case int(credential.Uid) != os.Geteuid():
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	case !test:
		return nil, nil, hint.New(fmt.Errorf("plugins would run as the bastion's own user %s", c.User), "make a user for them alone")
	default:
		cmd.Args = append(cmd.Args, "--owner", strconv.Itoa(os.Geteuid())) // of a test fleet, whose files are not root's
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket for plugins: %w", err)
	}
	here, there := os.NewFile(uintptr(pair[0]), "plugins"), os.NewFile(uintptr(pair[1]), "bastion")
	cmd.ExtraFiles = []*os.File{there}
	conn, err := net.FileConn(here)
	err = errors.Join(err, here.Close())
	if err == nil {
		err = cmd.Start()
	}
	if err = errors.Join(err, there.Close()); err != nil {
		return nil, nil, hint.New(fmt.Errorf("starting %s as %s: %w", program, c.User, err),
			"another user's process can be started by root, or with CAP_SETUID and CAP_SETGID, which the sandbox gives up afterwards")
	}
	relay = plugin.NewRelay(conn)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-relay.Done()
		if err := cmd.Wait(); err != nil {
			log.Error("bastion-plugins ended", "error", err)
		}
	}()
	return relay, func() {
		if err := relay.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			log.Debug("closing the plugins' socket", "error", err)
		}
		awaitHost(ended, cmd.Process, log)
	}, nil
}

// awaitHost waits for a host whose socket is closed, which ends by itself. One that hangs is killed where the bastion may do that; another
// user's is left to who started the bastion.
func awaitHost(ended <-chan struct{}, host interface{ Kill() error }, log *slog.Logger) {
	for range 2 {
		timer := time.NewTimer(hostLimit)
		select {
		case <-ended:
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := host.Kill(); err != nil {
			log.Error("bastion-plugins does not end", "error", err, "hint", "systemd ends what is left of a service")
			return
		}
	}
}

// pluginUser reads a user's name, or "UID:GID". Root is none: a plugin needs no power.
func pluginUser(text string) (*syscall.Credential, error) {
	uid, gid, numeric := strings.Cut(text, ":")
	if !numeric {
		u, err := user.Lookup(text)
		if err != nil {
			return nil, hint.New(fmt.Errorf("plugin user: %w", err), "useradd --system --no-create-home --shell /usr/sbin/nologin %s", text)
		}
		uid, gid = u.Uid, u.Gid
	}
	u, uerr := strconv.ParseUint(uid, 10, 32)
	g, gerr := strconv.ParseUint(gid, 10, 32)
	if err := errors.Join(uerr, gerr); err != nil || u == 0 || g == 0 {
		return nil, hint.New(fmt.Errorf("plugin user %q is root, or no user", text), "make a user for plugins alone")
	}
	return &syscall.Credential{Uid: uint32(u), Gid: uint32(g)}, nil
}

// pinPlugins tells the host which plugins the policy in force wants.
func (s *Server) pinPlugins(p policies.Policy) {
	if s.plugins == nil {
		return
	}
	if err := s.plugins.Pin(pins(p, "")); err != nil {
		s.log.Error("the plugins' host does not answer: what plugins decide is denied", "error", err)
	}
}

// restrict asks the plugins of a policy about what it has allowed. They can only deny; without any, what is allowed stays so.
func (v *visit) restrict(ctx context.Context, r *ruling, kind string, login policies.Login, target policies.Target) policies.Verdict {
	return v.ask(ctx, r, kind, login, entered{identity: v.credential.identity, key: v.credential.fingerprint}, target)
}

// ask is restrict for whoever looks from outside of the visit.
func (v *visit) ask(ctx context.Context, r *ruling, kind string, login policies.Login, who entered, target policies.Target) policies.Verdict {
	list := pins(r.bundle.Policy, kind)
	if len(list) == 0 {
		return policies.Verdict{Allow: true, Reason: policies.Allowed}
	}
	if v.server.plugins == nil {
		verdict := policies.Verdict{Reason: pluginFailed, Detail: "no host of plugins runs"}
		v.server.notAllowed(list[0].Name, v.id, verdict)
		return verdict
	}
	answer := v.server.plugins.Decide(ctx, list, plugin.Request{
		Kind: kind, User: login.User, Identity: string(who.identity), Source: login.Source.String(), Key: who.key,
		Server: target.Server, Port: target.Port, Time: time.Now().UTC().Truncate(time.Second),
	})
	verdict := policies.Verdict{Reason: pluginFailed, Detail: answer.Plugin + ": " + answer.Text}
	switch answer.Outcome {
	case plugin.Allowed:
		return policies.Verdict{Allow: true, Reason: policies.Allowed}
	case plugin.Denied:
		verdict.Reason = pluginDenied
	case plugin.Late:
		verdict.Reason = pluginLate
	}
	v.server.notAllowed(answer.Plugin, v.id, verdict)
	return verdict
}

// notAllowed counts what a plugin did not allow, and tells of one that has failed: it keeps out who the policy lets in.
func (s *Server) notAllowed(name, connection string, verdict policies.Verdict) {
	s.metrics.plugin(verdict.Reason)
	if verdict.Reason != pluginDenied {
		s.notify(noticePlugin, pluginNotice{plugin: name, connection: connection, verdict: verdict})
	}
}
