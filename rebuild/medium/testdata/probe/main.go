// Probe is the /init of the test's machines: it says on the console what firmware and systemd-stub handed over, enrols the Secure Boot
// keys that it finds among the credentials, and switches the machine off.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	logLine     = 96 // bytes of the event log on a line of the console
	credentials = "/.extra/credentials/"
	variables   = "/sys/firmware/efi/efivars/"
	global      = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	images      = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	attributes  = "\x27\x00\x00\x00" // what efivarfs wants before a key variable's new value
)

// enrolment is in this order: once there is a PK, firmware takes what is signed only.
var enrolment = [][2]string{{"db", images}, {"KEK", global}, {"PK", global}}

func main() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"securityfs", "/sys/kernel/security"}} {
		say("mount "+m[1], os.MkdirAll(m[1], 0o755), unix.Mount(m[0], m[1], m[0], 0, ""))
	}
	fmt.Println("probe: up")
	for _, dir := range []string{"/.extra", "/trust.json"} {
		say("walk", filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			fmt.Printf("probe: file %s %v %x\n", path, info.Mode(), sha256.Sum256(data))
			return err
		}))
	}
	text("cmdline", "/proc/cmdline")
	text("uptime", "/proc/uptime")
	blocks, err := os.ReadDir("/sys/block")
	say("blocks", err)
	for _, b := range blocks {
		fmt.Println("probe: block", b.Name())
	}
	for n := range 15 {
		text(fmt.Sprintf("pcr %d", n), fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", n))
	}
	if _, err := os.Stat(credentials + "log.cred"); err == nil {
		eventLog()
	}
	loadModules()
	say("mount efivarfs", unix.Mount("efivarfs", variables, "efivarfs", 0, ""))
	enrol()
	for _, name := range []string{"SetupMode", "SecureBoot"} {
		if data, err := os.ReadFile(variables + name + "-" + global); err == nil && len(data) == 5 {
			fmt.Printf("probe: %s %d\n", name, data[4])
		}
	}
	fmt.Println("probe: end")
	say("off", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func eventLog() {
	data, err := os.ReadFile("/sys/kernel/security/tpm0/binary_bios_measurements")
	say("event log", err)
	for len(data) > 0 {
		n := min(logLine, len(data))
		fmt.Println("probe: log", base64.StdEncoding.EncodeToString(data[:n]))
		data = data[n:]
	}
}

// loadModules loads the initramfs's list.
func loadModules() {
	list, err := os.Open("/modules")
	if err != nil {
		say("modules", err)
		return
	}
	for lines := bufio.NewScanner(list); lines.Scan(); {
		module, err := os.Open(lines.Text())
		if err == nil {
			err = unix.FinitModule(int(module.Fd()), "", 0)
		}
		say("module "+lines.Text(), err)
	}
}

func enrol() {
	for _, v := range enrolment {
		update, err := os.ReadFile(credentials + v[0] + ".auth.cred")
		if err == nil {
			err = os.WriteFile(variables+v[0]+"-"+v[1], append([]byte(attributes), update...), 0o644)
			fmt.Println("probe: enrolled", v[0], err == nil)
			say("enrol "+v[0], err)
		}
	}
}

func text(what, path string) {
	data, err := os.ReadFile(path)
	if err == nil {
		fmt.Printf("probe: %s %s\n", what, strings.TrimSpace(string(data)))
	}
}

func say(what string, errs ...error) {
	for _, err := range errs {
		if err != nil {
			fmt.Printf("probe: %s: %v\n", what, err)
		}
	}
}
