//go:build pcsc

package cardpeers

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Operations, as rows of the table.
const (
	seen         = "list, serial number, version"
	generate     = "generate"
	attest       = "attest"
	sign         = "sign"
	certificate  = "import a certificate"
	changePIN    = "change PIN"
	changePUK    = "change PUK"
	pinBlocks    = "wrong PIN until it blocks"
	unblock      = "unblock with the PUK"
	pukBlocks    = "wrong PUK until it blocks"
	retries      = "set retries"
	management   = "set management key"
	reset        = "reset"
	pulled       = "pulled while it waits"
	touchGiven   = "touch given"
	touchRefused = "touch refused"
	touchLate    = "touch too late"
)

var operations = []string{seen, generate, attest, sign, certificate, changePIN, changePUK, pinBlocks, unblock, pukBlocks, retries, management, reset,
	pulled, touchGiven, touchRefused, touchLate}

// program is a column: what somebody does with it, at a desk of their own.
type program struct {
	name string
	run  func(t *testing.T, do doer)
}

var programs = []program{
	{"piv-go", usePIVGo},
	{"yubico-piv-tool", useYubicoPIVTool},
	{"ykcs11", useYKCS11},
	{"OpenSC", useOpenSC},
	{"ssh, ykcs11", useSSHWithYKCS11},
	{"ssh, OpenSC", useSSHWithOpenSC},
}

// doer does an operation and notes what came of it.
type doer func(operation string, d *desk, do func())

// passes is what passed, by program and operation.
type passes struct {
	mu sync.Mutex
	of map[string]map[string]bool
}

func (p *passes) note(program, operation string, passed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[program] == nil {
		p.of[program] = map[string]bool{}
	}
	p.of[program][operation] = passed
}

// text is the table as docs/testing.md has it: yes, a program that lacks the operation, or NO.
func (p *passes) text() string {
	var b strings.Builder
	b.WriteString("| |")
	for _, c := range programs {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(programs)) + "\n")
	for _, o := range operations {
		fmt.Fprintf(&b, "| %s |", o)
		for _, c := range programs {
			passed, tried := p.of[c.name][o]
			switch {
			case !tried:
				b.WriteString(" – |")
			case passed:
				b.WriteString(" yes |")
			default:
				b.WriteString(" NO |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestPeers lets each program do all it can with a card, and holds the table in docs/testing.md to what came of it.
func TestPeers(t *testing.T) {
	table := &passes{of: map[string]map[string]bool{}}
	t.Run("programs", func(t *testing.T) {
		for _, c := range programs {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, func(operation string, d *desk, do func()) {
					if !slices.Contains(operations, operation) {
						t.Fatalf("%s: not in the table", operation)
					}
					outer := d.t
					defer func() { d.t = outer }()
					ran := false
					passed := t.Run(operation, func(t *testing.T) {
						d.t, ran = t, true
						do()
					})
					if ran {
						table.note(c.name, operation, passed)
					}
				})
			})
		}
	})
	t.Logf("what passed:\n%s", table.text())
	if flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" {
		return // not all of it ran
	}
	const page = "../../docs/testing.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), table.text()) {
		t.Errorf("%s has another table than\n%s", page, table.text())
	}
}
