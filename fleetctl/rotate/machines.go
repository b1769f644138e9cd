package rotate

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"mayfly/inventory"
	"mayfly/rebuild/power"
)

// PowerDir finds machines by the driver that the inventory names, with their files in one directory.
type PowerDir struct {
	Dir string
	Log *slog.Logger
}

var _ Machines = PowerDir{}

// Machine opens the server's driver.
func (p PowerDir) Machine(s inventory.Server) (Machine, error) { return power.Open(s, p.Dir, p.Log) }

// Bounds of what is quoted from a console.
const (
	consoleTail  = 16 << 10
	maxConsoleAt = 200 // bytes of a line
)

// Console returns the last lines of the server's console, printable, oldest first; none if there is no console.
func (p PowerDir) Console(server string, lines int) []string {
	f, err := os.Open(filepath.Join(p.Dir, server, "console.log"))
	if err != nil {
		return nil
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err != nil {
		return nil
	} else if _, err := f.Seek(max(0, end-consoleTail), io.SeekStart); err != nil {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, consoleTail))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	var tail []string
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, string(line)))
		if text == "" {
			continue
		}
		if tail = append(tail, text[:min(len(text), maxConsoleAt)]); len(tail) > lines {
			tail = tail[1:]
		}
	}
	return tail
}
