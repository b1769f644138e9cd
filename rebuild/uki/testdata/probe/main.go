// Probe is the /init of the test's machines: it says on the console what firmware and systemd-stub handed over, enrols Secure Boot
// keys if it was given any, and switches the machine off.
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
	"time"

	"golang.org/x/sys/unix"
)

const logLine = 96 // bytes of the event log on a line of the console

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
	for n := range 24 {
		text(fmt.Sprintf("pcr %d", n), fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", n))
	}
	eventLog()
	variables()
	fmt.Println("probe: end")
	time.Sleep(200 * time.Millisecond) // the console's last bytes
	say("off", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func eventLog() {
	data, err := os.ReadFile("/sys/kernel/security/tpm0/binary_bios_measurements")
	if err != nil {
		return // no TPM
	}
	for len(data) > 0 {
		n := min(logLine, len(data))
		fmt.Println("probe: log", base64.StdEncoding.EncodeToString(data[:n]))
		data = data[n:]
	}
}

// variables enrols what lies in /enrol, named as efivarfs names it, and says what Secure Boot's state is.
func variables() {
	module, err := os.Open("/modules/efivarfs.ko")
	if err != nil {
		return // not asked for
	}
	say("efivarfs", unix.FinitModule(int(module.Fd()), "", 0), module.Close())
	const dir = "/sys/firmware/efi/efivars/"
	say("mount efivarfs", unix.Mount("efivarfs", dir, "efivarfs", 0, ""))
	order, err := os.Open("/enrol/order")
	if err == nil {
		for lines := bufio.NewScanner(order); lines.Scan(); {
			data, err := os.ReadFile("/enrol/" + lines.Text())
			if err == nil {
				err = os.WriteFile(dir+lines.Text(), data, 0o644)
			}
			say("enrol "+lines.Text(), err)
			fmt.Println("probe: enrolled", lines.Text(), err == nil)
		}
	}
	for _, name := range []string{"SetupMode", "SecureBoot", "PK", "KEK", "db"} {
		found, err := filepath.Glob(dir + name + "-*")
		say("variables", err)
		for _, path := range found {
			data, err := os.ReadFile(path)
			fmt.Printf("probe: variable %s %x %v\n", filepath.Base(path), sha256.Sum256(data), err)
			if len(data) == 5 {
				fmt.Printf("probe: %s %d\n", name, data[4])
			}
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
