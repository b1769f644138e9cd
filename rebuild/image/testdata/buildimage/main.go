// Command buildimage builds an image for tests, in a process of its own: with its own environment, and without the race detector,
// under which unpacking a kernel takes a minute. It prints the result as JSON.
//
//	buildimage LOCK STORE OUT SPEC|- MODULE|- NAME=PROGRAM…
//	buildimage lock FILE STORE SPEC|- PROFILE
//
// With BUILDIMAGE_FRESH in the environment, packages are unpacked anew. With a module, the image's programs are built from it, into OUT/programs. The second form writes a lock file.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mayfly/rebuild/image"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "buildimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 5 {
		return fmt.Errorf("got %d arguments, want at least 5", len(args))
	}
	if args[0] == "lock" {
		return lock(ctx, args[1], args[2], args[3], args[4])
	}
	lockFile, store, out, module := args[0], args[1], args[2], args[4]
	lock, err := os.ReadFile(lockFile)
	if err != nil {
		return err
	}
	spec, err := readSpec(args[3])
	if err != nil {
		return err
	}
	programs := map[string]string{}
	if module != "-" {
		if programs, err = image.Programs(ctx, module, filepath.Join(out, "programs")); err != nil {
			return err
		}
	}
	for _, a := range args[5:] {
		name, path, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("argument %q is not NAME=PROGRAM", a)
		}
		programs[name] = path
	}
	result, err := spec.Build(ctx, image.Inputs{Lock: lock, Store: store, Programs: programs, Fresh: os.Getenv("BUILDIMAGE_FRESH") != ""}, out)
	if err != nil {
		return err
	}
	if len(result.EFIStub) > 0 { // which the result's JSON leaves out
		if err := os.WriteFile(filepath.Join(out, "efi.stub"), result.EFIStub, 0o644); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func lock(ctx context.Context, file, store, specFile, profile string) error {
	spec, err := readSpec(specFile)
	if err != nil {
		return err
	}
	if spec, err = spec.Profile(profile); err != nil {
		return err
	}
	data, err := image.Lock(ctx, spec, store)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

func readSpec(file string) (image.Spec, error) {
	if file == "-" {
		return image.Default(), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return image.Spec{}, err
	}
	return image.ParseSpec(file, data)
}
