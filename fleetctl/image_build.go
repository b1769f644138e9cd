package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"mayfly/internal/command"
	"mayfly/rebuild/release"
)

var imageBuildVerb = command.Verb{
	Name:    "image build",
	Args:    "--dir DIR --lock FILE --version N [--twice] [--mirror URL]...",
	Summary: "build our programs and the image into an unsigned release",
	Help: `Builds the image's own programs from the source tree, and the image from the lock file and the package store, into
DIR/public/releases/N, with the statement that people sign (release.json) and a unified kernel image for UEFI (mayfly.efi), which holds the
trust policy in force. Nothing is fetched: Go modules have to be there, as go.sum says.

Where the policy in force has [history], it builds the commit at the source's HEAD, and only if
"fleetctl verify-history" passes; what lies beside what was committed is not built.

--twice builds everything a second time in another place, from the packages themselves and not from what the store keeps of them, and compares
bit for bit; a difference fails, and nothing is kept. Beside the parts there are a bill of materials (sbom.spdx.json) and a statement of what it was
made from (provenance.json); both are the same from every builder. With --mirror, packages that the store lacks are fetched first, as
"fleetctl image fetch" does.

Example:

  fleetctl image build --dir lab --lock image.lock --version 7 --twice`,
	Run: runImageBuild,
}

func runImageBuild(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	lockFile := fs.String("lock", "", "lock `file`")
	version := fs.Uint64("version", 0, "`number` of the release; it rises")
	twice := fs.Bool("twice", false, "build a second time elsewhere and compare bit for bit")
	packages := packagesFlag(fs)
	mirrors := mirrorFlag(fs)
	o := orderFlags(fs)
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return err
	}
	if *lockFile == "" || *version == 0 {
		return command.Usagef("--lock and --version (1 or more) are needed")
	}
	if err := o.check(); err != nil {
		return err
	}
	d := state(*dir)
	t, trustPolicy, err := d.trust()
	if err != nil {
		return err
	}
	if o.lock, err = read(*lockFile, "`fleetctl image lock` makes it"); err != nil {
		return err
	}
	if o.store, err = packageStore(*packages); err != nil {
		return err
	}
	if len(*mirrors) > 0 {
		if _, err := fetchPackages(ctx, o.lock, o.store, *mirrors); err != nil {
			return err
		}
	}
	o.version, o.twice = *version, *twice
	s, out, err := d.makeRelease(ctx, c, t, trustPolicy, o)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, p := range parts(s) {
		rows = append(rows, []string{p.file, strconv.FormatInt(p.part.Size, 10), p.part.SHA256})
	}
	if err := show(c.Stdout, *output, struct {
		Release   *release.Statement `json:"release"`
		Directory string             `json:"directory"`
		Same      bool               `json:"built_twice_the_same"`
	}{s, out, *twice}, []string{"FILE", "BYTES", "SHA-256"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(c.Stderr, "fleetctl: "+nextSteps(t, *version))
	return nil
}

// same reports the first place at which two files differ.
func same(a, b string) (err error) {
	var files [2]*os.File
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	const chunk = 1 << 20
	var bufs [2][]byte
	bufs[0], bufs[1] = make([]byte, chunk), make([]byte, chunk)
	for offset := int64(0); ; {
		n, err := io.ReadFull(files[0], bufs[0])
		m, err2 := io.ReadFull(files[1], bufs[1])
		if !bytes.Equal(bufs[0][:n], bufs[1][:m]) {
			i := 0
			for i < min(n, m) && bufs[0][i] == bufs[1][i] {
				i++
			}
			return fmt.Errorf("%s at byte %d", filepath.Base(a), offset+int64(i))
		}
		ended, ended2 := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err2, io.EOF) || errors.Is(err2, io.ErrUnexpectedEOF)
		switch {
		case ended && ended2:
			return nil
		case err != nil && !ended:
			return err
		case err2 != nil && !ended2:
			return err2
		}
		offset += int64(n)
	}
}
