package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"mayfly/bastion"
	"mayfly/internal/command"
)

func statusVerb() command.Verb {
	return command.Verb{
		Name:    "status",
		Args:    "--config FILE [-o json]",
		Summary: "show who is in, who is kept out, and how the bastion does",
		Help: `It asks the bastion that serves with this configuration, over its control socket, which answers root and the bastion's own user.

` + configHelp,
		Run: status,
	}
}

func status(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	output := fs.String("o", "text", "output `form`: text or json")
	config, err := parseConfig(c, fs)
	if err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return command.Usagef("-o %s: want text or json", *output)
	}
	s, err := bastion.AskStatus(ctx, config)
	if err != nil {
		return err
	}
	if *output == "json" {
		encoder := json.NewEncoder(c.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	}
	return printStatus(c.Stdout, s)
}

func printStatus(out io.Writer, s bastion.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	stamp := func(t time.Time) string { return t.Format(time.RFC3339) }
	row("fleet", "%s", s.Fleet)
	row("listen", "%s, for %s", s.Listen, s.At.Sub(s.Began).Round(time.Second))
	if s.DrainingUntil != nil {
		row("draining", "until %s", stamp(*s.DrainingUntil))
	}
	if s.At.Before(s.PolicyExpires) {
		row("policy", "%d, until %s", s.Policy, stamp(s.PolicyExpires))
	} else {
		row("policy", "%d EXPIRED at %s: nobody gets in", s.Policy, stamp(s.PolicyExpires))
	}
	if s.Fresh.Until == nil {
		row("witnesses", "nobody is asked whether the policy is the newest (a test fleet)")
	} else {
		row("witnesses", "%s by %s (%d needed), sessions begin until %s", s.Fresh.Outcome, strings.Join(s.Fresh.Witnesses, " "), s.Fresh.Threshold, stamp(*s.Fresh.Until))
	}
	row("level", "%s", s.Level)
	if s.At.Before(s.CertificateExpires) {
		row("certificate", "until %s", stamp(s.CertificateExpires))
	} else {
		row("certificate", "EXPIRED at %s: nobody gets in", stamp(s.CertificateExpires))
	}
	switch a := s.Audit; {
	case a.Works && a.Failed != nil:
		row("audit", "works, %d records; failed last at %s: %s", a.Records, stamp(*a.Failed), a.Error)
	case a.Works:
		row("audit", "works, %d records", a.Records)
	default:
		row("audit", "FAILS: %s", a.Error)
	}
	row("half open", "%d of %d, key exchange done: %d", s.HalfOpen.Total, s.HalfOpen.Most, s.HalfOpen.Past)
	for _, n := range s.HalfOpen.Networks {
		row("", "%s %d", n.Network, n.Count)
	}
	more(row, s.HalfOpen.More)
	row("dropped", "%d segments by the address filter", s.DroppedByFilter)
	row("sandbox", "%s: %s", s.Sandbox.Mode, strings.Join(s.Sandbox.Enforced, ", "))
	for _, m := range s.Sandbox.Missing {
		row("NOT ENFORCED", "%s", m)
	}
	if p := s.Plugins; p != nil && p.Works {
		row("plugins", "%s", strings.Join(p.Names, " "))
	} else if p != nil {
		row("plugins", "FAIL: bastion-plugins does not run, what %s decides is denied until the bastion is started again", strings.Join(p.Names, " "))
	}
	row("sessions", "%d", len(s.Sessions)+s.MoreSessions)
	for _, v := range s.Sessions {
		through := ""
		if v.Balancer != "" {
			through = " through " + v.Balancer
		}
		row("", "%s (%s) %s from %s%s since %s, %d bytes up, %d down", v.User, v.Identity, v.Key, v.Source, through, stamp(v.Since), v.Up, v.Down)
		for _, t := range v.Targets {
			row("", "  to %s:%d since %s", t.Server, t.Port, stamp(t.Since))
		}
		more(row, v.More)
	}
	more(row, s.MoreSessions)
	row("penalties", "%d", len(s.Penalties)+s.MorePenalties)
	for _, p := range s.Penalties {
		row("", "%s until %s: %s, %d failures", p.Network, stamp(p.Until), p.Why, p.Failures)
	}
	more(row, s.MorePenalties)
	row("refused", "%d kinds in this minute", len(s.Refused)+s.MoreRefused)
	for _, r := range s.Refused {
		row("", "%s %s %d", r.Reason, r.Network, r.Count)
	}
	more(row, s.MoreRefused)
	return w.Flush()
}

func more(row func(name, format string, args ...any), n int) {
	if n > 0 {
		row("", "and %d more", n)
	}
}
