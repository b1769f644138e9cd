package server

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
)

const forwardKey = "net/ipv4/ip_forward"

// forwarding is the machine's forwarding of IPv4: what it was before this server, to be put back at its end.
type forwarding struct{ before string }

// lookForwarding notes how forwarding is. A table that is there already was left by a server that was killed, which had turned
// forwarding on: then it was off before.
func lookForwarding() (forwarding, error) {
	left, err := tableExists()
	if err != nil {
		return forwarding{}, err
	}
	if left {
		return forwarding{before: "0"}, nil
	}
	data, err := os.ReadFile("/proc/sys/" + forwardKey)
	if err != nil {
		return forwarding{}, fmt.Errorf("reading %s: %w", forwardKey, err)
	}
	return forwarding{before: strings.TrimSpace(string(data))}, nil
}

func (f forwarding) restore() error { return sysctl(forwardKey, f.before) }

func tableExists() (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("opening nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("listing nftables: %w", err)
	}
	for _, t := range tables {
		if t.Name == Table {
			return true, nil
		}
	}
	return false, nil
}
