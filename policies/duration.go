package policies

import (
	"errors"
	"strings"
	"time"
)

// Duration is a time.Duration written as "90s" or "24h" in TOML and JSON.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes "24h", "90s", "1h30m".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes d as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a positive or zero duration in whole seconds.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New(`a duration is written "90s", "30m" or "24h"`)
	}
	if v < 0 || v%time.Second != 0 {
		return errors.New("a duration is a number of whole seconds, not negative")
	}
	*d = Duration(v)
	return nil
}
