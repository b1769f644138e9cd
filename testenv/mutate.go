package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"mayfly/internal/command"
	"mayfly/testenv/mutate"
)

var mutateVerb = command.Verb{
	Name:    "mutate",
	Args:    "[-o table|json] [--workers N] [--passing] [NAME…]",
	Summary: "take guards out of the source, one at a time, and see that a test fails",
	Help: `Each entry of the tables in testenv/mutate names a guard (a floor, a lease, a fence, a bound, …), the text that it is, and tests that
have to fail without it. The changed file reaches the compiler by go test -overlay: nothing is written into the tree. First every test is
run as the source is, for one that fails anyway proves nothing. Exit 1 when a mutation survives, does not compile, or its guard
is not found. With names, only those. --passing leaves the first run out, after a run of all tests that passed.`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		workers := fs.Int("workers", 0, "`N` at once; as many as there are processors if it is not given")
		passing := fs.Bool("passing", false, "the tests are known to pass as the source is: do not see to it first")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if (*output != "table" && *output != "json") || *workers < 0 {
			return command.Usagef("mutate takes -o table or -o json, and no negative --workers")
		}
		all, err := mutate.Load()
		if err != nil {
			return err
		}
		for _, name := range fs.Args() {
			if !slices.ContainsFunc(all, func(m mutate.Mutation) bool { return m.Name == name }) {
				return command.Usagef("there is no mutation %q", name)
			}
		}
		if fs.NArg() > 0 {
			all = slices.DeleteFunc(all, func(m mutate.Mutation) bool { return !slices.Contains(fs.Args(), m.Name) })
		}
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		report, err := mutate.Run(ctx, mutate.Options{Root: e.module, Table: all, Workers: *workers, Passing: *passing, Log: c.Stderr})
		if err != nil {
			return err
		}
		if *output == "json" {
			return errors.Join(json.NewEncoder(c.Stdout).Encode(report), report.Bad())
		}
		return errors.Join(report.WriteTable(c.Stdout), report.Bad())
	},
}
