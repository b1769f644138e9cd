package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/rebuild/image"
)

// ImageOptions says how to measure the making of images.
type ImageOptions struct {
	Module string // mayfly's source tree
	Store  string // of packages
	Runs   int
	Log    io.Writer
}

// changedProgram is the one that is changed before each measurement of rebuild_s: the largest.
const changedProgram = "bastion/cmd/bastion"

// Image measures how long an image takes, from sources and packages to all files of it: with inputs at hand and a warm compiler cache
// (build_s), and after one program has changed (rebuild_s); and how large it is (image_mb: kernel, stub and root).
func Image(ctx context.Context, o ImageOptions) (report Report, err error) {
	report.Bench = "image"
	dir, err := os.MkdirTemp("", "mayfly-bench-image-")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	source := filepath.Join(dir, "source")
	if err := copySource(o.Module, source); err != nil {
		return report, err
	}
	lock, err := image.Lock(ctx, image.Default(), o.Store)
	if err != nil {
		return report, err
	}
	var size float64
	build := func(name string) (float64, error) {
		out := filepath.Join(dir, name)
		defer os.RemoveAll(out)
		began := time.Now()
		programs, err := image.Programs(ctx, source, filepath.Join(out, "programs"))
		if err != nil {
			return 0, err
		}
		r, err := image.Build(ctx, image.Inputs{Lock: lock, Store: o.Store, Programs: programs}, out)
		if err != nil {
			return 0, err
		}
		seconds := time.Since(began).Seconds()
		size = float64(r.Kernel.Size+r.Stub.Size+r.Root.Size) / 1e6
		fmt.Fprintf(o.Log, "%s: %.2f s\n", name, seconds)
		return seconds, nil
	}
	if _, err := build("warm"); err != nil {
		return report, err
	}
	var whole, again []float64
	for i := range o.Runs {
		s, err := build(fmt.Sprintf("build %d", i+1))
		if err != nil {
			return report, err
		}
		whole = append(whole, s)
		text := fmt.Sprintf("package main\n\nimport \"os\"\n\nfunc init() {\n\tif len(os.Args) > 1<<20 {\n\t\tprintln(\"run %d of %d\")\n\t}\n}\n", i, time.Now().UnixNano())
		if err := os.WriteFile(filepath.Join(source, changedProgram, "zz_bench.go"), []byte(text), 0o600); err != nil {
			return report, err
		}
		if s, err = build(fmt.Sprintf("rebuild %d", i+1)); err != nil {
			return report, err
		}
		again = append(again, s)
	}
	report.Results = []Result{{Name: "build_s", Unit: "s", Ours: median(whole)}, {Name: "rebuild_s", Unit: "s", Ours: median(again)}, {Name: "image_mb", Unit: "MB", Ours: size}}
	return report, nil
}

// copySource copies a source tree without what hides.
func copySource(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, name)
		switch {
		case name != "." && strings.HasPrefix(d.Name(), ".") && d.IsDir():
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(at, 0o755)
		case strings.HasPrefix(d.Name(), ".") || !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(at, data, 0o644)
	})
}
