// Command rootinit is the init of the tests' root: it says what it was handed over, a line each, and switches the machine off.
package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	say("pid %d", os.Getpid())
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		say("statfs: %v", err)
	}
	say("root erofs %v readonly %v", st.Type == 0xE0F5E1E2, st.Flags&unix.ST_RDONLY != 0)
	say("write %v", os.WriteFile("/written", nil, 0o600))
	list("/run/mayfly")
	list("/sys/block")
	const register = "/sys/class/tpm/tpm0/pcr-sha256/14"
	if data, err := os.ReadFile(register); err == nil {
		say("read %s %q", register, data)
	}
	say("time %d", time.Now().Unix())
	device()
	mounts, err := os.ReadFile("/proc/self/mounts")
	say("mounts %v", err)
	for line := range strings.Lines(string(mounts)) {
		say("mount %s", strings.TrimSpace(line))
	}
	say("end")
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		say("power off: %v", err)
	}
}

func list(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		say("list %s: %v", dir, err)
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			say("list %s: %v", dir, err)
			continue
		}
		say("file %s %v %d", filepath.Join(dir, e.Name()), info.Mode(), info.Size())
	}
}

func say(format string, args ...any) { fmt.Printf("root-init: "+format+"\n", args...) }

// device says what the server's network device is.
func device() {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		say("device: %v", err)
		return
	}
	addrs, err := eth0.Addrs()
	say("device %s %v %v", eth0.HardwareAddr, addrs, err)
	for _, file := range []string{"/proc/net/bonding/trunk0", "/proc/net/bonding/eth0", "/proc/net/vlan/eth0", "/proc/net/route", "/proc/net/ipv6_route"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			say("%s: %s", file, strings.TrimSpace(line))
		}
	}
}
