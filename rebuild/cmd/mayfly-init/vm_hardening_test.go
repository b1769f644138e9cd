package main

import (
	"strings"
	"testing"
	"time"

	"mayfly/rebuild/image"
	"mayfly/rebuild/ticket"
)

// Machines with the image's kernel and this program as init. The drivers of disks are not in any image: they are there to be taken off.
func TestMachines(t *testing.T) {
	needMachines(t)
	w := newWorks(t, "virtio_blk", "virtio_scsi", "sd_mod")
	t.Run("hardening", w.hardening)
	t.Run("refusals", w.refusals)
	t.Run("disks", w.disks)
	t.Run("attestation", w.attestation)
}

// A server's kernel, read from inside a machine that has come as far as joining: what it says of itself, and what it lets root and users do.
func (w *works) hardening(t *testing.T) {
	g := w.start(t, errand{kind: "readings"})
	text := g.wait("machine: up\n")
	said := map[string]string{}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "machine: "); ok {
			words := strings.SplitN(strings.TrimSpace(rest), " ", 3)
			if len(words) == 3 {
				said[words[0]+" "+words[1]] = words[2]
			} else {
				said[words[0]] = strings.Join(words[1:], " ")
			}
		}
		if strings.Contains(line, "machine: probes") {
			t.Errorf("a bus still gives devices to drivers: %s", line)
		}
	}
	for _, s := range settings {
		if got, ok := said["setting "+s.name]; s.needed && got != s.value || ok && got != s.value {
			t.Errorf("%s is %q, want %q", s.name, got, s.value)
		}
	}
	for _, want := range []struct{ what, part string }{
		{"kernel sys/kernel/security/lockdown", "[confidentiality]"},
		{"kernel sys/power/disk", "[disabled]"},
		{"kernel sys/kernel/kexec_loaded", "0"},
		{"kernel sys/kernel/kexec_crash_loaded", "0"},
		{"kernel sys/module/pstore/parameters/backend", "none"},
		{"kernel sys/module/module/parameters/sig_enforce", "Y"},
		{"setting kernel/yama/ptrace_scope", "3"},
		{"watchdogs Software", "Watchdog, 60 s"},
		{"try module", "operation not permitted"},
		{"try kexec", "operation not permitted"},
		{"try kexec-file", "operation not permitted"},
		{"try hibernate", "operation not permitted"},
		{"try kcore", "operation not permitted"},
		{"try mem", "operation not permitted"},
		{"try pstore", "permission denied"},
		{"try efivars", "no such device"},
		{"try nvme", "no such file"},
		{"try modules-setting", "invalid argument"},
		{"try ptrace-setting", "invalid argument"},
		{"try kexec-setting", "invalid argument"},
		{"try bpf-setting", "operation not permitted"},
		{"try ptrace-root", "operation not permitted"},
		{"user dmesg", "operation not permitted"},
		{"user bpf", "operation not permitted"},
		{"user kallsyms", "hidden"},
		{"user userns", "no space left on device"},
		{"user perf", "permission denied"},
		{"service /dev/null", "/dev/null /dev/null core 0 0"},
		{"cores", "0"},
	} {
		if got := said[want.what]; !strings.Contains(got, want.part) {
			t.Errorf("%s: got %q, want %q", want.what, got, want.part)
		}
	}
	for _, want := range []string{"heap alloc:on, heap free:on", "machine: swaps Filename Type Size Used Priority\n", "machine: warnings []\n", "aborted"} {
		if !strings.Contains(text, want) {
			t.Errorf("the machine does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	g.qmp(map[string]any{"execute": "system_powerdown"})
	g.wait("mayfly-init: stop: power button\n")
	g.off()
}

// What a kernel was started without is found out, whoever left it out.
func (w *works) refusals(t *testing.T) {
	t.Run("other command line", func(t *testing.T) {
		g := w.start(t, errand{kind: "x", started: strings.Replace(image.Cmdline, " init_on_free=1", "", 1)})
		g.wait("mayfly-init: refused: " + codeCmdline + ": ")
		w.report(t, codeCmdline)
	})
	t.Run("no lockdown", func(t *testing.T) {
		g := w.start(t, errand{kind: "x", cmdline: "console=ttyS0 quiet loglevel=3 panic=-1"})
		g.wait("mayfly-init: refused: " + codeNoLockdown + ": ")
		w.report(t, codeNoLockdown)
	})
	t.Run("swap", func(t *testing.T) {
		g := w.start(t, errand{kind: "swap"})
		g.wait("machine: swap on <nil>\n")
		g.wait("mayfly-init: leaving: " + codeSwap + ": ")
		w.report(t, codeSwap)
		g.off()
	})
	// The controller takes the ticket and is lost before it answers: the ticket is not used again.
	t.Run("network lost in the middle", func(t *testing.T) {
		g := w.start(t, errand{kind: "join"})
		g.wait("mayfly-init: refused: " + codeJoin + ": ")
		w.report(t, codeJoin)
		g.wait("mayfly-init: held\n")
	})
	// Nobody is there to tell it: it ends by itself at the ticket's deadline, long before max_age, wherever it is by then.
	t.Run("controller gone", func(t *testing.T) {
		g := w.start(t, errand{kind: "join", life: 20 * time.Second, gone: true})
		g.wait("mayfly-init: stop: end of life\n")
		g.off()
	})
	// What a signed order does: QEMU ends where a machine would start anew.
	t.Run("restart", func(t *testing.T) {
		g := w.start(t, errand{kind: "restart"})
		g.wait("mayfly-init: stop: signed order\n")
		g.wait("mayfly-init: restart\n")
		g.off()
	})
	// Init hangs: nothing feeds the watchdog.
	t.Run("hangs", func(t *testing.T) {
		g := w.start(t, errand{kind: "mute", disks: ticket.DisksRefuse, started: strings.Replace(image.Cmdline, " slab_nomerge", "", 1)})
		g.wait("machine: mute\n")
		g.off()
		if text := g.console(); strings.Contains(text, "mayfly-init: off") || strings.Contains(text, "mayfly-init: stop") {
			t.Errorf("init ended the machine itself:\n%s", text)
		}
	})
}

// withNVMe is the command line of an image that would let the kernel's NVMe driver start.
var withNVMe = strings.Replace(image.Cmdline, " initcall_blacklist=nvme_init", "", 1)

// Disks of every kind that the kernel could drive, there before the boot and plugged in after it, under both rules.
func (w *works) disks(t *testing.T) {
	attached := func(paths []string) []string {
		return []string{
			"-drive", "file=" + paths[0] + ",format=raw,if=none,id=d0", "-device", "nvme,drive=d0,serial=s0",
			"-drive", "file=" + paths[1] + ",format=raw,if=none,id=d1", "-device", "virtio-blk-pci,drive=d1",
			"-drive", "file=" + paths[2] + ",format=raw,if=none,id=d2", "-device", "virtio-scsi-pci,id=scsi0", "-device", "scsi-hd,drive=d2",
			"-device", "qemu-xhci,id=usb", "-device", "usb-storage,drive=d3",
			"-drive", "file=" + paths[2] + ",format=raw,if=none,id=d3,readonly=on,file.locking=off",
		}
	}
	t.Run("refuse there", func(t *testing.T) {
		paths, unchanged := testDisks(t)
		g := w.start(t, errand{kind: "x", cmdline: withNVMe, extra: attached(paths)})
		g.wait("mayfly-init: refused: " + codeDisk + ": ")
		w.report(t, codeDisk)
		g.qmp(map[string]any{"execute": "quit"})
		g.off()
		unchanged()
	})
	t.Run("refuse plugged", func(t *testing.T) {
		paths, unchanged := testDisks(t)
		g := w.start(t, errand{kind: "x"})
		g.wait("machine: up\n")
		g.qmp(blockdev("later0", paths[3]), qmpCommand("device_add", map[string]any{"driver": "nvme", "drive": "later0", "serial": "s1", "bus": "port1", "id": "plug0"}))
		g.wait("mayfly-init: leaving: " + codeDisk + ": ")
		w.report(t, codeDisk)
		g.off()
		unchanged()
	})
	t.Run("unbind", func(t *testing.T) {
		paths, unchanged := testDisks(t)
		g := w.start(t, errand{kind: "x", cmdline: withNVMe, disks: ticket.DisksUnbind, extra: attached(paths)})
		text := g.wait("machine: up\n")
		if !strings.Contains(text, `machine: storage blocks ["nvme0n1" "sda" "vda"] functions 3 driven 3 <nil>`) {
			t.Errorf("the disks had no drivers to take off:\n%s", text)
		}
		g.wait("machine: idle ")
		g.qmp(blockdev("later0", paths[3]), qmpCommand("device_add", map[string]any{"driver": "nvme", "drive": "later0", "serial": "s1", "bus": "port1", "id": "plug0"}),
			blockdev("later1", paths[4]), qmpCommand("device_add", map[string]any{"driver": "virtio-blk-pci", "drive": "later1", "bus": "port2", "id": "plug1"}))
		// Three were there, and both that were plugged in are seen, without a driver.
		text = g.waitFor("five without a driver", func(text string) bool {
			lines := strings.SplitAfter(text, "machine: idle ")
			last, _, _ := strings.Cut(lines[len(lines)-1], "\n")
			return len(strings.Fields(last)) == 5
		})
		if strings.Contains(text, "leaving") || strings.Contains(text, "refused") {
			t.Errorf("the machine did not go on:\n%s", text)
		}
		g.qmp(map[string]any{"execute": "system_powerdown"})
		g.wait("mayfly-init: stop: power button\n")
		g.off()
		unchanged()
	})
}
