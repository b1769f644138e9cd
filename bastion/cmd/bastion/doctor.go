package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"text/tabwriter"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion"
	"mayfly/internal/command"
	"mayfly/internal/durable"
)

const doctorHelp = `It looks at all that a bastion needs, goes on after what is wrong, and names a mend for each: the configuration, modes and owners of files,
trust, policy, its signatures and witnesses, host key and certificate, address list, what the kernel can do, the port, the audit log (all of
it is verified) and its space, the clock, servers, alerts and systemd's units. It changes nothing. Run it as the bastion's user, or as root.

--from says what would happen to a connection from an address; with --as and --key (a public key or certificate, taken as proven) to that
user's login, and with --to to their jump. The reasons are those of the audit log.

It ends with exit code 1 when something fails; warnings are no failures.

  bastion doctor --config bastion.toml
  bastion doctor --config bastion.toml --from 198.51.100.7 --as anna --key anna.pub --to web-1:22`

// maxKeyFile bounds a public key's file, in bytes.
const maxKeyFile = 64 << 10

func doctorVerb() command.Verb {
	return command.Verb{
		Name:    "doctor",
		Args:    "--config FILE [--from ADDRESS [--as USER --key FILE [--to SERVER:PORT]]] [-o json]",
		Summary: "find what is wrong with a set-up, and name the mend",
		Help:    doctorHelp,
		Run:     doctor,
	}
}

func doctor(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	path := fs.String("config", "", "configuration `file`")
	from := fs.String("from", "", "`address` that somebody would connect from")
	as := fs.String("as", "", "`user` they would log in as")
	key := fs.String("key", "", "`file` with the public key, or certificate, that they would prove")
	to := fs.String("to", "", "`server:port` they would go to")
	output := fs.String("o", "text", "output `form`: text or json")
	if err := c.Parse(fs); err != nil {
		return err
	}
	switch {
	case *path == "" || fs.NArg() > 0:
		return command.Usagef("want --config FILE")
	case *output != "text" && *output != "json":
		return command.Usagef("-o %s: want text or json", *output)
	case (*as == "") != (*key == "") || *as != "" && *from == "" || *to != "" && *as == "":
		return command.Usagef("--to goes with --as and --key, and those with --from")
	}
	who, err := supposed(*from, *as, *key, *to)
	if err != nil {
		return err
	}
	d := bastion.Doctor(ctx, *path, who, time.Now())
	if *output == "json" {
		err = encode(c.Stdout, d)
	} else {
		err = printDiagnosis(c.Stdout, d)
	}
	if err == nil && d.Failures > 0 {
		err = fmt.Errorf("failing: %d of %d checks", d.Failures, len(d.Findings))
	}
	return err
}

func supposed(from, as, key, to string) (*bastion.Suppose, error) {
	if from == "" {
		return nil, nil
	}
	who := &bastion.Suppose{User: as}
	var err error
	if who.From, err = netip.ParseAddr(from); err != nil {
		return nil, command.Usagef("--from: %v", err)
	}
	if key != "" {
		data, err := durable.ReadFile(key, maxKeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
		if who.Key, _, _, _, err = ssh.ParseAuthorizedKey(data); err != nil {
			return nil, fmt.Errorf("reading the key %s: %w", key, err)
		}
	}
	if to != "" {
		host, port, err := net.SplitHostPort(to)
		if err != nil {
			return nil, command.Usagef("--to: %v", err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || host == "" {
			return nil, command.Usagef("--to %s: want SERVER:PORT", to)
		}
		who.Server, who.Port = host, uint16(n)
	}
	return who, nil
}

func printDiagnosis(out io.Writer, d bastion.Diagnosis) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range d.Findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Health, f.Check, f.What)
		if f.Hint != "" {
			fmt.Fprintf(w, "\t\thint: %s\n", f.Hint)
		}
	}
	fmt.Fprintf(w, "\t\tfailing: %d, warnings: %d\n", d.Failures, d.Warnings)
	return w.Flush()
}
