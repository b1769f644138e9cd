package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"mayfly/fleetctl/deploy"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

var deployFilesVerb = command.Verb{
	Name:    "deploy-files",
	Args:    "[--to DIR] [--dir STATE] [--program FILE]",
	Summary: "write the files with which a controller is run: systemd units and timer, cron, alert rules, dashboard",
	Help: `Without --to it lists the files and where each goes. With it they are written into that directory, which is made; a file that is there and says something else
is left alone, and named. Nothing is installed or started.

Signer, serve and checkin run as users of their own, confined. Rotations begin by [rotation.schedule] of policy.toml inside ` + "`fleetctl serve`" + `, by
mayfly-rotate.timer or by cron; any two of them beside each other are safe.

Example:

  fleetctl deploy-files --to mayfly-files`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		to := fs.String("to", "", "`directory` to write them to")
		dir := fs.String("dir", deploy.StateDir, "state `directory` that they name")
		program := fs.String("program", deploy.Program, "`file` of fleetctl that they name")
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output), plainPath("dir", *dir), plainPath("program", *program)); err != nil {
			return err
		}
		files := deploy.Files(*dir, *program)
		if *to != "" {
			if err := writeFiles(*to, files); err != nil {
				return err
			}
		}
		var rows [][]string
		for _, f := range files {
			place := f.Place
			if place == "" {
				place = "-"
			}
			rows = append(rows, []string{f.Name, place, f.What})
		}
		return show(c.Stdout, *output, files, []string{"FILE", "GOES TO", "WHAT"}, rows)
	},
}

// plain is a path that means the same to a shell, to cron and to systemd.
var plain = regexp.MustCompile(`^/[A-Za-z0-9._/-]+$`)

func plainPath(flag, path string) error {
	if !plain.MatchString(path) || filepath.Clean(path) != path {
		return command.Usagef("--%s %q is no absolute path of letters, digits, dots, dashes and underscores", flag, path)
	}
	return nil
}

// writeFiles writes those that are not there, and refuses before the first if one is there and says something else.
func writeFiles(dir string, files []deploy.File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		have, err := durable.ReadRegular(path, maxFile)
		if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(have, f.Data) {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking at %s: %w", path, err)
		}
		return command.Refuse(hint.New(fmt.Errorf("%s is there, and says something else; nothing was written", path), "write them to a new directory, and compare: diff"))
	}
	for _, f := range files {
		if err := durable.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
