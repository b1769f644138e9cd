package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

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
			cells := make([]string, len(row))
			for i, cell := range row {
				cells[i] = visible(cell)
			}
			fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
		}
		return t.Flush()
	}
	return checkFormat(format)
}

// visible is text of others on one line of a terminal or of paper: what is not printable, as Go escapes it.
func visible(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			quoted := strconv.QuoteToASCII(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}

// shortened is an error about a file of somebody else's, which may repeat of it whatever it likes.
func shortened(err error) string {
	const most = 300
	text := visible(err.Error())
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
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
