package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"mayfly/bastion"
	"mayfly/bastion/reconcile"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/internal/logins"
)

const reconcileHelp = `It holds the logins that servers saw against the jumps that bastions recorded. Each login needs a jump of its own: to that server, by
the same user or the same key, at most two minutes before, and by the very connection once the log knows it. One without is printed, and makes exit code 3: somebody reached that
server's sshd by another way than a bastion that writes this log, or a bastion did not write down what it did.

--logins is a file from "fleetctl logins -o json"; --journal one from "journalctl -o json" of a host, for hosts that mayfly does not
rebuild (--server is its name in the inventory, where the journal's host name is another). Both may be given several times, and --dir
too: with several bastions give each one's log. --from is an address of a bastion as servers see it; with it, a login from any other
address is unrecorded whatever the log says; where addresses are translated on the way it has to be given.

With --alert the bastion that serves with this configuration tells people (its [alerts]); it answers root and its own user.

A journal without any entry makes exit code 1, since a failed export looks the same; --may-be-empty takes it for a quiet host.

Jumps that ended in no login are listed as well, and are no alarm: an engineer may have given up. It proves nothing about the log itself:
"bastion audit verify" does.

  journalctl -o json _COMM=sshd + _COMM=sshd-session > web-1.json
  bastion audit reconcile --dir audit --journal web-1.json --since 24h`

const (
	defaultSkew = 30 * time.Second
	maxSkew     = time.Hour
)

func reconcileVerb() command.Verb {
	return command.Verb{
		Name:    "audit reconcile",
		Args:    "--dir DIR... (--logins FILE | --journal FILE [--server NAME])... [--from ADDRESS]... [--since TIME] [--skew DURATION] [--may-be-empty] [--alert FILE] [-o json]",
		Summary: "name each login on a server that the bastion did not record",
		Help:    reconcileHelp,
		Run:     reconcileLogins,
	}
}

func reconcileLogins(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	var dirs, lists, journals []string
	var sources []netip.Addr
	collect := func(name, usage string, to *[]string) {
		fs.Func(name, usage, func(s string) error {
			*to = append(*to, s)
			return nil
		})
	}
	collect("dir", "`directory` of an audit log; may be repeated", &dirs)
	collect("logins", "`file` from fleetctl logins -o json; may be repeated", &lists)
	collect("journal", "`file` from journalctl -o json; may be repeated", &journals)
	fs.Func("from", "`address` of a bastion, as servers see it; may be repeated", func(s string) error {
		a, err := netip.ParseAddr(s)
		sources = append(sources, a.Unmap())
		return err
	})
	server := fs.String("server", "", "`name` in the inventory of the journal's host (default: its host name, to the first dot)")
	since := fs.String("since", "", "`time` (2030-01-31T12:00:00Z), or duration ago (24h), from which on to look (default: all)")
	skew := fs.Duration("skew", defaultSkew, "how far the clocks of servers and bastion may differ")
	quiet := fs.Bool("may-be-empty", false, "take a journal without any entry for a quiet host, and not for an export that failed")
	tell := fs.String("alert", "", "configuration `file` of the bastion that alerts people of unrecorded logins")
	output := fs.String("o", "text", "output `form`: text or json")
	if err := c.Parse(fs); err != nil {
		return err
	}
	switch {
	case len(dirs) == 0 || len(lists)+len(journals) == 0 || fs.NArg() > 0:
		return command.Usagef("want --dir DIR, and --logins FILE or --journal FILE")
	case *server != "" && len(journals) != 1:
		return command.Usagef("--server names the host of one --journal")
	case *skew < 0 || *skew > maxSkew:
		return command.Usagef("--skew %s: want 0 to %s", *skew, maxSkew)
	case *output != "text" && *output != "json":
		return command.Usagef("-o %s: want text or json", *output)
	}
	from, err := sinceTime(*since, time.Now())
	if err != nil {
		return err
	}
	var reports []logins.Report
	for _, path := range lists {
		list, err := readLogins(path)
		if err != nil {
			return err
		}
		reports = append(reports, list...)
	}
	for _, path := range journals {
		if !*quiet {
			if err := wantEntries(path); err != nil {
				return err
			}
		}
		list, err := readJournal(path, *server)
		if err != nil {
			return err
		}
		reports = append(reports, list...)
	}
	late := reports[:0]
	for _, r := range reports {
		if !r.Time.Before(from) {
			late = append(late, r)
		}
	}
	var passages []reconcile.Passage
	for _, dir := range dirs {
		list, err := reconcile.Read(dir, from)
		if err != nil {
			return err
		}
		passages = append(passages, list...)
	}
	result := reconcile.Match(passages, late, sources, *skew)
	if err := printReconciled(c.Stdout, result, *output); err != nil {
		return err
	}
	if n := len(result.Unrecorded); n > 0 {
		var told error
		if *tell != "" {
			told = tellBastion(ctx, *tell, result.Unrecorded)
		}
		return command.Refuse(hint.New(errors.Join(told, fmt.Errorf("%d of %d logins have no jump in the audit log", n, len(late))),
			"look at the server and at the bastion before anything else; clocks that differ by more than %s give false alarms", *skew))
	}
	return nil
}

// wantEntries refuses a journal without an entry: an export that failed looks like a host that nobody ever entered.
func wantEntries(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return hint.New(fmt.Errorf("%s is empty: it says nothing about who logged in", path),
			"did journalctl -o json fail? export more of the journal; --may-be-empty is for a host on which sshd may have had nothing to say")
	}
	return nil // that there is none, its reader says
}

// tellBastion has the bastion raise the alert; that it cannot is said, and changes nothing else.
func tellBastion(ctx context.Context, path string, list []reconcile.Unrecorded) error {
	config, err := bastion.LoadConfig(path)
	if err == nil {
		err = bastion.TellLogins(ctx, config, list)
	}
	if err != nil {
		return fmt.Errorf("telling the bastion: %w", err)
	}
	return nil
}

func sinceTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, command.Usagef("--since %q: want a time like 2030-01-31T12:00:00Z, or a duration like 24h", s)
	}
	return t, nil
}

func readLogins(path string) (list []logins.Report, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, hint.New(err, "fleetctl logins -o json writes it")
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, logins.MaxList+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	l, err := logins.ParseList(data)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading %s: %w", path, err), "fleetctl logins -o json writes it")
	}
	return l.Logins, nil
}

func readJournal(path, server string) (list []logins.Report, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, hint.New(err, "journalctl -o json writes it")
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if list, err = logins.ReadJournal(f, server); err != nil {
		return nil, hint.New(fmt.Errorf("reading %s: %w", path, err), "journalctl -o json writes it")
	}
	return list, nil
}

func printReconciled(out io.Writer, r reconcile.Result, form string) error {
	if form == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "recorded logins\t%d\n", r.Matched)
	for _, u := range r.Unrecorded {
		peer := ""
		if u.Peer.IsValid() {
			peer = " from " + u.Peer.String()
		}
		fmt.Fprintf(w, "NOT RECORDED\t%s %s on %s%s, %s %s%s: %s\n", u.Time.Format(time.RFC3339), u.User, u.Server, peer, u.Method, u.Key, u.Unread, u.Why)
	}
	for _, p := range r.Unseen {
		fmt.Fprintf(w, "no login\t%s %s to %s, connection %s\n", p.Time.Format(time.RFC3339), p.User, p.Server, p.Connection)
	}
	return w.Flush()
}
