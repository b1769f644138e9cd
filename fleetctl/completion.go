package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/policies/bundle"
)

var completionVerb = command.Verb{
	Name:    "completion",
	Args:    "bash|zsh|fish",
	Summary: "print a script that completes verbs, flags and names in a shell",
	Help: `Prints a script for the shell. It asks ` + "`fleetctl completion words`" + ` for what may follow: verbs, a verb's flags, and the names of servers,
regions, racks and states from the bundle in --dir (or the current directory). Names are read without checking signatures: they are
offered, never acted on.

Example:

  source <(fleetctl completion bash)
  fleetctl completion zsh > "${fpath[1]}/_fleetctl"
  fleetctl completion fish > ~/.config/fish/completions/fleetctl.fish`,
	Run: func(ctx context.Context, c *command.Call) error {
		if len(c.Args) > 0 && c.Args[0] == "words" { // what the scripts call: the words so far, the last one unfinished
			for _, w := range complete(ctx, c.Commands(), c.Args[1:]) {
				fmt.Fprintln(c.Stdout, w)
			}
			return nil
		}
		fs := c.Flags()
		if err := c.Parse(fs); err != nil {
			return err
		}
		shell, err := oneArgument(fs, "bash, zsh or fish")
		if err != nil {
			return err
		}
		script, ok := completionScripts[shell]
		if !ok {
			return command.Usagef("%q: it is bash, zsh or fish", shell)
		}
		_, err = io.WriteString(c.Stdout, script)
		return err
	},
}

var completionScripts = map[string]string{
	"bash": `_fleetctl() {
	local IFS=$'\n'
	COMPREPLY=($(compgen -W "$(fleetctl completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _fleetctl fleetctl
`,
	"zsh": `#compdef fleetctl
_fleetctl() {
	local -a found
	found=("${(@f)$(fleetctl completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	compadd -a found || _files
}
compdef _fleetctl fleetctl
`,
	"fish": `function __fleetctl_words
	set -l typed (commandline -opc) (commandline -ct)
	fleetctl completion words -- $typed[2..-1] 2>/dev/null
end
complete -c fleetctl -f -a '(__fleetctl_words)'
`,
}

// takeServers are verbs whose words are servers.
var takeServers = []string{"status", "rotate", "plan", "drain", "diff", "certify", "logins"}

// flagNames says what the value of a flag is a name of.
var flagNames = map[string]func(inventory.Fleet) []string{
	"region": func(f inventory.Fleet) []string {
		return namesOf(f.Regions, func(r inventory.Region) string { return r.Name })
	},
	"rack": func(f inventory.Fleet) []string {
		return namesOf(f.Racks, func(r inventory.Rack) string { return r.Name })
	},
	"lost":    serverNames,
	"explain": serverNames,
	"server":  serverNames,
	"state": func(inventory.Fleet) []string {
		return namesOf(inventory.States, func(s inventory.State) string { return string(s) })
	},
	"role": func(inventory.Fleet) []string {
		return []string{inventory.RoleVPN, inventory.RoleBastion, inventory.RoleController}
	},
	"o": func(inventory.Fleet) []string { return []string{"table", "json"} },
}

func serverNames(f inventory.Fleet) []string {
	return namesOf(f.Servers, func(s inventory.Server) string { return s.Name })
}

func namesOf[T any](list []T, name func(T) string) []string {
	var all []string
	for _, x := range list {
		all = append(all, name(x))
	}
	return all
}

// complete returns what may stand where the last of words does.
func complete(ctx context.Context, program command.Program, words []string) []string {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	typed, last := words[:len(words)-1], words[len(words)-1]
	verb, rest, ok := program.Find(typed)
	var all []string
	switch {
	case !ok:
		all = verbWords(program, typed)
	case len(rest) > 0 && strings.HasPrefix(rest[len(rest)-1], "-") && flagNames[flagName(rest[len(rest)-1])] != nil:
		all = flagNames[flagName(rest[len(rest)-1])](offered(rest))
	case strings.HasPrefix(last, "-"):
		all = verbFlags(ctx, program, verb)
	default:
		all = verbWords(program, typed) // "image" is followed by more verbs
		if slices.Contains(takeServers, verb.Name) {
			all = append(all, serverNames(offered(rest))...)
		}
	}
	all = slices.DeleteFunc(all, func(w string) bool { return !strings.HasPrefix(w, last) })
	slices.Sort(all)
	return slices.Compact(all)
}

func flagName(word string) string { return strings.TrimLeft(word, "-") }

// verbWords are the next words of verbs that begin with those that are typed.
func verbWords(program command.Program, typed []string) []string {
	var all []string
	for _, v := range program.Verbs {
		w := strings.Fields(v.Name)
		if len(w) > len(typed) && slices.Equal(w[:len(typed)], typed) {
			all = append(all, w[len(typed)])
		}
	}
	return all
}

var flagLine = regexp.MustCompile(`(?m)^  -([a-z][a-z0-9-]*)`)

// verbFlags are the flags that the verb's own help names.
func verbFlags(ctx context.Context, program command.Program, v command.Verb) []string {
	var help bytes.Buffer
	program.Main(ctx, append(strings.Fields(v.Name), "--help"), strings.NewReader(""), &help, io.Discard)
	all := []string{"--help"}
	for _, m := range flagLine.FindAllStringSubmatch(help.String(), -1) {
		if len(m[1]) == 1 {
			all = append(all, "-"+m[1])
		} else {
			all = append(all, "--"+m[1])
		}
	}
	return all
}

// offered is the inventory whose names are offered; empty where there is none to be read.
func offered(words []string) inventory.Fleet {
	d := state(".")
	for i, w := range words {
		if flagName(w) == "dir" && i+1 < len(words) {
			d = state(words[i+1])
		} else if v, ok := strings.CutPrefix(flagName(w), "dir="); ok {
			d = state(v)
		}
	}
	var b bundle.Bundle
	if data, err := read(d.bundleFile(), ""); err == nil && json.Unmarshal(data, &b) == nil {
		return b.Inventory
	}
	f, err := d.fleet()
	if err != nil {
		return inventory.Fleet{}
	}
	return f
}
