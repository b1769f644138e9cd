package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/command"
)

const (
	followEvery = 500 * time.Millisecond
	maxTail     = 1 << 20 // records
)

func auditTail(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := fs.String("dir", "", "the log's `directory`")
	n := fs.Int("n", 10, "`number` of records")
	event := fs.String("event", "", "only records of this `event`")
	refused := fs.Bool("refused", false, "what strangers caused, which is not in the log, instead")
	follow := fs.Bool("follow", false, "go on with what is written from now on")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if *dir == "" || fs.NArg() > 0 || *n < 0 || *n > maxTail {
		return command.Usagef("want --dir DIR, and a number of at most %d", maxTail)
	}
	if *refused && *follow {
		return command.Usagef("--refused and --follow do not go together")
	}
	var last [][]byte
	keep := func(line []byte) error {
		last = append(last, line)
		if len(last) > 2*(*n) { // not at each record: that would move all of them each time
			last = append(last[:0], last[len(last)-*n:]...)
		}
		return nil
	}
	var next uint64
	var err error
	if *refused {
		err = readRefused(*dir, *event, keep)
	} else {
		next, err = readEvent(*dir, 0, *event, keep)
	}
	if err != nil {
		return err
	}
	if len(last) == 0 && *event != "" {
		fmt.Fprintf(c.Stderr, "bastion: note: no record is a %q\n", *event)
	}
	w := bufio.NewWriter(c.Stdout)
	for _, line := range last[max(0, len(last)-*n):] {
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil || !*follow {
		return err
	}
	return followLog(ctx, c.Stdout, *dir, *event, next)
}

// readRefused hands out what strangers caused, as lines.
func readRefused(dir, event string, yield func(line []byte) error) error {
	return audit.ReadRefused(dir, func(text []byte) error {
		if e, err := audit.ParseEntry(text); err != nil || event != "" && e.Event != event {
			return err
		}
		return yield(fmt.Appendf(nil, "%s\n", text))
	})
}

func followLog(ctx context.Context, out io.Writer, dir, event string, next uint64) error {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var err error
		if next, err = readEvent(dir, next, event, func(line []byte) error { _, err := out.Write(line); return err }); err != nil {
			return err
		}
	}
}

// readEvent hands out the records of an event, or all of them, as lines with their numbers.
func readEvent(dir string, from uint64, event string, yield func(line []byte) error) (next uint64, err error) {
	return audit.Read(dir, from, func(index uint64, text []byte) error {
		e, err := audit.ParseEntry(text)
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		if event != "" && e.Event != event {
			return nil
		}
		return yield(fmt.Appendf(nil, "{\"index\":%d,%s\n", index, text[1:]))
	})
}
