//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/testenv/pivcard"
)

// said collects what a program says.
type said struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// wait waits for a line with all of these.
func (s *said) wait(t *testing.T, parts ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for line := range strings.Lines(s.String()) {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				return
			}
		}
	}
	t.Fatalf("no line with %q:\n%s", parts, s)
}

// TestServeSigns is the whole of it: the agent as it is built for engineers, the real pcscd, a virtual card, OpenSSH's ssh-keygen. One touch for each
// signature; none, a wrong PIN and a pulled card have their reasons, and the agent goes on.
func TestServeSigns(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	public := l.want(0, nil, l.setUp()...)
	key, file := l.write("card.pub", []byte(public), 0o644), l.write("file", []byte("text"), 0o644)
	l.write("allowed", []byte("anna "+public), 0o644)
	if err := card.Touch.SetMode(pivcard.TouchManual); err != nil {
		t.Fatal(err)
	}
	pin := l.write("answer", []byte(goodPIN+"\n"), 0o600)
	askpass := l.write("askpass", []byte("#!/bin/sh\nexec cat "+pin+"\n"), 0o755)
	socket := filepath.Join(l.dir, "s", "agent.sock")

	serve := l.command("serve", "--socket", socket, "--pin", "askpass", "--notify", "terminal", "--require-binding", "--refuse-forwarded")
	serve.Env = append(serve.Env, "SSH_ASKPASS="+askpass)
	log := &said{}
	serve.Stderr = log
	out, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := serve.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := serve.Wait(); err != nil {
			t.Errorf("the agent ended: %v\n%s", err, log)
		}
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "SSH_AUTH_SOCK="+socket+"\n" {
		t.Fatalf("got %q, %v\n%s", line, err, log)
	}
	run := func(words ...string) error {
		cmd := exec.CommandContext(l.ctx, words[0], words[1:]...)
		cmd.Dir = l.dir
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w: %s", words, err, out)
		}
		return nil
	}
	sign := func() chan error {
		signed := make(chan error, 1)
		if err := os.Remove(file + ".sig"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		go func() { signed <- run("ssh-keygen", "-Y", "sign", "-n", "mayfly-policy", "-f", key, file) }()
		return signed
	}
	touched := func() {
		t.Helper()
		signed := sign()
		if err := card.Touch.Asked(l.ctx); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if err := card.Touch.Give(); err != nil {
			t.Fatal(err)
		}
		if err := <-signed; err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if err := run("/bin/sh", "-c", "ssh-keygen -Y verify -n mayfly-policy -I anna -f allowed -s file.sig < file"); err != nil {
			t.Error(err)
		}
	}
	if err := run("ssh-add", "-l"); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	touched()
	touched()
	log.wait(t, "signed", "sign a mayfly-policy bundle", "slot=9a")

	signed := sign()
	if err := card.Touch.Asked(l.ctx); err != nil {
		t.Fatal(err)
	}
	if err := card.Touch.Refuse(); err != nil {
		t.Fatal(err)
	}
	if err := <-signed; err == nil {
		t.Error("signed without a touch")
	}
	log.wait(t, "refused", "reason=touch_timeout")

	l.write("answer", []byte("111111\n"), 0o600)
	if err := <-sign(); err == nil {
		t.Error("signed with a wrong PIN")
	}
	log.wait(t, "refused", "reason=pin_wrong")
	l.write("answer", []byte(goodPIN+"\n"), 0o600)

	signed = sign()
	if err := card.Touch.Asked(l.ctx); err != nil {
		t.Fatal(err)
	}
	l.pull(0)
	if err := <-signed; err == nil {
		t.Error("signed by a card that was pulled")
	}
	log.wait(t, "refused", "reason=card_gone")
	if err := run("ssh-add", "-l"); err == nil || !strings.Contains(err.Error(), "no identities") {
		t.Errorf("without a card: %v", err)
	}
	l.insert(0, card.Serve)
	touched()
	remembers(t, serve.Process.Pid, goodPIN)
	for _, secret := range []string{goodPIN, "111111"} {
		if strings.Contains(log.String(), secret) {
			t.Error("the log has a PIN")
		}
	}
}

// remembers is an error where a process has a PIN in its memory, or what it becomes on its way to the card.
func remembers(t *testing.T, pid int, pin string) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	read := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || to-from > 256<<20 {
			continue
		}
		part := make([]byte, to-from)
		n, err := memory.ReadAt(part, from)
		if n == 0 && err != nil {
			continue // one that no process reads
		}
		read += n
		for _, text := range []string{pin, hex.EncodeToString([]byte(pin)), base64.StdEncoding.EncodeToString([]byte(pin))} {
			if i := bytes.Index(part[:n], []byte(text)); i >= 0 {
				t.Errorf("the agent still has the PIN (%s) in %s: %q", text, strings.TrimSpace(line), part[max(i-32, 0):min(i+32, n)])
			}
		}
	}
	if read == 0 {
		t.Error("no memory was read")
	}
}
