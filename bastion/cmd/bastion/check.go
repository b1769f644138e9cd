package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"mayfly/bastion"
	"mayfly/internal/account"
	"mayfly/internal/command"
)

const checkHelp = `It loads what "bastion serve" would load, refuses what it would refuse, and prints what would be offered, who may
connect from where, and which hosts can be reached by whom. It changes nothing. Where root types it and the host key is another
user's, the service's, it looks with that user's eyes.

` + configHelp

func checkVerb() command.Verb {
	return command.Verb{
		Name:    "check",
		Args:    "--config FILE [-o json]",
		Summary: "show what would be served, without serving it",
		Help:    checkHelp,
		Run:     check,
	}
}

func check(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	output := fs.String("o", "text", "output `form`: text or json")
	config, err := parseConfig(c, fs)
	if err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return command.Usagef("-o %s: want text or json", *output)
	}
	// What root may read says nothing of what the service may. Others find out by reading.
	if os.Geteuid() == 0 {
		changed, err := account.ActAsOwner(config.HostKey)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if changed {
			fmt.Fprintf(c.Stderr, "bastion: looking as %s, whose host key it is\n", account.Name(os.Geteuid()))
		}
	}
	report, err := bastion.Check(config, time.Now())
	if err != nil {
		return err
	}
	if *output == "json" {
		encoder := json.NewEncoder(c.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return print(c.Stdout, report)
}

// parseConfig parses the verb's flags, --config among them, and loads the file.
func parseConfig(c *command.Call, fs *flag.FlagSet) (bastion.Config, error) {
	path := fs.String("config", "", "configuration `file`")
	if err := c.Parse(fs); err != nil {
		return bastion.Config{}, err
	}
	if *path == "" || fs.NArg() > 0 {
		return bastion.Config{}, command.Usagef("want --config FILE and nothing else")
	}
	return bastion.LoadConfig(*path)
}

func print(out io.Writer, r bastion.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	fleet := r.Fleet
	if r.Test {
		fleet += " (test: software keys can be enrolled)"
	}
	row("fleet", "%s", fleet)
	row("listen", "%s", r.Listen)
	row("policy", "%d, until %s", r.Policy, r.Expires.Format(time.RFC3339))
	if r.Witness.Threshold == 0 {
		row("witnesses", "nobody is asked whether the policy is the newest (witness_threshold is 0, in a test fleet)")
	} else {
		row("witnesses", "%s confirm the policy (%d needed), again every minute; without, sessions begin for %s",
			strings.Join(r.Witness.Confirmed, " "), r.Witness.Threshold, r.Witness.Grace)
	}
	row("level", "%s", r.Level)
	for _, o := range r.Offered {
		row(strings.ReplaceAll(o.Use, "_", " "), "%s: %s", o.Name, o.Why)
	}
	row("software keys", "%s (offered so that they can be refused by name; robots may have one)", strings.Join(r.Software, " "))
	for _, k := range r.Rejected {
		row("KEY REJECTED", "%s %s of %s: %s", k.Reason, k.Fingerprint, k.Name, k.Detail)
	}
	for _, l := range r.LockedOut {
		row("LOCKED OUT", "%s %s: no %s", l.Client, l.Versions, l.Lacks)
	}
	if r.Certificates.Verify {
		row("user verification", "required: only keys whose evidence proves that they ask for a PIN or biometry")
	}
	if len(r.Certificates.Authorities) == 0 {
		row("user certificates", "none: no authority is listed")
	} else {
		row("user certificates", "by %s, valid for %s at most", strings.Join(r.Certificates.Authorities, " "), r.Certificates.MaxLife)
	}
	if r.Certificates.Made != "" {
		row("revocations", "list %d, made %s", r.Certificates.Revoked, r.Certificates.Made)
	}
	row("certificate", "%s, until %s", strings.Join(r.HostNames, " "), r.HostExpires.Format(time.RFC3339))
	row("", "signed by %s: the CA of engineers' known_hosts has to be this one", r.HostCA)
	row("sandbox", "%s: %s", r.Sandbox.Mode, strings.Join(r.Sandbox.Enforced, ", "))
	for _, m := range r.Sandbox.Missing {
		row("NOT ENFORCED", "%s", m)
	}
	for _, n := range r.Sandbox.Notes {
		row("note", "%s", n)
	}
	if len(r.Proxies) > 0 {
		row("balancers", "%s (with a PROXY protocol v2 header)", prefixes(r.Proxies))
	}
	if r.Session.On {
		row("SESSION MODE", "WHOEVER TAKES OVER THIS BASTION OPENS THESE SERVERS: %s", strings.Join(r.Session.Grants, ", "))
		row("", "its authority is %s; recordings are for %s", r.Session.Authority, strings.Join(r.Session.Recipients, " "))
	} else {
		row("session mode", "off: %s; this bastion holds no key that opens a server", r.Session.Why)
	}
	row("addresses", "%s (%d filter instructions)", prefixes(r.Allow), r.Filter)
	for _, e := range r.Engineers {
		narrowed := ""
		if len(e.Allow) > 0 {
			narrowed = ", only from " + prefixes(e.Allow)
		}
		row("engineer", "%s, keys: %d%s", e.Name, e.Keys, narrowed)
	}
	for _, o := range r.Outside {
		what := "NEVER FROM"
		if o.Out {
			what = "LOCKED OUT"
		}
		row(what, "%s: %s is outside ssh.allow", o.User, o.Prefix)
	}
	for _, b := range r.Robots {
		row("robot", "%s, only from %s, to %s, commands: %d", b.Name, b.Source.Addr(), strings.Join(b.Servers, " "), b.Commands)
	}
	for _, h := range r.Hosts {
		row("host", "%s %s %s", h.Name, h.Address, strings.Join(h.Grants, " "))
	}
	return w.Flush()
}

func prefixes(list []netip.Prefix) string {
	var text []string
	for _, p := range list {
		text = append(text, p.String())
	}
	return strings.Join(text, " ")
}
