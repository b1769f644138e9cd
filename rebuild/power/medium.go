package power

import "io"

// makeMedium writes a medium.
var makeMedium = func(io.Writer, Boot) error { return failf(MediumMissing, "no medium can be made yet") }

// writeMedium writes what firmware boots from: the unified kernel image and this machine's ticket.
func writeMedium(w io.Writer, boot Boot) error {
	return makeMedium(w, boot)
}
