package rotate

import (
	"bytes"
	"context"
	"strings"
	"time"

	"mayfly/inventory"
	"mayfly/rebuild/power"
)

// Power finds machines by the driver that the inventory names.
type Power struct{ power.Place }

var _ Machines = Power{}

// Machine opens the server's driver.
func (p Power) Machine(s inventory.Server) (Machine, error) { return power.Open(s, p.Place) }

// Bounds of what is quoted from a console.
const (
	maxConsoleAt = 200              // bytes of a line
	consoleLimit = 20 * time.Second // to read it
)

// console returns the last lines of a machine's console, printable, oldest first; none if there is no console. It is told beside a
// cause, and so fails in silence.
func console(ctx context.Context, m Machine, lines int) []string {
	ctx, cancel := context.WithTimeout(ctx, consoleLimit)
	defer cancel()
	data, err := m.Console(ctx)
	if err != nil {
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
