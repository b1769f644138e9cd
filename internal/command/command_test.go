package command

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

func program() Program {
	return Program{Name: "prog", Summary: "tests programs", Verbs: []Verb{
		{Name: "image lock", Args: "[flags] NAME", Summary: "lock it", Help: "Locks the image.", Run: func(ctx context.Context, c *Call) error {
			fs := c.Flags()
			dir := fs.String("dir", ".", "where `DIR` is")
			if err := c.Parse(fs); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.Stdout, "lock dir=%s args=%q\n", *dir, fs.Args())
			return err
		}},
		{Name: "image", Summary: "shorter name", Run: func(ctx context.Context, c *Call) error {
			_, err := fmt.Fprintf(c.Stdout, "image %q\n", c.Args)
			return err
		}},
		{Name: "policy sign", Summary: "sign it", Run: func(ctx context.Context, c *Call) error {
			return Refuse(hint.New(errors.New("signed already"), "ask somebody else"))
		}},
		{Name: "policy check", Summary: "check it", Run: func(ctx context.Context, c *Call) error { return errors.New("no file") }},
		{Name: "policy bundle", Summary: "bundle it", Run: func(ctx context.Context, c *Call) error { return fmt.Errorf("x: %w", Usagef("--dir is needed")) }},
		{Name: "wait", Summary: "waits", Run: func(ctx context.Context, c *Call) error {
			return fmt.Errorf("waiting: %w", context.Cause(ctx))
		}},
	}}
}

func TestProgram(t *testing.T) {
	tests := []struct {
		args           string
		code           int
		stdout, stderr string // must be contained; "" means nothing at all
	}{
		{"", Usage, "", "prog: error: no verb given\nprog: hint: "},
		{"--help", OK, "prog image lock", ""},
		{"-h", OK, "Exit codes: 0 done", ""},
		{"help", OK, "prog: tests programs", ""},
		{"help policy", OK, "prog policy sign", ""},
		{"help image lock", OK, "-dir DIR", ""},
		{"help nothing", Usage, "", "unknown verb \"nothing\"\nprog: hint: prog --help lists the verbs\n"},
		{"version", OK, "prog ", ""},
		{"--version", OK, " go1.", ""},
		{"version --help", OK, "Usage: prog version\n\nprint the version\n", ""},
		{"help version", OK, "Usage: prog version\n\nprint the version\n", ""},
		{"version --bogus", Usage, "", "prog: error: flag provided but not defined: -bogus\nprog: hint: "},
		{"version extra", Usage, "", "prog: error: version takes no words, got \"extra\"\nprog: hint: "},
		{"help version extra", Usage, "", "unknown verb \"version extra\""},
		{"frob", Usage, "", `prog: error: unknown verb "frob"`},
		{"policy", Usage, "", `prog: error: "policy" needs another word`},
		{"policy --help", OK, "prog policy check", ""},
		{"policy frob", Usage, "", `unknown verb "policy frob"`},
		{"policy sign", Refused, "", "prog: error: signed already\nprog: hint: ask somebody else\n"},
		{"policy check", Failed, "", "prog: error: no file\n"},
		{"policy bundle x", Usage, "", "prog: error: x: --dir is needed\nprog: hint: prog policy bundle --help shows the flags\n"},
		{"image other", OK, `image ["other"]`, ""},
		{"image lock", OK, `lock dir=. args=[]`, ""},
		{"image lock --dir d a b", OK, `lock dir=d args=["a" "b"]`, ""},
		{"image lock a --dir d b", OK, `lock dir=d args=["a" "b"]`, ""},
		{"image lock a -- --dir d", OK, `lock dir=. args=["a" "--dir" "d"]`, ""},
		{"image lock a --help", OK, "Usage: prog image lock [flags] NAME\n\nlock it\n\nLocks the image.\n\nFlags:", ""},
		{"image lock --frob", Usage, "", "flag provided but not defined: -frob\nprog: hint: prog image lock --help shows the flags\n"},
		{"image lock --dir", Usage, "", "flag needs an argument"},
	}
	for _, tt := range tests {
		var stdout, stderr bytes.Buffer
		code := program().Main(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &stdout, &stderr)
		if code != tt.code {
			t.Errorf("%q: exit code: got %d, want %d", tt.args, code, tt.code)
		}
		for _, out := range []struct{ name, got, want string }{{"stdout", stdout.String(), tt.stdout}, {"stderr", stderr.String(), tt.stderr}} {
			if !strings.Contains(out.got, out.want) || out.want == "" && out.got != "" {
				t.Errorf("%q: %s: got %q, want %q", tt.args, out.name, out.got, out.want)
			}
		}
	}
}

func TestMainInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	if code := program().Main(ctx, []string{"wait"}, nil, io.Discard, &stderr); code != Failed {
		t.Errorf("exit code: got %d, want %d", code, Failed)
	}
	if got := stderr.String(); !strings.Contains(got, "interrupted") {
		t.Errorf("stderr: got %q, want it to say interrupted", got)
	}
}

type refusal bool

func (r refusal) Error() string { return "refusal" }
func (r refusal) Refused() bool { return bool(r) }

func TestExitCode(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"nil", nil, OK},
		{"help", fmt.Errorf("x: %w", flag.ErrHelp), OK},
		{"plain", io.EOF, Failed},
		{"usage", fmt.Errorf("x: %w", Usagef("bad %d", 1)), Usage},
		{"refused", fmt.Errorf("x: %w", Refuse(io.EOF)), Refused},
		{"refuses by method", fmt.Errorf("x: %w", refusal(true)), Refused},
		{"does not refuse", refusal(false), Failed},
		{"another program's exit code", &exec.ExitError{}, Failed},
	}
	for _, tt := range tests {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
	if Refuse(nil) != nil {
		t.Error("Refuse(nil): got an error, want nil")
	}
	if !errors.Is(Refuse(io.EOF), io.EOF) {
		t.Error("Refuse hides the error it wraps")
	}
}
