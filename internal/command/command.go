// Package command is how every mayfly program looks from outside: a table of verbs, help on stdout, results on stdout, talk on
// stderr, and four exit codes. It knows nothing of what the verbs do.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"mayfly/internal/hint"
)

// Program is a command with verbs.
type Program struct {
	Name, Summary string
	Verbs         []Verb
}

// Verb is one thing a program does. Its name may hold a space: "image lock".
type Verb struct {
	Name    string
	Args    string // what follows the verb, for the usage line: "[flags] SERVER"
	Summary string // one line for the list of verbs
	Help    string // paragraphs for the verb's own help
	Run     func(ctx context.Context, c *Call) error
}

// Call is one invocation of a verb.
type Call struct {
	Args    []string // what follows the verb
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Program string

	verb Verb
	all  Program
}

// Commands is the program that was called.
func (c *Call) Commands() Program { return c.all }

// Main finds the verb, runs it, prints its error and hint, and returns the exit code. args does not hold the program's name.
func (p Program) Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := p.run(ctx, args, stdin, stdout, stderr)
	code := ExitCode(err)
	if code == OK {
		return OK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintf(stderr, "%s: error: interrupted: %v\n", p.Name, err)
		return code
	}
	fmt.Fprintf(stderr, "%s: error: %v\n", p.Name, err)
	h := hint.Of(err)
	if h == "" && code == Usage {
		h = p.usageHint(args)
	}
	if h != "" {
		fmt.Fprintf(stderr, "%s: hint: %s\n", p.Name, h)
	}
	return code
}

// usageHint is the hint of every usage error that has none of its own.
func (p Program) usageHint(args []string) string {
	if v, _, ok := p.Find(args); ok {
		return fmt.Sprintf("%s %s --help shows the flags", p.Name, v.Name)
	}
	return p.Name + " --help lists the verbs"
}

func (p Program) run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return hint.New(Usagef("no verb given"), "%s --help lists the verbs", p.Name)
	}
	switch args[0] {
	case "-h", "-help", "--help":
		return p.printHelp(stdout, "")
	case "help":
		name := strings.Join(args[1:], " ")
		if name == "version" {
			return p.version([]string{"--help"}, stdout)
		}
		if v, rest, ok := p.Find(args[1:]); ok && len(rest) == 0 {
			c := &Call{Args: []string{"--help"}, Stdin: stdin, Stdout: stdout, Stderr: stderr, Program: p.Name, verb: v, all: p}
			return v.Run(ctx, c)
		}
		return p.printHelp(stdout, name)
	case "version", "-version", "--version":
		return p.version(args[1:], stdout)
	}
	v, rest, ok := p.Find(args)
	if !ok {
		return p.unknown(args, stdout)
	}
	return v.Run(ctx, &Call{Args: rest, Stdin: stdin, Stdout: stdout, Stderr: stderr, Program: p.Name, verb: v, all: p})
}

// version is the verb that every program has.
func (p Program) version(args []string, stdout io.Writer) error {
	c := &Call{Args: args, Stdout: stdout, Program: p.Name, verb: Verb{Name: "version", Summary: versionSummary}}
	fs := c.Flags()
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return Usagef("version takes no words, got %q", fs.Arg(0))
	}
	_, err := fmt.Fprintln(stdout, versionLine(p.Name))
	return err
}

// Find returns the verb with the longest name that args begin with.
func (p Program) Find(args []string) (verb Verb, rest []string, ok bool) {
	longest := 0
	for _, v := range p.Verbs {
		words := strings.Fields(v.Name)
		if len(words) <= longest || len(words) > len(args) || strings.Join(args[:len(words)], " ") != v.Name {
			continue
		}
		verb, rest, ok, longest = v, args[len(words):], true, len(words)
	}
	return verb, rest, ok
}

// unknown answers for words that are no verb: help for a group of verbs, otherwise a usage error.
func (p Program) unknown(args []string, stdout io.Writer) error {
	group := ""
	for _, v := range p.Verbs {
		if strings.HasPrefix(v.Name, args[0]+" ") {
			group = args[0]
		}
	}
	switch {
	case group == "":
		return hint.New(Usagef("unknown verb %q", args[0]), "%s --help lists the verbs", p.Name)
	case len(args) == 1:
		return hint.New(Usagef("%q needs another word", group), "%s %s --help lists them", p.Name, group)
	case args[1] == "-h" || args[1] == "-help" || args[1] == "--help":
		return p.printHelp(stdout, group)
	}
	return hint.New(Usagef("unknown verb %q", group+" "+args[1]), "%s %s --help lists the verbs", p.Name, group)
}

// Signals returns a context that INT or TERM cancels. A second signal ends the program at once.
func Signals(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // hand the signals back, so that the next one has its usual effect
	return ctx, stop
}

// Flags returns an empty flag set named after the verb. It prints nothing by itself.
func (c *Call) Flags() *flag.FlagSet {
	fs := flag.NewFlagSet(strings.TrimSpace(c.Program+" "+c.verb.Name), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// Parse reads the call's flags, which may stand before or after other arguments ("--" ends them); the arguments are then in
// fs.Args(). -h and --help print the verb's help on stdout and return flag.ErrHelp, which Main takes for success.
func (c *Call) Parse(fs *flag.FlagSet) error {
	fs.SetOutput(io.Discard)
	var positional []string
	args := c.Args
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return errors.Join(flag.ErrHelp, c.printHelp(fs))
			}
			return Usagef("%v", err)
		}
		rest := fs.Args()
		ended := len(rest) < len(args) && args[len(args)-len(rest)-1] == "--"
		if len(rest) == 0 || ended {
			positional = append(positional, rest...)
			break
		}
		positional = append(positional, rest[0])
		args = rest[1:]
	}
	return fs.Parse(append([]string{"--"}, positional...))
}
