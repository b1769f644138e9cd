package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mayfly/internal/command"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

var imageSBOMVerb = command.Verb{
	Name:    "image sbom",
	Args:    "--dir DIR --release DIR|VERSION [--spdx|--provenance]",
	Summary: "list what is in a release, after checking the list against it",
	Help: `Makes the release's software bill of materials again from the release's own files (lock file, root, stub and the programs in them), which have to be those that
release.json names, compares it with sbom.spdx.json, and lists packages, programs and modules. --spdx writes the document itself (SPDX 2.3), --provenance the in-toto
statement beside it, which is compared, too. Exit code 3 when one is not of this release. Who signed release.json "fleetctl image verify" says.

Example:

  fleetctl image sbom --dir lab --release 7`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		name := fs.String("release", "", "`directory` of the release, or its version")
		spdx := fs.Bool("spdx", false, "write the document itself")
		provenance := fs.Bool("provenance", false, "write the statement of how it was made")
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		if *name == "" || *spdx && *provenance {
			return command.Usagef("--release is needed, and one of --spdx and --provenance at most")
		}
		where := state(*dir).releaseDir(*name)
		path := filepath.Join(where, release.StatementFile)
		data, err := read(path, "`fleetctl image build` makes a release")
		if err != nil {
			return err
		}
		s, err := release.Parse(data)
		if err != nil {
			return command.Refuse(fmt.Errorf("%s: %w", path, err))
		}
		opened, err := image.OpenRelease(where, s)
		if err != nil {
			return command.Refuse(&release.Refusal{Reason: release.PartAltered, Err: err})
		}
		list, err := opened.SBOM()
		if err != nil {
			return command.Refuse(&release.Refusal{Reason: sbomDiffers, Err: err})
		}
		if *provenance {
			if _, err := opened.Provenance(); err != nil {
				return command.Refuse(&release.Refusal{Reason: provenanceDiffers, Err: err})
			}
		}
		if *spdx || *provenance {
			file := release.SBOMFile
			if *provenance {
				file = release.ProvenanceFile
			}
			data, err := os.ReadFile(filepath.Join(where, file))
			if err != nil {
				return err
			}
			_, err = c.Stdout.Write(data)
			return err
		}
		rows := [][]string{}
		for _, kind := range []struct {
			name string
			list []image.Component
		}{{"package", list.Packages}, {"program", list.Programs}, {"module", list.Modules}} {
			for _, x := range kind.list {
				rows = append(rows, []string{kind.name, x.Name, x.Version})
			}
		}
		fmt.Fprintf(c.Stderr, "fleetctl: %s is what the release's files give; %d files in root and stub\n", release.SBOMFile, list.Files)
		return show(c.Stdout, *output, list, []string{"KIND", "NAME", "VERSION"}, rows)
	},
}
