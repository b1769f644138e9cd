package main

import (
	"context"
	"errors"
	"flag"

	"mayfly/internal/command"
	"mayfly/rebuild/image"
)

var imageFetchVerb = command.Verb{
	Name:    "image fetch",
	Args:    "--lock FILE --mirror URL... [--packages DIR]",
	Summary: "bring the packages of a lock file into the store, from mirrors",
	Help: `Looks for each package of the lock file that the package store lacks on each mirror in turn, as URL/SHA256.deb (a store that somebody
serves) and under its path in Debian's pool (a mirror or a snapshot of the archive). A package counts by its SHA-256 alone, so a mirror has not to be
trusted; one that gives something else, stalls or breaks off is not asked again. Neither apt nor Debian is needed.

Example:

  fleetctl image fetch --lock image.lock --mirror http://mirror.example/debian`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		lockFile := fs.String("lock", "", "lock `file`")
		mirrors := mirrorFlag(fs)
		packages := packagesFlag(fs)
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		if *lockFile == "" || len(*mirrors) == 0 {
			return command.Usagef("--lock and --mirror are needed")
		}
		lock, err := read(*lockFile, "`fleetctl image lock` makes it")
		if err != nil {
			return err
		}
		store, err := packageStore(*packages)
		if err != nil {
			return err
		}
		got, err := fetchPackages(ctx, lock, store, *mirrors)
		if err != nil {
			return err
		}
		rows := [][]string{}
		for _, name := range got {
			rows = append(rows, []string{name})
		}
		return show(c.Stdout, *output, struct {
			Fetched []string `json:"fetched"`
		}{append([]string{}, got...)}, []string{"FETCHED"}, rows)
	},
}

func mirrorFlag(fs *flag.FlagSet) *[]string {
	return manyFlag(fs, "mirror", "`URL` of a mirror of Debian's archive, or of a store that somebody serves; may be repeated")
}

// fetchPackages brings what the store lacks.
func fetchPackages(ctx context.Context, lock []byte, store string, addresses []string) ([]string, error) {
	if len(addresses) > image.MaxMirrors {
		return nil, command.Usagef("at most %d mirrors", image.MaxMirrors)
	}
	var mirrors []image.Mirror
	for _, address := range addresses {
		m, err := image.ParseMirror(address)
		if err != nil {
			return nil, err
		}
		mirrors = append(mirrors, m)
	}
	return image.Fetch(ctx, lock, store, mirrors)
}
