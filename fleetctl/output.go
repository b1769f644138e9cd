package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"mayfly/internal/command"
)

// outputFlag adds -o, which chooses between a table and JSON.
func outputFlag(fs *flag.FlagSet) *string {
	return fs.String("o", "table", "`format` of the result: table or json")
}

// show writes v as JSON, or rows as a table.
func show(w io.Writer, format string, v any, header []string, rows [][]string) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case "table":
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{header}, rows...) {
			fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
		}
		return t.Flush()
	}
	return checkFormat(format)
}

// checkFormat refuses an unknown format before any work is done.
func checkFormat(format string) error {
	if format != "table" && format != "json" {
		return command.Usagef("-o %q: it is table or json", format)
	}
	return nil
}

// noArguments refuses words that a verb does not take.
func noArguments(fs *flag.FlagSet) error {
	if fs.NArg() > 0 {
		return command.Usagef("%q is one word too many", fs.Arg(0))
	}
	return nil
}

// oneArgument is the one word that a verb takes.
func oneArgument(flags *flag.FlagSet, what string) (string, error) {
	if flags.NArg() != 1 {
		return "", command.Usagef("one word is needed: %s", what)
	}
	return flags.Arg(0), nil
}

func dirFlag(fs *flag.FlagSet) *string {
	return fs.String("dir", ".", "state `directory` of the fleet")
}

// logger writes a service's log to stderr.
func logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func packagesFlag(fs *flag.FlagSet) *string {
	return fs.String("packages", "", "`directory` of downloaded packages (default: mayfly/packages in the user's cache)")
}
