package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mayfly/bastion/agent"
	"mayfly/bastion/card"
	"mayfly/internal/command"
)

// noCards is a machine without a card.
type noCards struct{}

func (noCards) Cards(context.Context) ([]agent.CardInfo, error) { return nil, nil }
func (noCards) Open(context.Context, agent.CardInfo) (agent.Card, error) {
	return nil, agent.ErrGone
}

// TestServeVerb is what the verb says before it serves.
func TestServeVerb(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/it's 1")
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string // parts
	}{
		{"serve --help", command.OK, "-require-binding", ""},
		{"serve --print-env", command.OK, `SSH_AUTH_SOCK='/run/user/it'\''s 1/bastion-agent/agent.sock'; export SSH_AUTH_SOCK;`, ""},
		{"serve --print-unit bastion-agent.service", command.OK, "ExecStart=/usr/local/bin/bastion-agent serve --require-binding --refuse-forwarded", ""},
		{"serve --print-unit bastion-agent.socket", command.OK, "ListenStream=%t/bastion-agent/agent.sock", ""},
		{"serve --print-unit mayfly.bastion-agent.plist", command.OK, "<string>mayfly.bastion-agent</string>", ""},
		{"serve --print-unit ../main.go", command.Usage, "", "want one of bastion-agent.service"},
		{"serve now", command.Usage, "", "serve takes no words"},
		{"serve --socket=", command.Usage, "", "--socket is empty"},
		{"serve --chain=", command.Usage, "", "empty"},
		{"serve --chain a --chain a --chain a --chain a --chain a", command.Usage, "", "given 5 times, 4 at most"},
		{"serve --log xml", command.Usage, "", "want text or json"},
		{"serve --pin-timeout 1ms", command.Usage, "", "1s at least"},
		{"serve --touch-timeout 0", command.Usage, "", "1s at least"},
		{"serve --pin pinentry,pinentry", command.Usage, "", "each once, or none"},
		{"serve --pin fax", command.Usage, "", "want pinentry, askpass, terminal"},
		{"serve --notify loud", command.Usage, "", "want desktop, terminal"},
		{"serve", command.Failed, "", "built without smart cards"},
	} {
		if _, err := reach().Open(t.Context(), "no reader"); tt.args == "serve" && card.FaultOf(err) != card.NotBuilt {
			continue // a program with cards would serve
		}
		var stdout, stderr bytes.Buffer
		code := program().Main(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &stdout, &stderr)
		if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%s: got %d\n%s\n%s", tt.args, code, &stdout, &stderr)
		}
		if code != command.OK && (stdout.Len() > 0 || !strings.Contains(stderr.String(), "hint: ")) {
			t.Errorf("%s: no hint, or something on stdout: %s%s", tt.args, &stdout, &stderr)
		}
	}
}

// TestServeServes: the verb says where it listens, the machine's ssh-add finds it there, and it goes when it is told.
func TestServeServes(t *testing.T) {
	if _, err := exec.LookPath("ssh-add"); err != nil {
		t.Skip("needs ssh-add (openssh-client), which testenv test installs")
	}
	dir, err := os.MkdirTemp("", "serve-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s", "agent.sock")
	begin := func(args ...string) (says func() string, end func() error) {
		c := &command.Call{Args: append([]string{"--socket", socket}, args...), Stderr: io.Discard}
		f, err := parseServe(c)
		if err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		c.Stdout = w
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			err := f.serve(ctx, c, noCards{}, slog.New(slog.DiscardHandler))
			w.CloseWithError(errors.Join(io.EOF, err))
			ended <- err
		}()
		says = func() string {
			line := make([]byte, 4096)
			n, _ := r.Read(line)
			return string(line[:n])
		}
		return says, func() error { cancel(); return <-ended }
	}
	says, end := begin()
	if got := says(); got != "SSH_AUTH_SOCK="+socket+"\n" {
		t.Errorf("says %q", got)
	}
	cmd := exec.CommandContext(t.Context(), "ssh-add", "-l")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := cmd.CombinedOutput(); err == nil || string(out) != "The agent has no identities.\n" {
		t.Errorf("ssh-add -l: %v: %s", err, out)
	}
	_, endSecond := begin()
	if err := endSecond(); err == nil || !strings.Contains(err.Error(), "listens on") {
		t.Errorf("a second one: %v", err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}
	_, end = begin("--chain", socket)
	if err := end(); err == nil || !strings.Contains(err.Error(), "is this agent itself") {
		t.Errorf("chained to itself: %v", err)
	}
}

// TestUserUnits asks systemd's own tool whether the units are units, as a user's.
func TestUserUnits(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (systemd), which testenv test installs")
	}
	dir := t.TempDir()
	args := []string{"--user", "verify"}
	for _, name := range unitNames {
		data, err := units.ReadFile("units/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(name, "bastion-agent.") {
			continue
		}
		// The program is not installed where the test runs.
		data = bytes.ReplaceAll(data, []byte("/usr/local/bin/bastion-agent "), []byte("/bin/true "))
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "XDG_RUNTIME_DIR="+t.TempDir(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte(dir)) {
		t.Errorf("%q: %v: %s", args, err, out)
	}
	listed, err := units.ReadDir("units")
	if err != nil || len(listed) != len(unitNames) {
		t.Errorf("%d units, %d are named", len(listed), len(unitNames))
	}
}

// TestPlist: the launchd file is XML, and starts the program with flags that it has.
func TestPlist(t *testing.T) {
	data, err := units.ReadFile("units/mayfly.bastion-agent.plist")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for d := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok && strings.TrimSpace(string(text)) != "" {
			words = append(words, string(text))
		}
	}
	i := slices.Index(words, "serve")
	if i < 1 || words[i-1] != "/usr/local/bin/bastion-agent" {
		t.Fatalf("got %q", words)
	}
	f, err := parseServe(&command.Call{Args: words[i+1 : i+3]})
	if err != nil || !f.requireBinding || !f.refuseForwarded {
		t.Errorf("%q: %+v, %v", words[i+1:i+3], f, err)
	}
}

// TestBuildsForMacOS: what has no cards yet builds there, without cgo.
func TestBuildsForMacOS(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, "mayfly/bastion/agent", "mayfly/bastion/cmd/bastion-agent")
	cmd.Env = append(os.Environ(), "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
