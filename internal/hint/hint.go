// Package hint lets an error carry the mend beside the cause: what was wrong is the error's text, what to do about it is the
// hint. Programs print both, each on its own line; tests compare them apart.
package hint

import (
	"errors"
	"fmt"
)

type hinted struct {
	err  error
	text string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// New wraps err with a hint. The text of the result is err's own; New of a nil error is nil.
func New(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err: err, text: fmt.Sprintf(format, args...)}
}

// Of returns the first hint that errors.As finds in err, or "".
func Of(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.text
	}
	return ""
}
