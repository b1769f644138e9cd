package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"mayfly/internal/command"
	"mayfly/testenv/bench"
)

// minRuns is the least number of runs that a median is made of.
const minRuns = 3

var benchImageVerb = command.Verb{
	Name:    "bench image",
	Args:    "[-o table|json] [--runs N]",
	Summary: "measure how long an image takes, and how large it is",
	Help: `Locks today's packages, then builds our programs and the image again and again: with inputs at hand and a warm compiler cache (build_s), and after one
program has changed (rebuild_s). image_mb is kernel, stub and root together. Figures are medians; nothing here passes or fails by one.`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		runs := fs.Int("runs", 5, "`N` runs of each")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() > 0 || (*output != "table" && *output != "json") || *runs < minRuns {
			return command.Usagef("bench image takes -o table or -o json, and --runs of %d at least", minRuns)
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		report, err := bench.Image(ctx, bench.ImageOptions{Module: e.module, Store: filepath.Join(cache, "mayfly", "packages"), Runs: *runs, Log: c.Stderr})
		if err != nil {
			return err
		}
		if *output == "json" {
			return json.NewEncoder(c.Stdout).Encode(report)
		}
		return report.WriteTable(c.Stdout)
	},
}
