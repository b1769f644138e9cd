package power

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"mayfly/inventory"
	"mayfly/policies/plugin"
	"mayfly/policies/plugin/host"
	"mayfly/rebuild/power/site"
)

// Bounds of a site's program.
const (
	programLimit = 60 * time.Second // one question
	programWait  = time.Second      // for its output, when it has ended
)

// execDriver returns how a question is put to a program: each in a process of its own, which has nothing of our environment.
func execDriver(p inventory.Power) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, question []byte) (answer []byte, err error) {
		as, err := runAs(p.RunAs)
		if err != nil {
			return nil, err
		}
		pin := plugin.Pin{Name: filepath.Base(p.Program), SHA256: p.SHA256}
		file, err := host.Load(filepath.Dir(p.Program), pin, owners())
		if err != nil {
			return nil, &Failure{ProgramRefused, err}
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		ctx, cancel := context.WithTimeout(ctx, programLimit)
		defer cancel()
		return runProgram(ctx, file, pin.Name, question, as)
	}
}

// runProgram runs what was checked, from memory that nobody can change, and returns what it wrote.
func runProgram(ctx context.Context, file *os.File, name string, question []byte, as *syscall.Credential) ([]byte, error) {
	out := &bounded{limit: site.MaxMessage}
	// As the child's descriptor 3, which stays open: an interpreter opens a script by this path.
	cmd := &exec.Cmd{Path: "/proc/self/fd/3", Args: []string{name}, Dir: "/", Env: []string{}, ExtraFiles: []*os.File{file},
		Stdin: bytes.NewReader(question), Stdout: out, Stderr: io.Discard, WaitDelay: programWait,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}}
	if err := cmd.Start(); err != nil {
		return nil, &Failure{ProgramFailed, err}
	}
	stop := context.AfterFunc(ctx, func() { endGroup(cmd.Process) })
	err := cmd.Wait()
	stop()
	endGroup(cmd.Process) // what it has started and left behind
	switch {
	case ctx.Err() != nil:
		return nil, failf(ProgramLate, "it has not answered in time")
	case out.over:
		return nil, failf(Oversize, "an answer of more than %d bytes", site.MaxMessage)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, &Failure{ProgramFailed, err}
	}
	return out.data.Bytes(), nil
}

// endGroup ends a process and all of its group. Those that have ended are no error.
func endGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// bounded keeps the first bytes that are written, and knows of more.
type bounded struct {
	data  bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.data.Len(); len(p) > room {
		b.over = true
		b.data.Write(p[:room])
		return 0, io.ErrShortWrite // the pipe is closed: the program need not go on
	}
	return b.data.Write(p)
}
