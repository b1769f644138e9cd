package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// reportLimit is how long a server's report of a login may take to the controller's list.
const reportLimit = 20 * time.Second

// reported sees that the servers' own sshd told of every login so far, and that the bastion's log has a jump for each.
func (d *demo) reported(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := d.fleetctl(ctx, "logins", "-o", "json")
		if err != nil {
			return "", err
		}
		var list struct {
			Logins []struct{ Server, User, Key string }
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return "", fmt.Errorf("reading fleetctl logins: %w", err)
		}
		seen := map[string]bool{}
		for _, l := range list.Logins {
			if l.User != engineer || l.Key == "" {
				return "", fmt.Errorf("a login of %q with key %q on %s", l.User, l.Key, l.Server)
			}
			seen[l.Server] = true
		}
		if len(seen) == len(machines) {
			file := d.e.path("bastion", "logins.json")
			if err := d.write(file, []byte(out), 0o600); err != nil {
				return "", err
			}
			if _, err := d.e.output(ctx, d.e.bin("bastion"), "audit", "reconcile", "--dir", d.auditDir(), "--logins", file, "-o", "json"); err != nil {
				return "", err
			}
			return fmt.Sprintf("%d logins on %d servers, each with a jump of its own in the log", len(list.Logins), len(seen)), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("logins on %d of %d servers are reported", len(seen), len(machines))
		case <-tick.C:
		}
	}
}
