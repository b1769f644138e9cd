// Package dump asks the kernel for whole lists. A list of addresses, links, routes or rules that changes while the kernel gives it
// comes marked as interrupted (NLM_F_DUMP_INTR, netlink(7)): it may lack what was there all the time.
package dump

import (
	"errors"

	"github.com/vishvananda/netlink"
)

const tries = 64 // Implementation: a list that changes under every one of so many is an error

// Whole asks again while the list is interrupted.
func Whole[T any](list func() ([]T, error)) ([]T, error) {
	var last error
	for range tries {
		got, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
		last = err
	}
	return nil, last
}
