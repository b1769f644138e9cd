package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/logins"
	"mayfly/inventory/store"
)

var loginsVerb = command.Verb{
	Name:    "logins",
	Args:    "--dir DIR [--since TIME] [-o json]",
	Summary: "show the engineers' logins that servers reported",
	Help: `Every server reports what its own sshd accepted: who, with which key, through which bastion. The last 10000 of each server are kept.
"bastion audit reconcile --logins FILE" holds the JSON form against a bastion's audit log.

--since takes a time (2030-01-31T12:00:00Z) or a duration ago (24h).

Example:

  fleetctl logins --dir lab --since 24h -o json > logins.json`,
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		dir, output := dirFlag(flags), outputFlag(flags)
		since := flags.String("since", "", "`time`, or duration ago, from which on to show logins (default: all)")
		if err := c.Parse(flags); err != nil {
			return err
		}
		if err := errors.Join(noArguments(flags), checkFormat(*output)); err != nil {
			return err
		}
		from, err := sinceTime(*since, time.Now())
		if err != nil {
			return err
		}
		list, err := state(*dir).logins(ctx, c, from)
		if err != nil {
			return err
		}
		report := loginsReport{Logins: []loginReport{}}
		var rows [][]string
		for _, l := range list {
			r := logins.Report{Time: l.At, Server: l.Server, Epoch: l.Epoch, User: l.User, Method: l.Method, Key: l.Key, Peer: l.Peer, Unread: l.Unread}
			report.Logins = append(report.Logins, loginReport{Report: r, Seen: l.Seen, Missed: l.Missed})
			peer := ""
			if l.Peer.IsValid() {
				peer = l.Peer.String()
			}
			if l.Missed > 0 {
				rows = append(rows, []string{l.At.Format(time.RFC3339), l.Server, "", fmt.Sprintf("%d logins before this one were not kept", l.Missed)})
			}
			rows = append(rows, []string{l.At.Format(time.RFC3339), l.Server, strconv.FormatUint(l.Epoch, 10), l.User + l.Unread, l.Method, l.Key, peer})
		}
		return show(c.Stdout, *output, report, []string{"TIME", "SERVER", "EPOCH", "USER", "METHOD", "KEY", "FROM"}, rows)
	},
}

// loginsReport is what `fleetctl logins -o json` prints. Its fields stay.
type loginsReport struct {
	Logins []loginReport `json:"logins"`
}

type loginReport struct {
	logins.Report
	Seen   time.Time `json:"seen"`             // when the controller heard of it
	Missed uint64    `json:"missed,omitempty"` // logins before this one that the server could not keep
}

func sinceTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, command.Usagef("--since %q: it is a time like 2030-01-31T12:00:00Z, or a duration like 24h", s)
	}
	return t, nil
}

// logins are what the store knows, read without changing it.
func (d state) logins(ctx context.Context, c *command.Call, since time.Time) ([]store.Login, error) {
	s, err := d.openReadOnly(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(c.Stderr, "fleetctl: %s is not there yet: no server was ever booted from here; `fleetctl serve` makes it\n", d.storeFile())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := s.Logins(ctx, since)
	return list, errors.Join(err, s.Close())
}
