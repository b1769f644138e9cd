package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/testenv/debian"
)

// What this program hands to itself through sudo.
const (
	envCaller = "MAYFLY_TESTENV_CALLER" // set: a user's program runs this one as root, and its stdin is a lifeline
)

// keptEnvironment is what a Go build and a person's terminal need on the other side of sudo, which has a PATH of its own.
var keptEnvironment = []string{"GOPROXY", "GONOSUMDB", "GOSUMDB", "GONOPROXY", "GOPRIVATE", "GOFLAGS", "GOTOOLCHAIN", "GOMAXPROCS",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "CI", "TERM", "LANG", "TMPDIR", envTestCache}

// asRoot makes sure that the verb runs as root with its needs met. When this process is a user's, it builds the programs, runs itself
// again through sudo, and done is true: err is then the verb's outcome. What is wanted is got where it can be had; e.lacking says why
// it could not.
func (e *environment) asRoot(ctx context.Context, c *command.Call, verb string, needs, wanted []debian.Need) (done bool, err error) {
	if err := (debian.System{}).Sweep(); err != nil {
		return false, err
	}
	if debian.Root() {
		e.lacking, err = meet(ctx, debian.System{}, needs, wanted, c.Stderr)
		return false, err
	}
	missing := debian.Missing(needs)
	if !debian.Sudo(ctx) {
		if len(missing) > 0 {
			return true, hint.New(fmt.Errorf("not found: %s; and neither root nor sudo without a password to install with", debian.Describe(missing)),
				"%s", debian.Line(missing))
		}
		return true, hint.New(errors.New("network namespaces and taps need root, and sudo does not work here without a password"),
			"sudo -v && go run ./testenv %s", verb)
	}
	if err := e.build(ctx, c.Stderr); err != nil {
		return true, err
	}
	return true, e.throughSudo(ctx, c, verb)
}

// meet installs what is missing of needs and of what is wanted. It is an error if a need stays missing; lacking says what is wanted
// and could not be had, and why.
func meet(ctx context.Context, s debian.System, needs, wanted []debian.Need, talk io.Writer) (lacking string, err error) {
	missing, extra := debian.Missing(needs), debian.Missing(wanted)
	if len(missing)+len(extra) == 0 {
		return "", nil
	}
	both := slices.Concat(missing, extra)
	fmt.Fprintf(talk, "testenv: not found: %s; installing with apt-get\n", debian.Describe(both))
	err = s.Install(ctx, both, talk)
	if ctx.Err() != nil {
		return "", errors.Join(err, ctx.Err())
	}
	why := ""
	if err != nil {
		why = ": " + oneLine(err.Error())
		if len(missing) > 0 && len(extra) > 0 { // what is wanted shall not keep what is needed away
			if err = s.Install(ctx, missing, talk); ctx.Err() != nil {
				return "", errors.Join(err, ctx.Err())
			}
		}
		if err != nil && len(missing) > 0 {
			return "", hint.New(err, "%s", debian.Line(missing))
		}
	}
	if still := debian.Missing(needs); len(still) > 0 {
		return "", hint.New(fmt.Errorf("still not found after installing: %s", debian.Describe(still)), "%s", debian.Line(still))
	}
	if still := debian.Missing(wanted); len(still) > 0 {
		return fmt.Sprintf("not found: %s%s", debian.Describe(still), why), nil
	}
	return "", nil
}

// throughSudo runs the built program again as root. sudo does not hand on every signal, so the child holds a lifeline: a pipe as
// its stdin that closes when this process ends or is asked to.
func (e *environment) throughSudo(ctx context.Context, c *command.Call, verb string) error {
	set := []string{envCaller + "=1", "PATH=" + debian.Path(os.Getenv("PATH"))}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOROOT", "GOPATH"} {
		value, err := goEnv(ctx, name)
		if err != nil {
			return err
		}
		set = append(set, name+"="+value)
	}
	args := append(sudoArgs(os.LookupEnv, set), e.bin("testenv"))
	args = append(args, strings.Fields(verb)...)
	args = append(args, c.Args...)
	cmd := exec.Command("sudo", args...)
	cmd.Dir = e.module
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("running through sudo: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running through sudo: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { lifeline.Close() })
	defer stop()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &alreadySaid{code: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("running through sudo: %w", err)
	}
	return nil
}

// sudoArgs makes sudo set some variables and keep others. Those are kept by name: a proxy's address may hold a password, and
// everybody can read a command line.
func sudoArgs(lookup func(string) (string, bool), set []string) []string {
	args := []string{"-n"}
	var kept []string
	for _, name := range keptEnvironment {
		if _, ok := lookup(name); ok {
			kept = append(kept, name)
		}
	}
	if len(kept) > 0 {
		args = append(args, "--preserve-env="+strings.Join(kept, ","))
	}
	return append(append(args, "env"), set...)
}

// alreadySaid is the outcome of the program's other self, which told the person already.
type alreadySaid struct{ code int }

func (a *alreadySaid) Error() string { return fmt.Sprintf("ended with exit status %d", a.code) }

// Refused keeps the other self's exit code 3.
func (a *alreadySaid) Refused() bool { return a.code == command.Refused }

// lifeline returns a context that ends when the user's process at the other end of stdin has ended.
func lifeline(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(envCaller) == "" || stdin == nil {
		return ctx, cancel
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // until it closes, for whatever reason
		cancel()
	}()
	return ctx, cancel
}
