package power

import (
	"os/exec"
	"testing"
	"time"
)

// The probe has to be able to say yes: emulation runs the same firmware.
func TestProbeSaysYes(t *testing.T) {
	if _, err := exec.LookPath(qemuProgram); err != nil {
		t.Skip("SKIPPED: qemu-system-x86_64 is not installed")
	}
	if !probeKVM(t.Context(), "tcg") {
		t.Error("the probe's firmware does not run under emulation")
	}
	start := time.Now()
	works := probeKVM(t.Context(), "kvm")
	took := time.Since(start)
	t.Logf("KVM works: %v, known after %.1f s", works, took.Seconds())
	if took > kvmDeadline+2*time.Second {
		t.Errorf("the probe took %s, its deadline is %s", took, kvmDeadline)
	}
}
