package power

import "io"

func init() {
	makeMedium = func(w io.Writer, b Boot) error { return b.UKI.copy(w) }
}
