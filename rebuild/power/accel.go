package power

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// KVM's device can be there and yet hang, for example inside another virtual machine. So it is tried, once in a process, with a deadline.
const (
	kvmDevice   = "/dev/kvm"
	kvmDeadline = 3 * time.Second
)

// probeFirmware is 64 KiB of firmware whose first instructions, at the reset vector, write probeValue to QEMU's debug exit port:
// mov al, probeValue; mov dx, 0xf4; out dx, al; hlt. QEMU then ends with 2*probeValue+1.
const (
	probeSize  = 64 << 10
	probeValue = 0x10
	probeExit  = 2*probeValue + 1
)

var kvm struct {
	once  sync.Once
	works bool
}

func kvmWorks(ctx context.Context) bool {
	kvm.once.Do(func() { kvm.works = probeKVM(ctx, "kvm") })
	return kvm.works
}

// probeKVM runs the probe. Whatever goes wrong means no.
func probeKVM(ctx context.Context, accel string) bool {
	if info, err := os.Stat(kvmDevice); accel == "kvm" && (err != nil || info.Mode().Type()&os.ModeCharDevice == 0) {
		return false
	}
	dir, err := os.MkdirTemp("", "mayfly-kvm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	firmware := make([]byte, probeSize)
	copy(firmware[probeSize-16:], []byte{0xb0, probeValue, 0xba, 0xf4, 0x00, 0xee, 0xf4})
	file := filepath.Join(dir, "probe.bin")
	if err := os.WriteFile(file, firmware, 0o600); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, kvmDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemuProgram, "-machine", "q35,accel="+accel, "-cpu", "max", "-nodefaults", "-no-user-config", "-display", "none",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-bios", file)
	// A process that hangs in the kernel does not end when it is killed: its end is not waited for.
	ended := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		return false
	}
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		exit, ok := errors.AsType[*exec.ExitError](err)
		return ok && exit.ExitCode() == probeExit
	case <-ctx.Done():
		return false
	}
}
