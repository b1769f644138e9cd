package command

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

const versionSummary = "print the version"

// printHelp writes the program's help, or that of the verbs whose name begins with the word group.
func (p Program) printHelp(w io.Writer, group string) error {
	verbs := p.Verbs
	if group != "" {
		verbs = slices.DeleteFunc(slices.Clone(verbs), func(v Verb) bool { return !strings.HasPrefix(v.Name, group+" ") })
		if len(verbs) == 0 {
			return Usagef("unknown verb %q", group)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nUsage:\n\n", p.Name, p.Summary)
	width := len("version")
	for _, v := range verbs {
		width = max(width, len(v.Name))
	}
	for _, v := range verbs {
		fmt.Fprintf(&b, "  %s %-*s  %s\n", p.Name, width, v.Name, v.Summary)
	}
	if group == "" {
		fmt.Fprintf(&b, "  %s %-*s  %s\n", p.Name, width, "version", versionSummary)
		fmt.Fprintf(&b, "\n%s VERB --help says more about a verb.\n", p.Name)
		fmt.Fprintf(&b, "Exit codes: 0 done, 1 failed, 2 usage, 3 refused by policy.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printHelp writes the verb's help and flags on the call's stdout.
func (c *Call) printHelp(fs *flag.FlagSet) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n", strings.TrimSpace(fs.Name()+" "+c.verb.Args))
	if c.verb.Summary != "" {
		fmt.Fprintf(&b, "\n%s\n", c.verb.Summary)
	}
	if h := strings.TrimSpace(c.verb.Help); h != "" {
		fmt.Fprintf(&b, "\n%s\n", h)
	}
	flags := 0
	fs.VisitAll(func(*flag.Flag) { flags++ })
	if flags > 0 {
		b.WriteString("\nFlags:\n\n")
		fs.SetOutput(&b)
		fs.PrintDefaults()
		fs.SetOutput(io.Discard)
	}
	_, err := io.WriteString(c.Stdout, b.String())
	return err
}

// versionLine is the program's name, its module version, the commit it was built from where the build knows it, and Go's version.
func versionLine(name string) string {
	version, revision := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		modified := ""
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					modified = "+modified"
				}
			}
		}
		if revision != "" {
			revision = " " + revision[:min(12, len(revision))] + modified
		}
	}
	return fmt.Sprintf("%s %s%s %s", name, version, revision, runtime.Version())
}
