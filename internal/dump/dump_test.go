package dump

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestWhole(t *testing.T) {
	interrupted := fmt.Errorf("listing: %w", netlink.ErrDumpInterrupted)
	other := errors.New("no such device")
	for name, test := range map[string]struct {
		failures int
		then     error
		want     []int
		err      error
	}{
		"at once":                {want: []int{1, 2}},
		"after interruptions":    {failures: tries - 1, want: []int{1, 2}},
		"always interrupted":     {failures: tries, err: netlink.ErrDumpInterrupted},
		"another error":          {then: other, err: other},
		"another error, later":   {failures: 3, then: other, err: other},
		"one too many, then ask": {failures: tries + 1, err: netlink.ErrDumpInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			got, err := Whole(func() ([]int, error) {
				asked++
				switch {
				case asked <= test.failures:
					return []int{1}, interrupted // part of the list
				case test.then != nil:
					return nil, test.then
				}
				return []int{1, 2}, nil
			})
			if !errors.Is(err, test.err) || !slices.Equal(got, test.want) {
				t.Errorf("got %v, %v; want %v, %v", got, err, test.want, test.err)
			}
			if asked > tries {
				t.Errorf("asked %d times, at most %d", asked, tries)
			}
		})
	}
}
