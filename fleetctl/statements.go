package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
	"mayfly/policies/statement"
	"mayfly/policies/trust"
)

func (d state) statements() string { return d.path("statements") }

// outFlag adds --out, the directory of statements.
func outFlag(fs *flag.FlagSet) *string {
	return fs.String("out", "", "`directory` of statements, which the bastion reads (default: statements in --dir)")
}

func (d state) out(asked string) string {
	if asked != "" {
		return asked
	}
	return d.statements()
}

// manyFlag adds a flag that may be repeated.
func manyFlag(fs *flag.FlagSet, name, usage string) *[]string {
	var list []string
	fs.Func(name, usage, func(s string) error {
		list = append(list, s)
		return nil
	})
	return &list
}

// portFlags adds --port, which may be repeated.
func portFlags(fs *flag.FlagSet) *[]uint16 {
	var list []uint16
	fs.Func("port", "`port` on the server; may be repeated (default 22)", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return errors.New("a port is 1 to 65535")
		}
		list = append(list, uint16(n))
		return nil
	})
	return &list
}

// span checks how long something is to be in force.
func span(d, most time.Duration) error {
	if d < time.Second || d > most || d%time.Second != 0 {
		return command.Usagef("--for %s: it is 1s to %s, in whole seconds", d, most)
	}
	return nil
}

// decides opens the signed policy that verbs about statements go by.
func (d state) decides(ctx context.Context, now time.Time) (*trust.Trust, *bundle.Bundle, error) {
	t, _, err := d.trust()
	if err != nil {
		return nil, nil, err
	}
	seen, err := d.policySeen(ctx)
	if err != nil {
		return nil, nil, err
	}
	b, err := d.bundle(t, seen, now)
	return t, b, err
}

// writeStatement writes a statement that is complete: its signature first, so that nobody reads it without.
func writeStatement(path string, data, sigs []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the directory of statements: %w", err)
	}
	if err := durable.WriteFile(signatures(path), sigs, 0o644); err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o644)
}

// found is a statement file as it lies there.
type found struct {
	path   string
	data   []byte
	opened statement.Opened // Statement is nil if it cannot be read
	err    error            // why it does not count, if it does not
}

// maxFound bounds how many files of a directory are read.
const maxFound = 4096

// readStatements reads a directory of statements, by name. One that is not there is empty.
func readStatements(t *trust.Trust, dir string, now time.Time) ([]found, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading statements: %w", err)
	}
	var list []found
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if len(list) == maxFound {
			return nil, hint.New(fmt.Errorf("reading statements: %s holds more than %d", dir, maxFound), "remove those that are over")
		}
		f := found{path: filepath.Join(dir, e.Name())}
		var sigs []byte
		if f.data, f.err = readBounded(f.path, "", statement.MaxSize); f.err == nil {
			if sigs, f.err = readSignatures(f.path); f.err == nil {
				if f.opened, f.err = statement.Open(t, f.data, sigs, now); f.opened.Statement == nil {
					f.opened.Statement, _ = statement.Parse(f.data) // for who reads the list; it counts for nothing
				}
			}
		}
		list = append(list, f)
	}
	return list, nil
}

// word is why a statement does not count, as one word.
func word(err error) string {
	var refused *statement.Refusal
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return "unreadable"
}

// listing is what a verb that lists statements goes by.
type listing struct {
	trust  *trust.Trust
	bundle *bundle.Bundle // in force
	files  []found
	now    time.Time
	form   string // of the output
}

// listStatements parses the flags of such a verb, and reads the directory as the bastion does. It changes nothing.
func listStatements(ctx context.Context, c *command.Call) (l listing, err error) {
	fs := c.Flags()
	dir, out, output := dirFlag(fs), outFlag(fs), outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return l, err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return l, err
	}
	d := state(*dir)
	l.form, l.now = *output, time.Now()
	if l.trust, l.bundle, err = d.decides(ctx, l.now); err != nil {
		return l, err
	}
	l.files, err = readStatements(l.trust, d.out(*out), l.now)
	return l, err
}
