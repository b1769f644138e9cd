package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// listeners sees that no program of the environment that runs in this machine's own network listens beyond loopback. Programs
// inside the lab's namespaces cannot be reached from outside at all.
func (d *demo) listeners() (string, error) {
	all, err := d.e.table.Running()
	if err != nil {
		return "", err
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "", err
	}
	inodes, outside := map[string]int{}, 0
	for _, p := range all {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.PID))
		if err != nil || ns != home {
			continue
		}
		outside++
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
		if err != nil {
			return "", err
		}
		for _, fd := range fds {
			link, err := os.Readlink(fd)
			if err != nil {
				continue // closed meanwhile
			}
			if inode, ok := strings.CutPrefix(link, "socket:["); ok {
				inodes[strings.TrimSuffix(inode, "]")] = p.PID
			}
		}
	}
	loopback := 0
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile("/proc/net/" + table)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 10 || (strings.HasPrefix(table, "tcp") && f[3] != "0A") {
				continue // a header, or a TCP socket that does not listen
			}
			pid, ours := inodes[f[9]]
			if !ours {
				continue
			}
			if !isLoopback(f[1]) {
				return "", fmt.Errorf("process %d listens on %s (%s)", pid, f[1], table)
			}
			loopback++
		}
	}
	return fmt.Sprintf("%d programs, %d of them outside the lab, with %d loopback sockets", len(all), outside, loopback), nil
}

// isLoopback reads an address of /proc/net: hex in this machine's byte order, a colon, the port.
func isLoopback(address string) bool {
	host, _, ok := strings.Cut(address, ":")
	b, err := hex.DecodeString(host)
	if !ok || err != nil {
		return false
	}
	switch len(b) {
	case 4:
		return b[3] == 127
	case 16:
		return host == "00000000000000000000000001000000"
	}
	return false
}
