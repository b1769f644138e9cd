package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/tunnel/client"
)

// process is the program under test in a node.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	stderr *buffer
	events chan client.Event
	done   chan struct{}
}

type buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}

func (l *lab) command(node string, args ...string) *exec.Cmd {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.inNode(node, append([]string{self}, args...)...)
}

func (l *lab) inNode(node string, args ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.prefix + node}, args...)...)
	cmd.Env = append(os.Environ(), "MAYFLY_TEST_TUNNEL=1")
	cmd.Dir = l.dir
	return cmd
}

func (l *lab) start(node string, args ...string) *process {
	l.t.Helper()
	return l.startCommand(node+" "+args[0], l.command(node, args...))
}

func (l *lab) startCommand(name string, cmd *exec.Cmd) *process {
	l.t.Helper()
	p := &process{
		t: l.t, name: name, cmd: cmd, stderr: &buffer{more: make(chan struct{})},
		events: make(chan client.Event, 100), done: make(chan struct{}),
	}
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var e client.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				l.t.Errorf("%s: stdout line %q: %v", p.name, lines.Text(), err)
			}
			p.events <- e
		}
	}()
	l.t.Cleanup(func() { p.stop() })
	return p
}

// stop ends the process as init would, and returns its exit code.
func (p *process) stop() int {
	p.t.Helper()
	if p.cmd.ProcessState != nil {
		return p.cmd.ProcessState.ExitCode()
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Errorf("%s: %v", p.name, err)
	}
	return p.wait()
}

func (p *process) wait() int {
	p.t.Helper()
	kill := time.AfterFunc(patience, func() {
		p.t.Errorf("%s does not end: killed", p.name)
		if err := p.cmd.Process.Kill(); err != nil {
			p.t.Error(err)
		}
	})
	defer kill.Stop()
	<-p.done
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.t.Errorf("%s: %v", p.name, err)
	}
	if p.t.Failed() || strings.Contains(p.stderr.String(), "DATA RACE") {
		p.t.Errorf("%s said:\n%s", p.name, p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// says waits for a text on stderr.
func (p *process) says(text string) {
	p.t.Helper()
	limit := time.After(patience)
	for {
		more := p.stderr.next()
		if strings.Contains(p.stderr.String(), text) {
			return
		}
		select {
		case <-more:
		case <-p.done:
			p.t.Fatalf("%s ended before it said %q:\n%s", p.name, text, p.stderr)
		case <-limit:
			p.t.Fatalf("%s never said %q:\n%s", p.name, text, p.stderr)
		}
	}
}

// event waits for the next event and checks its kind. Events "waiting" may come before it.
func (p *process) event(kind string) client.Event {
	p.t.Helper()
	limit := time.After(2 * patience)
	for {
		select {
		case e := <-p.events:
			if e.Event == "waiting" && kind != "waiting" {
				continue
			}
			if e.Event != kind {
				p.t.Fatalf("%s: event %+v, want %q\n%s", p.name, e, kind, p.stderr)
			}
			return e
		case <-p.done:
			p.t.Fatalf("%s ended before event %q:\n%s", p.name, kind, p.stderr)
		case <-limit:
			p.t.Fatalf("%s: no event %q:\n%s", p.name, kind, p.stderr)
		}
	}
}
