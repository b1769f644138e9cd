package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// What a refusal is called on the console and in the report, and whether another mirror may help.
func TestReasons(t *testing.T) {
	tests := []struct {
		err      error
		want     string
		mendable bool
	}{
		{refusef(rootTooBig, "x"), rootTooBig, false},
		{&release.Refusal{Reason: release.PartAltered, Err: errors.New("x")}, release.PartAltered, true},
		{&release.Refusal{Reason: release.Expired, Err: errors.New("x")}, release.Expired, false},
		{&ticket.Refusal{Reason: ticket.Expired, Err: errors.New("x")}, ticket.Expired, false},
		{io.ErrUnexpectedEOF, bootFailed, false},
	}
	for _, tt := range tests {
		if got := reasonOf(tt.err); got != tt.want {
			t.Errorf("reasonOf(%v) is %q, want %q", tt.err, got, tt.want)
		}
		if got := mendable(tt.err); got != tt.mendable {
			t.Errorf("mendable(%v) is %v, want %v", tt.err, got, tt.mendable)
		}
	}
	if got := oneLine("a\x1b[2Jb\nc"); got != "a [2Jb c" {
		t.Errorf("oneLine let %q through", got)
	}
	// A mistake of the program is a refusal like any other.
	saved := stages
	defer func() { stages = saved }()
	stages = slices.Clone(stages[:1])
	stages[0].run = func(*boot, context.Context) error { panic("oops") }
	var console bytes.Buffer
	if err := (&boot{console: &console}).run(t.Context()); reasonOf(err) != internalError {
		t.Errorf("a stage that panics: %v, want %s", err, internalError)
	}
	if got := console.String(); got != "mayfly-stub: mount\n" {
		t.Errorf("the console says %q", got)
	}
}

// TestMain lets the test program be the stub, for its help.
func TestMain(m *testing.M) {
	if os.Getenv("MAYFLY_TEST_STUB") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"--help", "version"} {
		cmd := exec.Command(os.Args[0], arg)
		cmd.Env = append(os.Environ(), "MAYFLY_TEST_STUB=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(out), "mayfly-stub") || stderr.Len() > 0 {
			t.Errorf("%s: %v, stdout %q, stderr %q", arg, err, out, stderr.String())
		}
	}
}
