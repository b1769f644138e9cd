package main

import (
	"context"
	"encoding/json"
	"slices"

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
		if done, err := e.asRoot(ctx, c, "bench tunnel", needs); done || err != nil {
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
