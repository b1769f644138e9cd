package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"mayfly/bastion/agent"
	"mayfly/internal/command"
	"mayfly/internal/hint"
)

var serveVerb = command.Verb{
	Name:    "serve",
	Args:    "[flags]",
	Summary: "be the ssh-agent for the keys on plugged cards",
	Help: `Serves OpenSSH's agent protocol on a unix socket, to programs of the same user: ssh, scp, git (gpg.format=ssh), ssh-keygen -Y sign, fleetctl.
It prints SSH_AUTH_SOCK=PATH when it listens, and logs on stderr what was signed for whom and what was refused why. A socket that systemd hands
over (LISTEN_FDS) is used in place of its own.

Before a card signs, the person is shown what for: where to log in, as whom, by the host key that ssh proves (session-bind@openssh.com), named by
known_hosts; or what an SSH signature of a file is for. Each signature is one operation of the card, with its own touch; nothing is cached, no
PIN is kept. Data that is neither is refused. Cards may come and go; each is open only while it signs or is read.

The PIN is asked for by the first way of --pin that can ask: pinentry (the program --pinentry), askpass (SSH_ASKPASS), or the terminal that the
agent was started in. Keys are not added, removed or locked: --chain has the keys of other agents listed after ours, under those agents' own rules.

Example:
  eval "$(bastion-agent serve --print-env)" in a shell's profile; bastion-agent serve --require-binding --refuse-forwarded in a terminal
  bastion-agent serve --print-unit bastion-agent.service > ~/.config/systemd/user/bastion-agent.service`,
	Run: serve,
}

// What --pin and --notify take; the defaults are all, in this order.
var (
	pinWays      = []string{"pinentry", "askpass", "terminal"}
	displayNames = []string{"desktop", "terminal"}
)

type serveFlags struct {
	socket, pin, pinentry, notify, log, unit      string
	chain, knownHosts                             []string
	requireBinding, refuseForwarded, allowUnknown bool
	printEnv                                      bool
	pinTime, touchTime                            time.Duration
}

// maxChains bounds --chain.
const maxChains = 4

func parseServe(c *command.Call) (f serveFlags, err error) {
	fs := c.Flags()
	repeated := func(list *[]string) func(string) error {
		return func(value string) error {
			if value == "" {
				return errors.New("empty")
			}
			*list = append(*list, value)
			return nil
		}
	}
	fs.StringVar(&f.socket, "socket", defaultSocket(), "`path` of the socket")
	fs.Func("chain", "`socket` of another agent, whose keys come after ours; repeated: up to 4", repeated(&f.chain))
	fs.Func("known-hosts", "`file` that names host keys; repeated; default: ~/.ssh/known_hosts and ssh's other three", repeated(&f.knownHosts))
	fs.BoolVar(&f.requireBinding, "require-binding", false, "refuse logins of clients that do not prove their session (OpenSSH before 8.9, other programs)")
	fs.BoolVar(&f.refuseForwarded, "refuse-forwarded", false, "refuse what comes through a forwarded agent")
	fs.BoolVar(&f.allowUnknown, "allow-unknown-data", false, "sign data that is neither a login nor an SSH signature of a file too")
	fs.StringVar(&f.pin, "pin", strings.Join(pinWays, ","), "`ways` to ask for a PIN, in order")
	fs.StringVar(&f.pinentry, "pinentry", "pinentry", "`program` for it")
	fs.DurationVar(&f.pinTime, "pin-timeout", agent.DefaultPINTime, "give up asking for a PIN after `DURATION`")
	fs.DurationVar(&f.touchTime, "touch-timeout", agent.DefaultTouchTime, "give up waiting for a touch after `DURATION`")
	fs.StringVar(&f.notify, "notify", strings.Join(displayNames, ","), "`where` to show what is to be touched: desktop, terminal, both or none")
	fs.StringVar(&f.log, "log", "text", "`form` of the log: text or json")
	fs.StringVar(&f.unit, "print-unit", "", "print the `file` for a service manager and end: "+strings.Join(unitNames, ", "))
	fs.BoolVar(&f.printEnv, "print-env", false, "print the shell command that sets SSH_AUTH_SOCK, and end")
	if err := c.Parse(fs); err != nil {
		return f, err
	}
	switch {
	case fs.NArg() > 0:
		return f, command.Usagef("serve takes no words, got %q", fs.Arg(0))
	case f.socket == "":
		return f, command.Usagef("--socket is empty")
	case len(f.chain) > maxChains:
		return f, command.Usagef("--chain is given %d times, %d at most", len(f.chain), maxChains)
	case f.log != "text" && f.log != "json":
		return f, command.Usagef("--log %s: want text or json", f.log)
	case f.pinTime < time.Second || f.touchTime < time.Second:
		return f, command.Usagef("--pin-timeout and --touch-timeout are 1s at least")
	}
	if _, err := split("pin", f.pin, pinWays...); err != nil {
		return f, err
	}
	_, err = split("notify", f.notify, displayNames...)
	return f, err
}

// defaultSocket is in the directory that the system has for this, or in the home.
func defaultSocket() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "bastion-agent", "agent.sock")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".bastion-agent", "agent.sock")
}

// split reads a list of different words out of those that are allowed.
func split(flag, value string, allowed ...string) ([]string, error) {
	if value == "none" {
		return nil, nil
	}
	words := strings.Split(value, ",")
	for i, w := range words {
		if !slices.Contains(allowed, w) || slices.Contains(words[:i], w) {
			return nil, command.Usagef("--%s %s: want %s, each once, or none", flag, value, strings.Join(allowed, ", "))
		}
	}
	return words, nil
}

func (f serveFlags) ways() (ways []agent.PINWay, err error) {
	words, err := split("pin", f.pin, pinWays...)
	for _, w := range words {
		switch w {
		case "pinentry":
			ways = append(ways, agent.Pinentry{Program: f.pinentry})
		case "askpass":
			ways = append(ways, agent.Askpass{Program: os.Getenv("SSH_ASKPASS")})
		case "terminal":
			ways = append(ways, agent.Terminal{Path: "/dev/tty"})
		}
	}
	return ways, err
}

func (f serveFlags) displays(stderr io.Writer) (displays []agent.Display, err error) {
	words, err := split("notify", f.notify, displayNames...)
	for _, w := range words {
		switch {
		case w == "terminal":
			displays = append(displays, agent.NewConsole(stderr))
		case runtime.GOOS == "darwin":
			displays = append(displays, agent.MacOS{Program: "/usr/bin/osascript"})
		default:
			displays = append(displays, agent.Desktop{})
		}
	}
	return displays, err
}

// hostFiles are those that ssh goes by, unless others were named.
func (f serveFlags) hostFiles() []string {
	if len(f.knownHosts) > 0 {
		return f.knownHosts
	}
	files := []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".ssh", "known_hosts"), filepath.Join(home, ".ssh", "known_hosts2"))
	}
	return files
}

func serve(ctx context.Context, c *command.Call) error {
	f, err := parseServe(c)
	if err != nil {
		return err
	}
	switch {
	case f.unit != "":
		return printUnit(c.Stdout, f.unit)
	case f.printEnv:
		_, err := fmt.Fprintf(c.Stdout, "SSH_AUTH_SOCK='%s'; export SSH_AUTH_SOCK;\n", strings.ReplaceAll(f.socket, "'", `'\''`))
		return err
	}
	log := slog.New(slog.NewTextHandler(c.Stderr, nil))
	if f.log == "json" {
		log = slog.New(slog.NewJSONHandler(c.Stderr, nil))
	}
	cards, err := openCards(log)
	if err != nil {
		return err
	}
	return f.serve(ctx, c, cards, log)
}

// serve serves these cards.
func (f serveFlags) serve(ctx context.Context, c *command.Call, cards agent.Cards, log *slog.Logger) error {
	ways, err := f.ways()
	if err != nil {
		return err
	}
	displays, err := f.displays(c.Stderr)
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return fmt.Errorf("keeping PINs out of core files: %w", err)
	}
	l, err := f.listen()
	if err != nil {
		return err
	}
	for _, socket := range f.chain {
		if same(socket, l.Addr().String()) {
			return errors.Join(hint.New(fmt.Errorf("--chain %s is this agent itself", socket), "name another agent's socket"), l.Close())
		}
	}
	a := agent.New(agent.Config{
		Cards: cards, Log: log, Chain: f.chain, KnownHosts: f.hostFiles(), PINs: ways, Displays: displays,
		RequireBinding: f.requireBinding, RefuseForwarded: f.refuseForwarded, AllowUnknownData: f.allowUnknown,
		PINTime: f.pinTime, TouchTime: f.touchTime,
	})
	if _, err := fmt.Fprintf(c.Stdout, "SSH_AUTH_SOCK=%s\n", l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	return a.Serve(ctx, l)
}

func (f serveFlags) listen() (*net.UnixListener, error) {
	l, err := agent.Inherited()
	if l != nil || err != nil {
		return l, err
	}
	return agent.Listen(f.socket)
}

// same is whether two paths lead to one socket.
func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
