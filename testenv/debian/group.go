package debian

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// groupLives reports whether a process group still has a process that does something. Where nobody reaps orphans, as in a container
// without an init, the dead ones stay and count for nothing.
func groupLives(group int) bool {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// proc(5): pid (comm) state ppid pgrp …; comm may hold anything, so what counts comes after its last bracket.
		fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
		if len(fields) < 3 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
			continue
		}
		if string(fields[2]) == strconv.Itoa(group) {
			return true
		}
	}
	return false
}
