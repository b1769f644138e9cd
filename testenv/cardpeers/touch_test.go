//go:build pcsc

package cardpeers

import (
	"mayfly/testenv/pivcard"
)

// touches does all that can become of a touch. use makes a program use a key that wants one; a program that succeeds says so with
// that word, if it says anything.
func (d *desk) touches(do doer, use func() said, success ...string) {
	touch := d.card.Touch
	manual := func() {
		d.t.Helper()
		if err := touch.SetMode(pivcard.TouchManual); err != nil {
			d.t.Fatal(err)
		}
		d.inTime()
	}
	// counted tells by how many touches the card's counters have grown.
	counted := func(what func()) pivcard.Touches {
		before := touch.State().Touches
		what()
		after := touch.State().Touches
		return pivcard.Touches{Asked: after.Asked - before.Asked, Given: after.Given - before.Given, Refused: after.Refused - before.Refused,
			Late: after.Late - before.Late, Pulled: after.Pulled - before.Pulled}
	}
	given := func() {
		d.t.Helper()
		got := counted(func() { d.whenAsked(touch.Give, func() { d.must(use(), success...) }) })
		if got != (pivcard.Touches{Asked: 1, Given: 1}) {
			d.t.Errorf("got touches %+v, want one, given", got)
		}
	}
	do(touchGiven, d, func() {
		manual()
		given()
	})
	do(touchRefused, d, func() {
		manual()
		if err := touch.SetMode(pivcard.TouchRefused); err != nil {
			d.t.Fatal(err)
		}
		if got := counted(func() { d.mustNot(use()) }); got.Refused == 0 || got.Refused != got.Asked {
			d.t.Errorf("got touches %+v, want them refused", got)
		}
	})
	do(touchLate, d, func() {
		d.late()
		if got := counted(func() { d.mustNot(use()) }); got.Late == 0 || got.Late != got.Asked {
			d.t.Errorf("got touches %+v, want them late", got)
		}
	})
	do(pulled, d, func() {
		manual()
		if got := counted(func() { d.whenAsked(d.pull, func() { d.mustNot(use()) }) }); got.Pulled != 1 {
			d.t.Errorf("got touches %+v, want one ended by the pull", got)
		}
		d.plug()
		given()
	})
}
