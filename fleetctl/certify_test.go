package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/hint"
	"mayfly/rebuild/join"
)

func TestCertifyWaitsForItsSigner(t *testing.T) {
	absent := fmt.Errorf("asking: %w", fs.ErrNotExist)
	refused := join.Refuse(join.BundleMissing, "bundle_expired")
	for _, test := range []struct {
		name    string
		limit   time.Duration
		answers []error // the last one for ever
		want    error
		asked   int
	}{
		{"there at once", 0, []error{nil}, nil, 1},
		{"nobody waits", 0, []error{absent, nil}, absent, 1},
		{"there soon", time.Second, []error{absent, absent, nil}, nil, 3},
		{"never there", time.Second, []error{absent}, absent, 5},
		{"a refusal is final", time.Second, []error{refused, nil}, refused, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				_, err := certifyWithin(t.Context(), test.limit, func(context.Context) (time.Time, error) {
					answer := test.answers[min(asked, len(test.answers)-1)]
					asked++
					return time.Time{}, answer
				})
				if !errors.Is(err, test.want) || asked != test.asked {
					t.Errorf("got %v after %d questions, want %v after %d", err, asked, test.want, test.asked)
				}
			})
		})
	}
}

// TestSignerRefusalsHaveMends: who is refused by a timer's unit at night reads what to do about it.
func TestSignerRefusalsHaveMends(t *testing.T) {
	for _, reason := range []string{join.ControllerFailed, join.BundleMissing} {
		err := needsSigner(fmt.Errorf("certifying gate: %w", join.Refuse(reason, "x")))
		if hint.Of(err) == "" {
			t.Errorf("%s: got no hint", reason)
		}
	}
}
