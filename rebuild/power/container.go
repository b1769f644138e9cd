package power

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// Where a container finds what is its own, and how it knows that it is one. mayfly-init has the same words.
const (
	containerPapers   = "/papers"
	containerArgument = "container"
)

// ContainerMark is the environment variable by which a container's first process is known on its host: its value is the driver's directory.
const ContainerMark = "MAYFLY_CONTAINER"

// Bounds of the driver of containers.
const (
	engineTimeout = 90 * time.Second // an import writes the whole root
	engineOutput  = 64 << 10
	containerTail = "200" // lines of a console
)

// containerPowers are what mayfly-init needs of root's powers: to mount tmpfs for homes, to set up its own network, to become the services' users.
var containerPowers = []string{"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SYS_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "SETPCAP",
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "AUDIT_WRITE"}

// Container runs a server as a container on this host, from the same root that machines boot. It is for tests: the host's kernel is
// shared, nothing checks the root once it was imported, and whoever owns the host sees into it. Such a life is unverified.
type Container struct {
	server inventory.Server
	dir    string
	log    *slog.Logger
}

var _ Driver = (*Container)(nil)

// OpenContainer returns the driver of a container whose files live in dir/NAME.
func OpenContainer(s inventory.Server, dir string, log *slog.Logger) (*Container, error) {
	dir, err := filepath.Abs(filepath.Join(dir, s.Name))
	if err != nil {
		return nil, err
	}
	return &Container{server: s, dir: dir, log: log}, nil
}

// ContainerRunDir is where podman keeps what ends with the machine. It takes at most 50 bytes, so it is a name of the engine's directory.
func ContainerRunDir(engineDir string) string {
	sum := sha256.Sum256([]byte(engineDir))
	return "/run/mayfly-podman-" + hex.EncodeToString(sum[:6])
}

func (c *Container) name() string { return "mayfly-" + c.server.Name }

// engine runs the container engine, and returns what it said. Nothing that is secret is among the arguments.
func (c *Container) engine(ctx context.Context, args ...string) (string, error) {
	return c.feed(ctx, nil, args...)
}

func (c *Container) feed(ctx context.Context, stdin *os.File, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	p := c.server.Power
	full := []string{"--host", "unix://" + filepath.Join(p.EngineDir, "docker.sock")}
	if p.Engine == inventory.EnginePodman {
		full = []string{"--root", filepath.Join(p.EngineDir, "root"), "--runroot", ContainerRunDir(p.EngineDir), "--runtime", "runc", "--cgroup-manager", "cgroupfs"}
	}
	cmd := exec.CommandContext(ctx, p.Engine, append(full, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if stdin != nil {
		cmd.Stdin = stdin
	}
	err := cmd.Run()
	text := strings.TrimSpace(string(out.Bytes()[:min(out.Len(), engineOutput)]))
	if errors.Is(err, exec.ErrNotFound) {
		return "", hint.New(err, "install it: apt-get install docker.io, or podman")
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", p.Engine, args[0], err, strings.TrimSpace(string(said.Bytes()[:min(said.Len(), 1000)])))
	}
	return text, nil
}

// Status asks the engine.
func (c *Container) Status(ctx context.Context) (Status, error) {
	s, _, err := c.find(ctx)
	return s, c.wrap("reading the state", err)
}

// find looks for the container, running or not.
func (c *Container) find(ctx context.Context) (s Status, there bool, err error) {
	id, err := c.engine(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", "name=^"+c.name()+"$")
	if err != nil || id == "" {
		return Status{}, false, err
	}
	if strings.ContainsAny(id, "\n ") {
		return Status{On: true}, true, fmt.Errorf("there are several containers %s", c.name())
	}
	text, err := c.engine(ctx, "inspect", "--format", `{{.State.Running}} {{index .Config.Labels "mayfly.epoch"}}`, id)
	if err != nil {
		return Status{}, true, err
	}
	running, epoch, _ := strings.Cut(text, " ")
	n, err := strconv.ParseUint(epoch, 10, 64)
	if err != nil || running != "true" && running != "false" {
		return Status{}, true, fmt.Errorf("the engine says %.80q of %s", text, c.name())
	}
	if running == "false" {
		return Status{}, true, nil
	}
	return Status{On: true, Epoch: n}, true, nil
}

// Off destroys the container with all that it wrote, and reads back that it is gone.
func (c *Container) Off(ctx context.Context) error { return c.OffThrough(ctx, newest) }

// OffThrough is Off of a life that is no newer than this one.
func (c *Container) OffThrough(ctx context.Context, epoch uint64) error {
	s, _, err := c.find(ctx)
	if err == nil {
		err = fence(s.Epoch, epoch)
	}
	if err == nil {
		err = c.destroy(ctx)
	}
	return c.wrap("switching off", err)
}

func (c *Container) destroy(ctx context.Context) error {
	_, there, err := c.find(ctx)
	if err != nil {
		return err
	}
	if there {
		if _, err := c.engine(ctx, "rm", "--force", "--volumes", c.name()); err != nil {
			return err
		}
		if _, still, err := c.find(ctx); err != nil || still {
			return errors.Join(err, fmt.Errorf("%s is still there", c.name()))
		}
		c.log.Info("container destroyed", "server", c.server.Name)
	}
	if err := c.unplug(); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(c.dir, "papers"))
}

// unplug removes the network device. It goes with the container's own end, but not at once.
func (c *Container) unplug() error {
	link, err := netlink.LinkByName(c.server.Power.Tap)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Type() != "veth" {
		return fmt.Errorf("%s is a %s device, and none of a container", c.server.Power.Tap, link.Type())
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing %s: %w", c.server.Power.Tap, err)
	}
	return nil
}

// SetBoot has nothing to set: a container is made anew for each life.
func (c *Container) SetBoot(context.Context, Boot) error { return nil }

// On makes the container of this life and starts it, unless it runs already.
func (c *Container) On(ctx context.Context, boot Boot) error {
	return c.wrap("switching on", c.on(ctx, boot))
}

func (c *Container) on(ctx context.Context, boot Boot) error {
	if boot.Epoch == 0 || boot.Root.Path == "" || len(boot.Statement) == 0 {
		return errors.New("no epoch, root or release statement")
	}
	s, there, err := c.find(ctx)
	switch {
	case err != nil:
		return err
	case s.On && s.Epoch == boot.Epoch:
		return nil
	case s.On:
		return fmt.Errorf("it runs with epoch %d; it has to be off before epoch %d", s.Epoch, boot.Epoch)
	case there: // it ended by itself
		if err := c.destroy(ctx); err != nil {
			return err
		}
	}
	image, err := c.root(ctx, boot.Root)
	if err != nil {
		return err
	}
	papers, err := c.papers(boot)
	if err != nil {
		return err
	}
	if _, err := c.engine(ctx, c.creation(boot.Epoch, image, papers)...); err != nil {
		return err
	}
	if _, err := c.engine(ctx, "start", c.name()); err != nil {
		return err
	}
	if err := c.plug(ctx); err != nil {
		return err
	}
	c.log.Info("container made", "server", c.server.Name, "epoch", boot.Epoch)
	return nil
}

// creation is the engine's command line: a read-only root, and nothing that can be written but tmpfs.
func (c *Container) creation(epoch uint64, image, papers string) []string {
	p := c.server.Power
	memory := p.MemoryMiB
	if memory == 0 {
		memory = defaultMemory
	}
	args := []string{"create", "--name", c.name(), "--hostname", c.server.Name, "--label", "mayfly.epoch=" + strconv.FormatUint(epoch, 10),
		"--read-only", "--network", "none", "--restart", "no", "--init=false", "--memory", strconv.Itoa(memory) + "m", "--pids-limit", "2048", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096",
		"--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--device", "/dev/net/tun",
		"--env", ContainerMark + "=" + c.dir, "--volume", papers + ":" + containerPapers, "--cap-drop", "ALL"}
	if p.Engine == inventory.EnginePodman {
		args = append(args, "--security-opt", "unmask=ALL", "--log-driver", "k8s-file", "--log-opt", "max-size=1mb", "--read-only-tmpfs=false", "--no-hosts")
	} else {
		args = append(args, "--security-opt", "systempaths=unconfined", "--log-driver", "json-file", "--log-opt", "max-size=1m")
	}
	for _, power := range containerPowers {
		args = append(args, "--cap-add", power)
	}
	for _, m := range [][2]string{{"/run", "size=16m,mode=0755"}, {"/dev/shm", "size=4m,mode=1777"}} {
		args = append(args, "--tmpfs", m[0]+":rw,nosuid,nodev,noexec,"+m[1])
	}
	return append(args, image, release.InitPath, containerArgument)
}

// root is the name of the image with the release's root, which is imported once. What is imported is what was signed.
func (c *Container) root(ctx context.Context, root File) (string, error) {
	tag := "mayfly-root:" + root.Signed.SHA256[:min(len(root.Signed.SHA256), 32)]
	list, err := c.engine(ctx, "images", "--quiet", tag)
	if err != nil || list != "" {
		return tag, err
	}
	var data bytes.Buffer
	if err := root.copy(&data); err != nil {
		return "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	written := make(chan error, 1)
	go func() { written <- errors.Join(writeTar(w, data.Bytes()), w.Close()) }()
	_, err = c.feed(ctx, r, "import", "-", tag)
	err = errors.Join(err, r.Close()) // an engine that ended early leaves no writer behind
	if werr := <-written; werr != nil && err == nil {
		_, rerr := c.engine(ctx, "rmi", tag) // a part of a root must not be found next time
		return "", errors.Join(werr, rerr)
	}
	return tag, err
}

// papers writes what the stub would hand over, into a directory that the container empties.
func (c *Container) papers(boot Boot) (string, error) {
	dir := filepath.Join(c.dir, "papers")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for name, data := range map[string][]byte{ticket.TrustFile: boot.Trust, ticket.File: boot.Ticket, ticket.SignatureFile: boot.TicketSig,
		release.StatementFile: boot.Statement} {
		if err := durable.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// plug gives the container its one network device: a veth pair, whose other end is on the fleet's bridge in this network namespace.
func (c *Container) plug(ctx context.Context) error {
	text, err := c.engine(ctx, "inspect", "--format", "{{.State.Pid}}", c.name())
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 0 {
		return fmt.Errorf("%s has ended: %s", c.name(), c.lastWords(ctx))
	}
	p := c.server.Power
	bridge, err := netlink.LinkByName(p.Bridge)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", p.Bridge, err)
	}
	mac, err := net.ParseMAC(p.MAC)
	if err != nil {
		return err
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.MasterIndex = p.Tap, bridge.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "eth0", PeerHardwareAddr: mac, PeerNamespace: netlink.NsPid(pid)}); err != nil {
		return fmt.Errorf("making %s: %w", p.Tap, err)
	}
	link, err := netlink.LinkByName(p.Tap)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func (c *Container) lastWords(ctx context.Context) string {
	text, err := c.Console(ctx)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-500):]))
}

// Console is what the container's mayfly-init has said.
func (c *Container) Console(ctx context.Context) ([]byte, error) {
	text, err := c.engine(ctx, "logs", "--tail", containerTail, c.name())
	return []byte(text[max(0, len(text)-MaxConsole):]), err
}

// Joined takes the papers away: the ticket is used.
func (c *Container) Joined(context.Context) error {
	return os.RemoveAll(filepath.Join(c.dir, "papers"))
}

func (c *Container) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("server %s: %s: %w", c.server.Name, doing, err)
}
