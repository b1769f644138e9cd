package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"mayfly/internal/command"
	"mayfly/testenv/bench"
	"mayfly/testenv/debian"
)

var benchTunnelVerb = command.Verb{
	Name:    "bench tunnel",
	Args:    "[-o table|json] [--pairs N] [--seconds N]",
	Summary: "measure our data plane against stock wireguard-go",
	Help: `Two network namespaces joined by a veth pair, a tunnel end in each, iperf3 through it; ours and wireguard-go, built from its Go
module, in alternating runs. A ratio is the median over the paired runs, and more is better for us.`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		pairs := fs.Int("pairs", bench.MinPairs, "`N` runs of each")
		seconds := fs.Int("seconds", 5, "`N` seconds a transfer")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() > 0 || (*output != "table" && *output != "json") || *pairs < bench.MinPairs || *seconds < 1 {
			return command.Usagef("bench tunnel takes -o table or -o json, --pairs of %d at least, --seconds of 1 at least", bench.MinPairs)
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		needs := slices.Concat(demoNeeds, []debian.Need{{Name: "iperf3", Package: "iperf3"}})
		if done, err := e.asRoot(ctx, c, "bench tunnel", needs, nil); done || err != nil {
			return err
		}
		defer e.giveCaches(ctx)
		report, err := bench.Tunnel(ctx, bench.TunnelOptions{Pairs: *pairs, Seconds: *seconds, Log: c.Stderr})
		if err != nil {
			return err
		}
		if *output == "json" {
			return json.NewEncoder(c.Stdout).Encode(report)
		}
		return report.WriteTable(c.Stdout)
	},
}

// sshdNeed is the peer of bench bastion.
var sshdNeed = debian.Need{Name: "sshd", Package: "openssh-server"}

var benchBastionVerb = command.Verb{
	Name:    "bench bastion",
	Args:    "[-o table|json] [--pairs N] [--only PART,…]",
	Summary: "measure our bastion against OpenSSH and a bare x/crypto server",
	Help: `Clients and a target in one network namespace, the server in another: our bastion with its policy and its audit log, Debian's sshd, and
a bare server on the library that ours uses, in alternating runs. What counts is the CPU time of the server and its children, so that the
clients' share of the machine does not matter. The parts are handshakes, forward, idle and halfopen. A ratio is the median over the paired
runs, and more is better for us.`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		pairs := fs.Int("pairs", bench.MinPairs, "`N` runs of each")
		only := fs.String("only", strings.Join(bench.BastionParts, ","), "`PARTS` to measure, separated by commas")
		profile := fs.String("profile", "", "`DIR` for a profile by perf of each server")
		if err := c.Parse(fs); err != nil {
			return err
		}
		parts := strings.Split(*only, ",")
		if fs.NArg() > 0 || (*output != "table" && *output != "json") || *pairs < bench.MinPairs ||
			slices.ContainsFunc(parts, func(p string) bool { return !slices.Contains(bench.BastionParts, p) }) {
			return command.Usagef("bench bastion takes -o table or -o json, --pairs of %d at least, --only of %s",
				bench.MinPairs, strings.Join(bench.BastionParts, ","))
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		needs := []debian.Need{{Name: "ip", Package: "iproute2"}, {Name: "ssh", Package: "openssh-client"}, sshdNeed}
		if *profile != "" {
			needs = append(needs, debian.Need{Name: "perf", Package: "linux-perf"})
		}
		if done, err := e.asRoot(ctx, c, "bench bastion", needs, nil); done || err != nil {
			return err
		}
		defer e.giveCaches(ctx)
		report, err := bench.Bastion(ctx, bench.BastionOptions{Pairs: *pairs, Only: parts, Profile: *profile, Log: c.Stderr})
		if len(report.Results) == 0 {
			return err
		}
		// What was measured is shown, though a part failed.
		if *output == "json" {
			return errors.Join(json.NewEncoder(c.Stdout).Encode(report), err)
		}
		return errors.Join(report.WriteTable(c.Stdout), err)
	},
}

var partSSHVerb = command.Verb{
	Name: "part ssh", Args: "--listen IP:PORT --host-key FILE --authorized FILE", Summary: "(started by bench) a bare x/crypto SSH server",
	Help: "Listed keys log in and may open any direct-tcpip. For measuring only: it has no policy, no log and no limits.",
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		listen := fs.String("listen", "", "`IP:PORT` to listen on")
		hostKey := fs.String("host-key", "", "host key `FILE`")
		authorized := fs.String("authorized", "", "authorized keys `FILE`")
		if err := parseRequired(c, fs, "listen", "host-key", "authorized"); err != nil {
			return err
		}
		return bench.BareServer(ctx, *listen, *hostKey, *authorized)
	},
}
