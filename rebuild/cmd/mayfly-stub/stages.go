package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"mayfly/policies/trust"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// boot is what the stages know so far.
type boot struct {
	console io.Writer

	trust      *trust.Trust
	trustData  []byte
	ticket     *ticket.Ticket // believed, or nil
	ticketData []byte
	ticketSig  []byte
	online     bool
	mirrors    *mirrors
	answers    answers   // of witnesses
	began      time.Time // fetching

	statement     *release.Statement // believed, or nil
	statementData []byte
	root          *os.File // sealed memory
}

// stages run in this order. Each name is printed as its stage begins.
var stages = []struct {
	name string
	run  func(*boot, context.Context) error
}{
	{"mount", (*boot).mount},
	{"modules", (*boot).modules},
	{"ticket", (*boot).openTicket},
	{"network", (*boot).network},
	{"clock", (*boot).clock},
	{"release", (*boot).fetchRelease},
	{"measure", (*boot).measure},
	{"root", (*boot).fetchRoot},
	{"switch", (*boot).handOver},
}

// run returns only when a stage failed: the last one replaces this program.
func (b *boot) run(ctx context.Context) (err error) {
	stage := "start"
	defer func() {
		if p := recover(); p != nil {
			err = refusef(internalError, "stage %s: %v: %s", stage, p, debug.Stack())
		}
	}()
	for _, s := range stages {
		stage = s.name
		b.say("%s", stage)
		if err := s.run(b, ctx); err != nil {
			return fmt.Errorf("stage %s: %w", stage, err)
		}
	}
	return refusef(internalError, "the last stage returned")
}

func (b *boot) say(format string, args ...any) {
	// Without a console there is nobody to tell.
	fmt.Fprintf(b.console, "mayfly-stub: "+format+"\n", args...)
}
