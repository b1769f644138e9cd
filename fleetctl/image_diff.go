package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mayfly/internal/command"
	"mayfly/rebuild/image"
)

var imageDiffVerb = command.Verb{
	Name:    "image diff",
	Args:    "--dir DIR A B",
	Summary: "explain in what two releases differ, file by file",
	Help: `A and B are versions of the fleet's releases, or directories. Lock files are compared package by package, stub and root file by file (mode,
size, hash), a unified kernel image section by section. For a Go program it says what differs in toolchain, modules and settings; for other
programs which sections; for text which lines. Signatures are not looked at. Exit code 0 when all is the same, 1 when something differs.

Example:

  fleetctl image diff --dir lab 6 7`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := checkFormat(*output); err != nil {
			return err
		}
		if fs.NArg() != 2 {
			return command.Usagef("two releases are needed")
		}
		d := state(*dir)
		differences, err := image.Diff(d.releaseDir(fs.Arg(0)), d.releaseDir(fs.Arg(1)))
		if err != nil {
			return err
		}
		if *output == "json" {
			err = show(c.Stdout, *output, struct {
				Same        bool               `json:"same"`
				Differences []image.Difference `json:"differences"`
			}{len(differences) == 0, differences}, nil, nil)
		} else {
			showDifferences(c, differences)
		}
		if err == nil && len(differences) > 0 {
			err = errors.New("the releases differ")
		}
		return err
	},
}

// showDifferences writes a line for each difference, and below it what explains it.
func showDifferences(c *command.Call, differences []image.Difference) {
	if len(differences) == 0 {
		fmt.Fprintln(c.Stdout, "the same")
	}
	for _, d := range differences {
		name := d.Part
		if d.Path != "" {
			name += ": " + d.Path
		}
		line := []string{name + ": " + d.What}
		if d.Old != "" || d.New != "" {
			line = append(line, strings.Trim(d.Old+" -> "+d.New, " "))
		}
		fmt.Fprintln(c.Stdout, visible(strings.Join(line, ", ")))
		for _, detail := range d.Details {
			fmt.Fprintln(c.Stdout, "    "+visible(detail))
		}
	}
}
