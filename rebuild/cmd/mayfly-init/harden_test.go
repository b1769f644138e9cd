package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

const signedCmdline = "console=ttyS0 quiet lockdown=confidentiality init_on_free=1"

// closedTree is what a server's kernel says when all is well.
func closedTree() fstest.MapFS {
	return fstest.MapFS{
		"proc/cmdline":                             file("BOOT_IMAGE=x " + signedCmdline + " console=tty0\n"),
		"proc/mounts":                              file("/dev/loop0 / erofs ro 0 0\ntmpfs /run tmpfs rw 0 0\nproc /proc proc rw 0 0\n"),
		"sys/kernel/security/lockdown":             file("none integrity [confidentiality]\n"),
		"sys/power/disk":                           file("[disabled]\n"),
		"sys/kernel/kexec_loaded":                  file("0\n"),
		"sys/kernel/kexec_crash_loaded":            file("0\n"),
		"sys/kernel/kexec_crash_size":              file("0\n"),
		"sys/module/pstore/parameters/backend":     file("none\n"),
		"sys/module/module/parameters/sig_enforce": file("Y\n"),
	}
}

func TestKernelClosed(t *testing.T) {
	tests := []struct {
		name, path, says string // "" is: not there
		want             string
	}{
		{"as it should be", "proc/version", "x", ""},
		{"without hibernation", "sys/power/disk", "", ""},
		{"without kexec", "sys/kernel/kexec_loaded", "", ""},
		{"lockdown off", "sys/kernel/security/lockdown", "[none] integrity confidentiality", codeNoLockdown},
		{"lockdown lower", "sys/kernel/security/lockdown", "none [integrity] confidentiality", codeNoLockdown},
		{"no lockdown", "sys/kernel/security/lockdown", "", codeNoLockdown},
		{"hibernation", "sys/power/disk", "[platform] shutdown reboot", codeHibernation},
		{"a kernel to start", "sys/kernel/kexec_loaded", "1", codeKexec},
		{"a kernel for crashes", "sys/kernel/kexec_crash_loaded", "1", codeKexec},
		{"memory for crashes", "sys/kernel/kexec_crash_size", "268435456", codeKexec},
		{"pstore", "sys/module/pstore/parameters/backend", "efi", codePstore},
		{"pstore by default", "sys/module/pstore/parameters/backend", "(null)", codePstore},
		{"no word of pstore", "sys/module/pstore/parameters/backend", "", codePstore},
		{"unsigned modules", "sys/module/module/parameters/sig_enforce", "N", codeModuleSigs},
		{"a disk is mounted", "proc/mounts", "/dev/sda1 /mnt ext4 rw 0 0\n", codeMount},
		{"EFI variables are mounted", "proc/mounts", "efivarfs /sys/firmware/efi/efivars efivarfs rw 0 0\n", codeMount},
		{"pstore is mounted", "proc/mounts", "pstore /sys/fs/pstore pstore rw 0 0\n", codeMount},
		{"another machine is mounted", "proc/mounts", "10.0.0.1:/ /mnt nfs4 rw 0 0\n", codeMount},
		{"no mounts", "proc/mounts", "", codeMount},
		{"mounts that are none", "proc/mounts", "x\n", codeMount},
		{"no command line", "proc/cmdline", "", codeCmdline},
		{"a word is missing", "proc/cmdline", "console=ttyS0 quiet lockdown=confidentiality", codeCmdline},
		{"a word is taken back", "proc/cmdline", signedCmdline + " init_on_free=0", codeCmdline},
		{"a quoted word", "proc/cmdline", signedCmdline + ` "init_on_free=0"`, codeCmdline},
		{"words for init", "proc/cmdline", "lockdown=none -- " + signedCmdline, codeCmdline},
		{"security modules", "proc/cmdline", signedCmdline + " lsm=lockdown", codeCmdline},
		{"mitigations", "proc/cmdline", signedCmdline + " mitigations=off", codeCmdline},
		{"a list that grows", "proc/cmdline", signedCmdline + " initcall-blacklist=tpm_init", codeCmdline},
		{"spelled in another way", "proc/cmdline", signedCmdline + " init-on-free=0", codeCmdline},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree := closedTree()
			tree[tt.path] = file(tt.says)
			if tt.says == "" {
				delete(tree, tt.path)
			}
			if got := codeOf(kernelClosed(tree, signedCmdline)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStopProbing(t *testing.T) {
	buses := t.TempDir()
	for _, bus := range []string{"pci", "nothing"} {
		if err := os.Mkdir(filepath.Join(buses, bus), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	switchFile := filepath.Join(buses, "pci", "drivers_autoprobe")
	if err := os.WriteFile(switchFile, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stopProbing(buses); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(switchFile); err != nil || string(got) != "0" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := os.Remove(switchFile); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", switchFile); err != nil { // takes it, and says nothing
		t.Fatal(err)
	}
	if got := codeOf(stopProbing(buses)); got != codeProbing {
		t.Errorf("a bus that goes on: got %q", got)
	}
	if got := codeOf(stopProbing(filepath.Join(buses, "none"))); got != codeProbing {
		t.Errorf("no buses: got %q", got)
	}
}

// sysTree is a /sys with a disk of a PCI function, and a disk of nothing that could be unbound.
func sysTree(t *testing.T, driven, orphan bool) string {
	t.Helper()
	sys := t.TempDir()
	make := func(path, data string) {
		t.Helper()
		at := filepath.Join(sys, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, path string) {
		t.Helper()
		at := filepath.Join(sys, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(to, at)); err != nil {
			t.Fatal(err)
		}
	}
	const function = "devices/pci0000:00/0000:00:04.0"
	make(function+"/class", "0x010000\n")
	make("bus/pci/drivers/virtio-pci/unbind", "")
	link("../../../"+function, "bus/pci/devices/0000:00:04.0")
	link("../../../bus/pci", function+"/subsystem")
	if driven {
		link("../../../bus/pci/drivers/virtio-pci", function+"/driver")
		make(function+"/virtio1/block/vda/size", "1")
		link("../"+function+"/virtio1/block/vda", "block/vda")
	}
	if orphan {
		make("devices/virtual/block/md0/size", "1")
		link("../devices/virtual/block/md0", "block/md0")
	}
	return sys
}

func TestTakeOff(t *testing.T) {
	// A function that nothing drives is told of, and stays.
	idle, err := takeOff(sysTree(t, false, false))
	if err != nil || strings.Join(idle, " ") != "0000:00:04.0" {
		t.Errorf("got %v, %v", idle, err)
	}
	// The driver is told to go, and does not: this /sys is a directory.
	sys := sysTree(t, true, false)
	if _, err := takeOff(sys); codeOf(err) != codeNotUnbound {
		t.Errorf("a driver that stays: got %v", err)
	}
	if told, err := os.ReadFile(filepath.Join(sys, "bus/pci/drivers/virtio-pci/unbind")); err != nil || string(told) != "0000:00:04.0" {
		t.Errorf("the driver was told %q, %v", told, err)
	}
	if at, err := owner(sys, "vda"); err != nil || filepath.Base(at) != "0000:00:04.0" {
		t.Errorf("vda belongs to %q, %v", at, err)
	}
	// RAID over disks, device mapper, zram: nobody drives them who could be sent away.
	if _, err := takeOff(sysTree(t, false, true)); codeOf(err) != codeNotUnbound {
		t.Errorf("a device without a driver: got %v", err)
	}
	// Refused, whatever drives it.
	for _, driven := range []bool{false, true} {
		if _, err := disks(sysTree(t, driven, false), ticket.DisksRefuse); codeOf(err) != codeDisk {
			t.Errorf("refuse, driven %v: got %v", driven, err)
		}
	}
	loop := t.TempDir()
	at := filepath.Join(loop, "block/loop0/loop/backing_file")
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte("/mnt/x\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := takeOff(loop); codeOf(err) != codeNotUnbound {
		t.Errorf("a loop device over a file: got %v", err)
	}
}

func TestNoSwap(t *testing.T) {
	dir := t.TempDir()
	if err := noSwap(filepath.Join(dir, "none")); err != nil {
		t.Errorf("a kernel without swap: %v", err)
	}
	if got := codeOf(noSwap(dir)); got != codeSwap {
		t.Errorf("unreadable: got %q", got)
	}
	path := filepath.Join(dir, "swaps")
	if err := os.WriteFile(path, []byte("Filename\tType\n/dev/nvme0n1 partition\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := codeOf(noSwap(path)); got != codeSwap {
		t.Errorf("swap: got %q", got)
	}
}

// A machine that may not go on says so, lets its users go, and ends itself with the reason.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ended := make(chan string, 1)
		m := &machine{con: &console{w: new(strings.Builder)}, keys: &keys{}, sup: newSupervisor(nil), changed: make(chan struct{}, 1),
			tunnel: newTunnelClient(filepath.Join(t.TempDir(), "none"))}
		b := &boot{con: m.con, papers: &papers{ticket: &ticket.Ticket{}}}
		m.told = &b.told
		look, n := func() error { return nil }, 0
		watchDisks(t.Context(), diskEvery, func() error {
			if n++; n < 3 {
				return look()
			}
			return refuse(codeDisk, "block device nvme0n1")
		}, func(err error) {
			if got := time.Since(began); got != 3*diskEvery {
				t.Errorf("found after %s, want %s", got, 3*diskEvery)
			}
			b.leave(t.Context(), m, err, func(why string) { ended <- why })
		})
		if why := <-ended; why != codeDisk {
			t.Errorf("ended by %q", why)
		}
		health, drained := m.health()
		if !health.Draining || drained == nil || len(health.Warnings) != 1 || health.Warnings[0] != "disk_present: block device nvme0n1" {
			t.Errorf("the last word is %+v, drained %v", health, drained)
		}
		if got := time.Since(began) - 3*diskEvery; got < leaveLimit || got > 2*leaveLimit {
			t.Errorf("it took %s to leave", got)
		}
	})
}

func TestWarningsAreBounded(t *testing.T) {
	var w warnings
	for i := range 2 * join.MaxWarnings {
		w.add("%d %s", i, strings.Repeat("x\n", join.MaxWarning))
		w.add("%d %s", i, strings.Repeat("x\n", join.MaxWarning)) // each once
	}
	all := w.all()
	if len(all) != join.MaxWarnings {
		t.Errorf("%d warnings", len(all))
	}
	h := join.Health{BootID: "x", Services: map[string]string{}, Warnings: all}
	data, err := join.Encode(join.FromServer{Health: &h})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join.NewFrames(strings.NewReader(string(data)+"\n"), join.MaxFromServer).FromServer(); err != nil {
		t.Errorf("the controller refuses them: %v", err)
	}
	if (*warnings)(nil).all() != nil {
		t.Error("no warnings are some")
	}
}

// Machines without a watchdog are told of; a file that is none is no watchdog.
func TestArmWatchdogs(t *testing.T) {
	dir := t.TempDir()
	w, err := armWatchdogs(filepath.Join(dir, "watchdog[0-9]*"), watchdogSeconds)
	if err != nil || len(w.names) != 0 {
		t.Errorf("none: got %v, %v", w.names, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "watchdog0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err = armWatchdogs(filepath.Join(dir, "watchdog[0-9]*"), watchdogSeconds)
	if err == nil || len(w.names) != 0 {
		t.Errorf("a file: got %v, %v", w.names, err)
	}
	w.feed()
	(*watchdogs)(nil).feed()
	b := &boot{con: &console{w: new(strings.Builder)}, limit: newDeadline()}
	if err := b.armEach(filepath.Join(dir, "none")); err != nil || fmt.Sprint(b.told.all()) != "[no watchdog]" {
		t.Errorf("got %v, told %q", err, b.told.all())
	}
}
