package bastion

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPluginsForgeNoLine: whatever they write, it is one quoted line of theirs, and not many of them.
func TestPluginsForgeNoLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := &hostLog{log: slog.New(slog.NewTextHandler(&out, nil))}
		fmt.Fprintf(h, "first ha")
		fmt.Fprintf(h, "lf\ntime=2030-01-01 level=INFO msg=\"policy in force\"\r\x1b[2J\n%s\n", strings.Repeat("a", 1<<20))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "first half") {
			t.Fatalf("got %.300q", lines)
		}
		for _, line := range lines {
			if !strings.Contains(line, `msg="bastion-plugins says" line=`) || strings.ContainsAny(line, "\r\x1b") || len(line) > 2*hostLine {
				t.Errorf("got %.300q", line)
			}
		}
		for range 10 * hostLines {
			fmt.Fprintln(h, "x")
		}
		if n := strings.Count(out.String(), "\n"); n != hostLines {
			t.Errorf("%d lines in a minute, want %d", n, hostLines)
		}
		time.Sleep(time.Minute)
		fmt.Fprintln(h, "the next minute")
		if !strings.Contains(out.String(), "the next minute") {
			t.Error("it is silent for good")
		}
		if cap(h.line) > 4*hostLine {
			t.Errorf("%d bytes are kept", cap(h.line))
		}
	})
}
