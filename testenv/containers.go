package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/rebuild/power"
	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
)

// What a fleet's servers run as.
const (
	hostsMachine   = "machine"
	hostsContainer = "container"
)

// engineNeeds are what each container engine takes.
var engineNeeds = map[string][]debian.Need{
	inventory.EngineDocker: {{Name: "dockerd", Package: "docker.io"}, {Name: "docker", Package: "docker.io"}, {Name: "iptables", Package: "iptables"}},
	inventory.EnginePodman: {{Name: "podman", Package: "podman"}, {Name: "runc", Package: "runc"}, {Name: "conmon", Package: "conmon"}},
}

// engineOf checks the flags that say what servers run as. The engine is empty for machines.
func engineOf(hosts, engine string) (string, error) {
	switch {
	case hosts == hostsMachine && engine == "":
		return "", nil
	case hosts == hostsMachine:
		return "", command.Usagef("--engine goes with --hosts container")
	case hosts != hostsContainer:
		return "", command.Usagef("--hosts takes machine or container, not %q", hosts)
	case engine == "":
		return inventory.EngineDocker, nil
	case engineNeeds[engine] == nil:
		return "", command.Usagef("--engine takes docker or podman, not %q", engine)
	}
	return engine, nil
}

// engineDir holds what the container engine keeps, so that it goes with the environment and meets no other of this machine.
func (e *environment) engineDir() string { return e.path("engine") }

// remembered is the engine of an environment that is up; empty for machines.
func (e *environment) remembered() string {
	name, err := os.ReadFile(filepath.Join(e.engineDir(), "name"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// startEngine makes the container engine ready. It has no network: the servers' own device is put into each container. Docker is a daemon of
// its own, which sets nothing of this machine's packet filter.
func (d *demo) startEngine(ctx context.Context) error {
	e := d.e
	if e.engine == "" {
		return nil
	}
	if err := os.MkdirAll(e.engineDir(), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.engineDir(), "name"), []byte(e.engine+"\n"), 0o600); err != nil {
		return err
	}
	if e.engine != inventory.EngineDocker {
		return nil
	}
	in := func(name string) string { return filepath.Join(e.engineDir(), name) }
	if err := os.WriteFile(in("daemon.json"), []byte("{}\n"), 0o600); err != nil { // not this machine's
		return err
	}
	_, err := d.daemon(ctx, "dockerd", netlab.Namespace{}, "API listen on", d.background(e.bin("testenv"), "part", "engine", "--", "dockerd", "--host", "unix://"+in("docker.sock"), "--data-root", in("data"),
		"--exec-root", in("exec"), "--pidfile", in("docker.pid"), "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
		"--userland-proxy=false", "--config-file", in("daemon.json")))
	return err
}

// container is the driver of a server that is one.
func (e *environment) container(m machine) (*power.Container, error) {
	s := inventory.Server{Name: m.Name, Power: inventory.Power{Driver: inventory.DriverContainer, Tap: m.Tap, MAC: m.MAC, MemoryMiB: memoryMiB,
		Engine: e.engine, EngineDir: e.engineDir(), Bridge: netlab.Bridge}}
	return power.OpenContainer(s, e.fleet("machines"), slog.New(slog.DiscardHandler))
}

// missingContainers names the servers whose container does not run.
func (e *environment) missingContainers(ctx context.Context) (missing []string) {
	for _, m := range machines {
		c, err := e.container(m)
		if err == nil {
			var s power.Status
			if s, err = c.Status(ctx); err == nil && s.On {
				continue
			}
		}
		if missing = append(missing, "container "+m.Name); err != nil {
			missing = append(missing, oneLine(err.Error()))
		}
	}
	return missing
}

// removeEngine takes away what a container engine that was ended left mounted below its directory.
func (e *environment) removeEngine() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("looking for what is mounted: %w", err)
	}
	defer f.Close()
	var mounted []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 4 && (strings.HasPrefix(fields[4], e.engineDir()+"/") || strings.HasPrefix(fields[4], power.ContainerRunDir(e.engineDir())+"/")) {
			mounted = append(mounted, fields[4])
		}
	}
	var errs []error
	for i := len(mounted) - 1; i >= 0; i-- { // what was mounted last lies on top
		if err := unix.Unmount(mounted[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", mounted[i], err))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(power.ContainerRunDir(e.engineDir())))...)
}

// endContainers destroys the containers while their engine still runs. What it does not reach ends with its marks.
func (e *environment) endContainers() {
	name := e.remembered()
	if engineNeeds[name] == nil {
		return
	}
	if _, err := exec.LookPath(name); err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(e.engineDir(), "docker.sock")); errors.Is(err, fs.ErrNotExist) && name == inventory.EngineDocker {
		return
	}
	was := e.engine
	e.engine = name
	defer func() { e.engine = was }()
	for _, m := range machines {
		if c, err := e.container(m); err == nil {
			// One that cannot be ended this way is found by the mark of its first process.
			_ = c.Off(context.Background())
		}
	}
}
