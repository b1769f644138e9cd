package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"mayfly/bastion/card"
)

// Secrets of the cards.
const (
	goodPIN = "824613"
	goodPUK = "46813570"
)

var built struct {
	sync.Once
	dir, bin string
	err      error
}

// cleaning takes away what builtProgram made.
type cleaning struct{ *testing.M }

func (c cleaning) Run() int {
	defer func() {
		if built.dir != "" {
			os.RemoveAll(built.dir)
		}
	}()
	return c.M.Run()
}

func TestMain(m *testing.M) {
	testscript.Main(cleaning{m}, map[string]func(){"bastion-agent": main})
}

// TestScripts are the verbs without a card. What begins with [cardless] is what a build without the tag says.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Condition: func(name string) (bool, error) {
			if name != "cardless" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			_, err := reach().Open(t.Context(), "no reader")
			return card.FaultOf(err) == card.NotBuilt, nil
		},
	})
}

// exits CODE PROGRAM ARG... runs a program that ends with this code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s: %v", code, args[0], err)
	}
}
