package bastion

import (
	"fmt"
	"io"
	"log/slog"
)

// Log is the form of what the process says on stderr.
type Log string

// What bastion.toml can say of it.
const (
	LogText Log = "text"
	LogJSON Log = "json"
)

func (l Log) check() error {
	switch l {
	case "", LogText, LogJSON:
		return nil
	}
	return fmt.Errorf("log %q: want text or json", string(l))
}

// Logger writes in this form. Secrets are never given to it: what the bastion knows of keys are fingerprints.
func (l Log) Logger(w io.Writer) *slog.Logger {
	if l == LogJSON {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}
