package command

import (
	"errors"
	"flag"
	"fmt"
)

// Exit codes of every program.
const (
	OK      = 0 // done
	Failed  = 1 // tried and failed
	Usage   = 2 // asked wrongly
	Refused = 3 // refused by policy, or because it would be unsafe
)

type exitError struct {
	err  error
	code int
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// Usagef is an error of the person who typed: exit code 2.
func Usagef(format string, args ...any) error {
	return &exitError{err: fmt.Errorf(format, args...), code: Usage}
}

// Refuse marks err as a refusal by policy: exit code 3. Refuse of nil is nil.
func Refuse(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{err: err, code: Refused}
}

// ExitCode returns the exit code for err. An error of another package counts as a refusal when it has a method
// Refused() bool that returns true.
func ExitCode(err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return OK
	}
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	var r interface{ Refused() bool }
	if errors.As(err, &r) && r.Refused() {
		return Refused
	}
	return Failed
}
