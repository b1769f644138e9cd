package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
)

// Kind is what a plugin is for: deciders are one, power drivers another. Each has a handshake and a service of its own.
type Kind struct {
	Handshake goplugin.HandshakeConfig
	Name      string
	Plugin    goplugin.Plugin
}

// Started is a plugin's process. End ends it.
type Started struct {
	Client any // what the kind's Plugin made of the connection

	client *goplugin.Client
	cmd    *exec.Cmd
}

// Start runs a program that Load has checked, as a process of its own with nothing of our environment, and connects to it. as is the user
// that it runs as, nil for this one; sockets is a directory that this user and that one can use, and nobody else. What is returned has to
// be ended even beside an error.
func Start(program *os.File, k Kind, name, sockets string, as *syscall.Credential) (*Started, error) {
	// The child resolves its own /proc/self, where the descriptor is still open when it is run.
	cmd := &exec.Cmd{Path: fmt.Sprintf("/proc/self/fd/%d", program.Fd()), Args: []string{name}, Dir: "/", Env: []string{},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}} // it does not outlive the host, however that ends
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: k.Handshake, Plugins: goplugin.PluginSet{k.Name: k.Plugin},
		Cmd: cmd, SkipHostEnv: true, AutoMTLS: true, AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: sockets}, StartTimeout: startLimit,
		Logger: hclog.NewNullLogger(), Stderr: io.Discard, SyncStdout: io.Discard, SyncStderr: io.Discard,
	})
	s := &Started{client: client, cmd: cmd}
	protocol, err := client.Client()
	if err != nil {
		return s, fmt.Errorf("starting: %w", err)
	}
	if s.Client, err = protocol.Dispense(k.Name); err != nil {
		return s, fmt.Errorf("starting: %w", err)
	}
	return s, nil
}

// Exited reports whether the process has ended.
func (s *Started) Exited() bool { return s.client.Exited() }

// End ends the process and what it has started and left behind. A child that makes a group of its own escapes this, and ends with the service.
func (s *Started) End() error {
	s.client.Kill()
	if s.cmd.Process == nil {
		return nil
	}
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending what a plugin has started: %w", err)
	}
	return nil
}
