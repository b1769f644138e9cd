package delivery

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"mayfly/bastion/alert"
	"mayfly/internal/hint"
)

// programLimit is how long the program may take for one alert.
const programLimit = 30 * time.Second

// program is given each alert on its standard input. It gets no argument and no environment, so nothing of an alert can become a command.
type program string

// checkProgram refuses a program that others could have written.
func checkProgram(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("alerts' program: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return hint.New(fmt.Errorf("alerts' program %s is no program", path), "chmod 755 %s", path)
	case info.Mode().Perm()&0o022 != 0:
		return hint.New(fmt.Errorf("alerts' program %s: others can write to it", path), "chmod go-w %s", path)
	case !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return hint.New(fmt.Errorf("alerts' program %s belongs to somebody else", path), "chown root %s", path)
	}
	return nil
}

func (p program) deliver(ctx context.Context, _ alert.Alert, line []byte) error {
	if err := checkProgram(string(p)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, programLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, string(p))
	cmd.Stdin, cmd.Dir, cmd.Env = bytes.NewReader(append(bytes.Clone(line), '\n')), "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // whatever it has started as well
	cmd.WaitDelay = time.Second
	return cmd.Run()
}
