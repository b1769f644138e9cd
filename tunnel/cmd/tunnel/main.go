// Command tunnel is mayfly's VPN: the server's side, the user's side, and a file for stock WireGuard tools.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"mayfly/internal/command"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := command.Signals(context.Background())
	defer stop()
	return program.Main(ctx, args, stdin, stdout, stderr)
}

var program = command.Program{
	Name:    "tunnel",
	Summary: "the VPN of a mayfly fleet",
	Verbs:   []command.Verb{serverVerb, resolverVerb, clientVerb, registerVerb, deviceVerb},
}

// talk is the programs' log: lines on stderr, without the time, which the reader of the lines knows.
func talk(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// prefixes is a flag that may be given several times, or once with commas.
type prefixes []netip.Prefix

func (p *prefixes) String() string {
	var s []string
	for _, one := range *p {
		s = append(s, one.String())
	}
	return strings.Join(s, ",")
}

func (p *prefixes) Set(value string) error {
	for one := range strings.SplitSeq(value, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(one))
		if err != nil {
			return errors.New("want a prefix like 203.0.113.0/24")
		}
		if prefix != prefix.Masked() {
			return fmt.Errorf("%s has host bits set: write %s", prefix, prefix.Masked())
		}
		*p = append(*p, prefix)
	}
	return nil
}

// noArguments refuses words that a verb does not take.
func noArguments(rest []string) error {
	if len(rest) > 0 {
		return command.Usagef("unexpected argument %q", rest[0])
	}
	return nil
}
