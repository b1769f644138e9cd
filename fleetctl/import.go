package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory/importer"
)

var importVerb = command.Verb{
	Name:    "import",
	Args:    "--from FORMAT [--dir DIR] [--field KEY=FIELD] [--set KEY=VALUE] [--where FIELD=VALUE] [--write] FILE",
	Summary: "turn machines of a CSV, JSON, Ansible or Terraform file into [[server]] tables of fleet.toml",
	Help: `Reads machines that another tool knows of and prints the [[region]], [[rack]] and [[server]] tables that DIR/fleet.toml does not have
yet; with --write they are put at its end. Nothing is written unless the whole of it is a good fleet.toml: what is not is one line with the
place in FILE. Servers that are there already stay as they are; what FILE says otherwise of them is listed.

Formats: csv (a header line), json (a list, or an object of objects), ansible (INI, YAML, or the output of ` + "`ansible-inventory --list`" + `) and
terraform (a state file, or the output of ` + "`terraform show -json`" + `). Nested fields are joined by dots: tags.Name, network_interface.0.ip.

A key of [[server]] (name, rack, role, address, capacity, power.driver, ...) has the field of the same name, unless --field says
another; --set gives a value to servers that have none. "region" names the region of a rack that is new.

Example:

  fleetctl import --dir lab --from csv servers.csv
  fleetctl import --dir lab --from ansible --where groups=vpn --set role=vpn --prefix 24 --write hosts.ini
  terraform show -json | fleetctl import --dir lab --from terraform --where terraform_type=aws_instance --field address=private_ip --prefix 20 -`,
	Run: runImport,
}

func runImport(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	from := fs.String("from", "", "`format` of the file: csv, json, ansible or terraform")
	var m importer.Mapping
	m.Where = pairsFlag(fs, "where", "only machines whose `FIELD=VALUE`; may be repeated")
	m.Fields = pairsFlag(fs, "field", "`KEY=FIELD`: where a key of [[server]] is; may be repeated")
	m.Set = pairsFlag(fs, "set", "`KEY=VALUE` for servers that have none; may be repeated")
	fs.IntVar(&m.Prefix, "prefix", 0, "`length` of the network of addresses that come without one")
	fs.BoolVar(&m.Label, "label", false, "of a name with a domain take the first label")
	write := fs.Bool("write", false, "put what is new at the end of DIR/fleet.toml")
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := checkFormat(*output); err != nil {
		return err
	}
	source, err := oneArgument(fs, "the file, or - for standard input")
	if err != nil {
		return err
	}
	if !slices.Contains(importer.Formats, *from) {
		return command.Usagef("--from %q: it is one of %s", *from, strings.Join(importer.Formats, ", "))
	}
	if m.Prefix < 0 || m.Prefix > 128 {
		return command.Usagef("--prefix %d: it is 1 to 128", m.Prefix)
	}
	data, err := readSource(c, source)
	if err != nil {
		return err
	}
	d := state(*dir)
	fleet, err := readFleetFile(d)
	if err != nil {
		return err
	}
	records, err := importer.Parse(*from, filepath.Base(source), data)
	if err != nil {
		return err
	}
	result, err := importer.Merge(d.fleetFile(), fleet, records, m)
	if err != nil {
		return err
	}
	if *write && result.TOML != "" {
		if err := appendFleet(d.fleetFile(), fleet, result.TOML); err != nil {
			return err
		}
	}
	for _, x := range result.Differs {
		fmt.Fprintf(c.Stderr, "fleetctl: import: %s: %s is %s in fleet.toml and %s in %s: left as it is\n", x.Server, x.Key, x.Fleet, x.Source, x.Place)
	}
	fmt.Fprintf(c.Stderr, "fleetctl: import: %d new, %d there already, %d left out\n", len(result.New), len(result.Known), result.Left)
	if *write && result.TOML != "" {
		fmt.Fprintf(c.Stderr, "fleetctl: import: %s has them; it takes effect once it is in a signed bundle\n", d.fleetFile())
	}
	if *output == "json" {
		return show(c.Stdout, "json", result, nil, nil)
	}
	if *write {
		return nil
	}
	_, err = fmt.Fprint(c.Stdout, result.TOML)
	return err
}

// appendFleet puts what is new at the end of the fleet.toml that was read. Two imports at once take turns, and one that was overtaken says so.
func appendFleet(path string, was []byte, more string) error {
	f, err := openFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	now, err := readBounded(path, "", maxFile)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, was) {
		return hint.New(fmt.Errorf("%s has changed since it was read; nothing was written", path), "import again")
	}
	return durable.WriteFile(path, slices.Concat(bytes.TrimRight(was, "\n"), []byte("\n"), []byte(more)), info.Mode().Perm())
}

// readSource reads a bounded file, or standard input.
func readSource(c *command.Call, source string) ([]byte, error) {
	if source != "-" {
		return readBounded(source, "see the file's name", importer.MaxSize)
	}
	data, err := io.ReadAll(io.LimitReader(c.Stdin, importer.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return data, nil // importer.Parse refuses what is too long
}

// readFleetFile reads the fleet.toml that servers join. There has to be one: it says what fleet, controller and network they have.
func readFleetFile(d state) ([]byte, error) {
	data, err := readBounded(d.fleetFile(), "", maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.New(err, "write its first part: name, domain, [network], [controller] (docs/formats/fleet.md); --dir names the state directory")
	}
	return data, err
}

// pairsFlag is a flag that may be repeated, each time A=B.
func pairsFlag(flags *flag.FlagSet, name, usage string) map[string]string {
	pairs := map[string]string{}
	flags.Func(name, usage, func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q is not A=B", s)
		}
		if _, twice := pairs[key]; twice {
			return fmt.Errorf("%q is said twice", key)
		}
		pairs[key] = value
		return nil
	})
	return pairs
}
