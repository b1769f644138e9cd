package power

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/inventory"
)

const ipmiSimProgram = "ipmi_sim"

// ipmiSim is OpenIPMI's simulator of a BMC.
type ipmiSim struct {
	dir    string
	cmd    *exec.Cmd
	port   int
	secret string
}

// freePort is one that nobody has just now.
func freePort(t *testing.T, network string) int {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// newIPMISim starts a simulator with these lines of configuration.
func newIPMISim(t *testing.T, more string) *ipmiSim {
	t.Helper()
	if _, err := exec.LookPath(ipmiSimProgram); err != nil {
		t.Skip("SKIPPED: ipmi_sim is not installed")
	}
	s := &ipmiSim{dir: t.TempDir(), port: freePort(t, "udp"), secret: "horse-7"}
	for name, text := range map[string]string{
		"sim.emu": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
		"lan.conf": fmt.Sprintf("name \"sim\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 %d\n    priv_limit admin\n    allowed_auths_admin none md2 md5 straight\n"+
			"    guid a123456789abcdefa123456789abcdef\n  endlan\n  user 2 true \"mayfly\" %q admin 10 none md2 md5 straight\n%s", s.port, s.secret, more),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.cmd = exec.Command(ipmiSimProgram, "-c", "lan.conf", "-f", "sim.emu", "-s", "state", "-n")
	s.cmd.Dir = s.dir
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	var said bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	s.cmd.WaitDelay = time.Second
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}
		_ = s.cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("the simulator said: %s", said.String())
		}
	})
	// It listens before it says anything: asked until it answers (RMCP presence ping, ASF 2.0).
	conn, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, "the simulator", func() bool {
		answer := make([]byte, 64)
		if _, err := conn.Write([]byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 0, 0, 0}); err != nil {
			return false
		}
		if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Read(answer)
		return err == nil
	})
	return s
}

func newIPMI(t *testing.T, sim *ipmiSim, boot string) *remote {
	t.Helper()
	p, _ := testPlace(t)
	if err := p.Secrets.Seal("bmc", []byte(sim.secret)); err != nil {
		t.Fatal(err)
	}
	d, err := Open(inventory.Server{Name: "se-1", Address: netip.MustParsePrefix("192.0.2.11/24"), Power: inventory.Power{Driver: inventory.DriverIPMI,
		Address: fmt.Sprintf("127.0.0.1:%d", sim.port), User: "mayfly", Password: "sealed:bmc", Boot: boot}}, p)
	if err != nil {
		t.Fatal(err)
	}
	r := d.(*remote)
	r.pace = pace{first: 100 * time.Millisecond, most: time.Second, settle: 30 * time.Second, attempts: 3, again: 100 * time.Millisecond}
	r.bmc.(*ipmi).ration.every = time.Millisecond
	return r
}

// guest is the pid of the machine that a simulator drives, by a word on its command line; 0 if it does not run.
func guest(t *testing.T, word string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args, err := arguments(pid)
		if err == nil && len(args) > 0 && filepath.Base(args[0]) == qemuProgram && strings.Contains(strings.Join(args, " "), word) {
			return pid
		}
	}
	return 0
}

// TestIPMIMachine: the simulator's machine is a real one. On boots it, off leaves no process.
func TestIPMIMachine(t *testing.T) {
	if _, err := exec.LookPath(qemuProgram); err != nil {
		t.Skip("SKIPPED: qemu-system-x86_64 is not installed")
	}
	kernel := bootable(t, t.TempDir())
	console := filepath.Join(t.TempDir(), "console")
	kcs := freePort(t, "tcp")
	sim := newIPMISim(t, fmt.Sprintf("  serial 15 127.0.0.1 %d codec VM\n  startnow false\n  poweroff_wait 1\n  kill_wait 1\n"+
		"  startcmd \"%s -nodefaults -display none -machine q35,accel=tcg -m 64 -kernel %s -serial file:%s -chardev socket,id=ipmi0,host=127.0.0.1,port=%d,reconnect=1"+
		" -device ipmi-bmc-extern,id=bmc0,chardev=ipmi0 -device isa-ipmi-kcs,bmc=bmc0\"\n", kcs, qemuProgram, kernel, console, kcs))
	r := newIPMI(t, sim, inventory.BootNone)
	ctx := t.Context()
	for epoch := uint64(1); epoch <= 2; epoch++ {
		if err := r.Off(ctx); err != nil {
			t.Fatal(err)
		}
		if pid := guest(t, console); pid != 0 {
			t.Fatalf("off, and process %d runs it", pid)
		}
		if err := os.Remove(console); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		boot := bootFor(t, epoch)
		if err := r.SetBoot(ctx, boot); err != nil {
			t.Fatal(err)
		}
		if err := r.On(ctx, boot); err != nil {
			t.Fatal(err)
		}
		if st, err := r.Status(ctx); err != nil || st != (Status{On: true, Epoch: epoch}) {
			t.Errorf("Status: %+v, %v", st, err)
		}
		waitFor(t, "the machine to say it is up", func() bool {
			data, err := os.ReadFile(console)
			return err == nil && bytes.Contains(data, []byte("up\n"))
		})
		if guest(t, console) == 0 {
			t.Error("on, and no process runs it")
		}
	}
	if err := errors.Join(r.Joined(ctx), r.Off(ctx)); err != nil {
		t.Fatal(err)
	}
	if pid := guest(t, console); pid != 0 {
		t.Errorf("off, and process %d runs it", pid)
	}
	if _, err := r.Console(ctx); !errors.Is(err, ErrNoConsole) {
		t.Errorf("Console: %v", err)
	}
}

// chassisProgram is what a simulator asks and tells of power and boot, in place of a machine. $1 is the file for what is set.
const chassisProgram = `#!/bin/sh
dir=$(dirname "$0")
shift # the BMC's address
op=$1
shift
case $op in
get)
	for name in "$@"; do
		if [ -e "$dir/say-$name" ]; then echo "$name:$(cat "$dir/say-$name")"
		elif [ -e "$dir/is-$name" ]; then echo "$name:$(cat "$dir/is-$name")"
		elif [ "$name" = boot ]; then echo "boot:none"
		else echo "$name:0"
		fi
	done ;;
set)
	echo "$1 $2" >> "$dir/log"
	[ -e "$dir/deaf-$1" ] || echo "$2" > "$dir/is-$1" ;;
esac
exit 0
`

func newChassis(t *testing.T) (*ipmiSim, string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "chassis")
	if err := os.WriteFile(program, []byte(chassisProgram), 0o700); err != nil {
		t.Fatal(err)
	}
	return newIPMISim(t, fmt.Sprintf("  chassis_control %q\n", program+" 0x20")), dir
}

func TestIPMIBoot(t *testing.T) {
	for device, want := range map[string]string{inventory.BootPXE: "boot pxe\n", inventory.BootCD: "boot cdrom\n", inventory.BootNone: "boot none\n"} {
		t.Run(device, func(t *testing.T) {
			t.Parallel()
			sim, dir := newChassis(t)
			r := newIPMI(t, sim, device)
			for epoch := uint64(1); epoch <= 2; epoch++ { // the second time it reads as wanted before it is written
				if err := r.SetBoot(t.Context(), bootFor(t, epoch)); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.On(t.Context(), bootFor(t, 2)); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(filepath.Join(dir, "log"))
			if err != nil || !strings.HasSuffix(string(data), want+"power 1\n") {
				t.Errorf("it was told %q (%v), want %q and on", data, err, want)
			}
		})
	}
}

func TestIPMIFaults(t *testing.T) {
	set := func(ctx context.Context, r *remote) error { return r.SetBoot(ctx, Boot{Epoch: 1}) }
	status := func(ctx context.Context, r *remote) error { _, err := r.Status(ctx); return err }
	for name, tt := range map[string]struct {
		files map[string]string
		do    func(context.Context, *remote) error
		spoil func(*testing.T, *ipmiSim, *remote)
		want  string
	}{
		"off is taken, and nothing happens": {map[string]string{"say-power": "1"}, func(ctx context.Context, r *remote) error { return r.Off(ctx) }, nil, NotApplied},
		"the boot is taken, and is another": {map[string]string{"deaf-boot": ""}, set, nil, BootNotApplied},
		"a stale boot order":                {map[string]string{"say-boot": "pxe"}, set, nil, BootStale},
		"wrong password": {nil, status, func(t *testing.T, sim *ipmiSim, r *remote) {
			r.bmc.(*ipmi).power.User = "other"
		}, Denied},
		"nobody there": {nil, status, func(t *testing.T, sim *ipmiSim, r *remote) {
			r.bmc.(*ipmi).power.Address = fmt.Sprintf("127.0.0.1:%d", freePort(t, "udp"))
		}, Unreachable},
		"frozen in the middle": {nil, func(ctx context.Context, r *remote) error {
			b := r.bmc.(*ipmi)
			if _, err := b.state(ctx); err != nil {
				return err
			}
			if err := unix.Kill(simOf(r), unix.SIGSTOP); err != nil {
				return err
			}
			_, err := b.state(ctx)
			return err
		}, nil, Frozen},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, dir := newChassis(t)
			for file, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r := newIPMI(t, sim, inventory.BootPXE)
			r.pace.settle = 300 * time.Millisecond
			r.offer = func(context.Context, Boot) (nextBoot, error) { return nextBoot{epoch: 1}, nil }
			r.server.Rack = strconv.Itoa(sim.cmd.Process.Pid)
			if tt.spoil != nil {
				tt.spoil(t, sim, r)
			}
			err := tt.do(t.Context(), r)
			if Reason(err) != tt.want {
				t.Errorf("got %v, want reason %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), sim.secret) {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
}

// simOf is the pid of the simulator that TestIPMIFaults wrote down.
func simOf(r *remote) int {
	pid, err := strconv.Atoi(r.server.Rack)
	if err != nil {
		return -1
	}
	return pid
}
