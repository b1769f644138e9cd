package supervise

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStartWaitEnd(t *testing.T) {
	table := Table{Dir: t.TempDir()}
	p, err := table.Start("talker", exec.Command("sh", "-c", "echo ready; exec sleep 30"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.WaitLine(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	records, err := table.Records()
	if err != nil || len(records) != 1 || records[0].PID != p.PID {
		t.Errorf("got %v, %v, want the one program", records, err)
	}
	if err := p.End(); err != nil {
		t.Fatal(err)
	}
	if err := p.End(); err != nil {
		t.Errorf("ending it again: %v", err)
	}
	if records, err := table.Records(); err != nil || len(records) != 0 {
		t.Errorf("got %v, %v, want none", records, err)
	}
}

func TestWaitLineTellsWhenTheProgramEnds(t *testing.T) {
	p, err := Table{Dir: t.TempDir()}.Start("short", exec.Command("sh", "-c", "echo something went wrong; exit 3"), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = p.WaitLine(t.Context(), "ready")
	if err == nil || !strings.Contains(err.Error(), "something went wrong") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want its status and its last lines", err)
	}
}

// TestSweep ends what a killed run left: also what never was written down, and what ignores TERM.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	table := Table{Dir: dir}
	child := exec.Command("sh", "-c", "(sleep 30 & echo $!) ; exec sleep 30")
	child.Env = table.Environ(nil)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()

	other := exec.Command("sleep", "30")
	other.Env = Table{Dir: filepath.Join(dir, "other")}.Environ(nil)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	otherEnded := make(chan struct{})
	go func() { _ = other.Wait(); close(otherEnded) }()

	n, err := table.Sweep()
	if err != nil || n < 1 {
		t.Errorf("got %d, %v, want at least one program ended", n, err)
	}
	<-ended
	if n, err := table.Sweep(); n != 0 || err != nil {
		t.Errorf("second sweep: got %d, %v, want none", n, err)
	}
	select {
	case <-otherEnded:
		t.Error("a program of another environment was ended")
	default:
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-otherEnded
}

func TestEndMakesIt(t *testing.T) {
	cmd := exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := end([]Record{{Name: "deaf", PID: cmd.Process.Pid, Start: startOf(cmd.Process.Pid)}}, 50*time.Millisecond); err != nil {
		t.Error(err)
	}
	<-done
}

// TestAnotherProcessIsLeftAlone: a PID that was given to another process since is not ours.
func TestAnotherProcessIsLeftAlone(t *testing.T) {
	cmd := exec.Command("sleep", "30")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stale := Record{Name: "stale", PID: cmd.Process.Pid, Start: startOf(cmd.Process.Pid) - 1}
	if err := end([]Record{stale}, time.Second); err != nil {
		t.Error(err)
	}
	if startOf(cmd.Process.Pid) == 0 {
		t.Error("the process that took over the PID was ended")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-done
}
