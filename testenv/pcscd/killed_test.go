package pcscd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envStarter tells this test program to start a daemon in that directory, to say its PID, and to wait until it is killed.
const envStarter = "MAYFLY_TEST_STARTER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envStarter); dir != "" {
		d, err := Start(context.Background(), Place{Dir: dir, Readers: 1}, nil)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(d.PID())
		<-d.Done()
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestEndsWithWhoStartedIt kills a process that has started a daemon.
func TestEndsWithWhoStartedIt(t *testing.T) {
	p := place(t, 1)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), envStarter+"="+p.Dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the starter said %q", line)
	}
	daemon, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(daemon)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	// Readable when it has ended, also where nobody reaps it.
	for began := time.Now(); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(daemon), Events: unix.POLLIN}}, 1000)
		if n == 1 {
			return
		}
		if err != nil && err != unix.EINTR || time.Since(began) > patience {
			t.Fatalf("pcscd, process %d, outlives who started it: %v", pid, err)
		}
	}
}
