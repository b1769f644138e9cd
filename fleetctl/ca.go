package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/internal/account"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/policies/request"
)

const caStory = `A CA is next (in known_hosts, signing nothing), current, retiring (signing nothing, believed) and retired (its key deleted here, and
"@revoked" in known_hosts), in this order. Each change rewrites DIR/public/known_hosts; hand it out, or have "fleetctl ssh-config" do
it. Nobody ever sees a warning: every certificate is by a CA that known_hosts named before it signed.

Where root types it and the signer is another user, it acts as that user.`

var caListVerb = command.Verb{
	Name:    "ca list",
	Args:    "--dir DIR [-o json]",
	Summary: "show the CAs of SSH host certificates",
	Help: caStory + `

Example:

  fleetctl ca list --dir lab`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir, output := dirFlag(fs), outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if err := checkFormat(*output); err != nil {
			return err
		}
		l, err := state(*dir).hostCAs()
		if err != nil {
			return err
		}
		return showHostCAs(c, *output, l)
	},
}

var caRotateVerb = command.Verb{
	Name:    "ca rotate",
	Args:    "--dir DIR [--overlap DURATION] [--request FILE] [-o json]",
	Summary: "take the next step towards a new CA of SSH host certificates",
	Help: `Without a next CA: makes one and publishes it in known_hosts. With one that has been public for --overlap: lets it sign from now on; the
one before is retiring. Bastions and servers have certificates by the new one within half an hour. Then "fleetctl ca retire".

It takes a signed request, for ca-rotate or, with an --overlap of less than a day, ca-override ("fleetctl request make"; --sign where one person is enough).

` + caStory + `

Example:

  fleetctl ca rotate --dir lab        # today
  fleetctl ca rotate --dir lab        # tomorrow`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir, output := dirFlag(fs), outputFlag(fs)
		leave := leaveFlagsOf(fs)
		overlap := fs.Duration("overlap", signer.CAOverlap, "least `time` that the next CA is public before it signs")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if err := checkFormat(*output); err != nil {
			return err
		}
		if *overlap < 0 {
			return command.Usagef("--overlap %s: it is not negative", *overlap)
		}
		if err := leave.check(); err != nil {
			return err
		}
		d, now := state(*dir), time.Now()
		if err := d.actAsOwner(c); err != nil {
			return err
		}
		f, err := d.namedFleet(ctx, now)
		if err != nil {
			return err
		}
		l, err := signer.LoadHostCAs(*dir)
		if err != nil {
			return err
		}
		if l.Find(signer.CANext) < 0 {
			by, err := d.leave(ctx, c, leave, request.CARotate(request.NewCA), now)
			if err != nil {
				return err
			}
			l, err = signer.NextHostCA(*dir, f.Domain, by, now, func(l signer.HostCAs) error { return d.publishHostCAs(f, l) })
			if err != nil {
				return err
			}
			tellLeave(c, by)
			fmt.Fprintf(c.Stderr, "fleetctl: the next CA is in %s; next: hand that out, then the same again after %s\n", d.knownHostsFile(), *overlap)
			return showHostCAs(c, *output, l)
		}
		by, err := d.leave(ctx, c, leave, signer.UseOrder(l.CAs[l.Find(signer.CANext)].Fingerprint(), *overlap), now)
		if err != nil {
			return err
		}
		if l, err = signer.UseHostCA(*dir, *overlap, by, now); err != nil {
			return err
		}
		tellLeave(c, by)
		if err := d.publishHostCAs(f, l); err != nil {
			return err
		}
		fmt.Fprintf(c.Stderr, "fleetctl: the new CA signs; next, in an hour: `fleetctl ca retire` of the one before\n")
		return showHostCAs(c, *output, l)
	},
}

var caRetireVerb = command.Verb{
	Name:    "ca retire",
	Args:    "--dir DIR [--compromised] [--request FILE] FINGERPRINT",
	Summary: "believe a CA of SSH host certificates no more",
	Help: `Deletes the key of a CA that signs no more, and revokes it in known_hosts. It is refused while certificates by it are valid, an hour
after it signed last. --compromised does it at once, and if it is the current one lets the next one sign: then hosts with older
certificates are refused until they have renewed theirs, within half an hour, and a bastion renews at once when "bastion renew" is
started again.

It takes a signed request, for ca-retire or, with --compromised, ca-override ("fleetctl request make"; --sign where one person is enough).

` + caStory + `

Example:

  fleetctl ca retire --dir lab SHA256:…`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir, output := dirFlag(fs), outputFlag(fs)
		leave := leaveFlagsOf(fs)
		compromised := fs.Bool("compromised", false, "its key is in other hands: at once")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := checkFormat(*output); err != nil {
			return err
		}
		if fs.NArg() != 1 {
			return command.Usagef("want one FINGERPRINT; `fleetctl ca list` shows them")
		}
		if err := leave.check(); err != nil {
			return err
		}
		d, now := state(*dir), time.Now()
		if err := d.actAsOwner(c); err != nil {
			return err
		}
		f, err := d.namedFleet(ctx, now)
		if err != nil {
			return err
		}
		by, err := d.leave(ctx, c, leave, signer.RetireOrder(fs.Arg(0), *compromised), now)
		if err != nil {
			return err
		}
		l, err := signer.RetireHostCA(*dir, fs.Arg(0), *compromised, by, now)
		if err != nil {
			return err
		}
		tellLeave(c, by)
		if err := d.publishHostCAs(f, l); err != nil {
			return err
		}
		fmt.Fprintf(c.Stderr, "fleetctl: next: hand out %s\n", d.knownHostsFile())
		return showHostCAs(c, *output, l)
	},
}

var caPublishVerb = command.Verb{
	Name:    "ca publish",
	Args:    "--dir DIR [-o json]",
	Summary: "write known_hosts again, by the CAs and the signed inventory",
	Help: `Writes DIR/ssh-host-cas.json, DIR/operators-ca.pem and DIR/public/known_hosts again: after hosts or bastions were added, after "ca rotate" or "ca retire"
was interrupted, and once in a directory that an older fleetctl made: there it makes the operators' CA, for which the signer has to be started again.

Example:

  fleetctl ca publish --dir lab`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir, output := dirFlag(fs), outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if err := checkFormat(*output); err != nil {
			return err
		}
		d := state(*dir)
		if err := d.actAsOwner(c); err != nil {
			return err
		}
		f, err := d.namedFleet(ctx, time.Now())
		if err != nil {
			return err
		}
		l, err := signer.LoadHostCAs(*dir)
		if err != nil {
			return err
		}
		operators, err := signer.AddOperators(*dir, f.Domain, time.Now())
		if err != nil {
			return err
		}
		if err := errors.Join(durable.WriteFile(d.operatorsCAFile(), operators, 0o644), d.publishHostCAs(f, l)); err != nil {
			return err
		}
		return showHostCAs(c, *output, l)
	},
}

// namedFleet is the fleet as it is signed.
func (d state) namedFleet(ctx context.Context, now time.Time) (inventory.Fleet, error) {
	t, _, err := d.trust()
	if err != nil {
		return inventory.Fleet{}, err
	}
	seen, err := d.policySeen(ctx)
	if err != nil {
		return inventory.Fleet{}, err
	}
	b, err := d.bundle(t, seen, now)
	if err != nil {
		return inventory.Fleet{}, err
	}
	return b.Inventory, nil
}

type hostCAReport struct {
	Fingerprint string    `json:"fingerprint"`
	State       string    `json:"state"`
	Since       time.Time `json:"since"`
	Key         string    `json:"key"`
}

func showHostCAs(c *command.Call, format string, l signer.HostCAs) error {
	reports := []hostCAReport{}
	var rows [][]string
	for _, ca := range l.CAs {
		reports = append(reports, hostCAReport{ca.Fingerprint(), ca.State, ca.Since, ca.Key})
		since := "-"
		if !ca.Since.IsZero() {
			since = ca.Since.Format(time.RFC3339)
		}
		rows = append(rows, []string{ca.Fingerprint(), ca.State, since})
	}
	return show(c.Stdout, format, map[string]any{"cas": reports}, []string{"FINGERPRINT", "STATE", "SINCE"}, rows)
}

// actAsOwner makes root the signer's user: what root would leave in DIR/signer, the signer could not read.
func (d state) actAsOwner(c *command.Call) error {
	keys := d.path("signer")
	changed, err := account.ActAsOwner(keys)
	if errors.Is(err, fs.ErrNotExist) {
		return hint.New(fmt.Errorf("the CA is not here: %w", err), "run it where `fleetctl signer` runs, with the signer's --dir")
	}
	if changed {
		fmt.Fprintf(c.Stderr, "fleetctl: acting as %s, whose %s is\n", account.Name(os.Geteuid()), keys)
	}
	return err
}
