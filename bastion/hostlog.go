package bastion

import (
	"bytes"
	"log/slog"
	"sync"
	"time"
)

// Implementation constants of what the plugins' host says.
const (
	hostLine  = 512 // bytes of a line that are shown
	hostLines = 60  // a minute
)

// hostLog takes the standard error of the plugins' host, which plugins of the same user can write to as well: each line is told as the host's
// own word, quoted, and no more of them than a person could read. They never have the bastion's own standard error, where they could forge its lines.
type hostLog struct {
	log *slog.Logger

	mu     sync.Mutex
	line   []byte
	minute time.Time
	said   int
}

// Write never fails: the host must not end for what it says.
func (h *hostLog) Write(data []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for rest := data; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte("\n"))
		h.line = append(h.line, part[:min(len(part), hostLine+1-len(h.line))]...)
		if rest = after; whole {
			h.say(time.Now())
			h.line = h.line[:0]
		}
	}
	return len(data), nil
}

// say is called with mu held.
func (h *hostLog) say(now time.Time) {
	if now.Sub(h.minute) >= time.Minute {
		h.minute, h.said = now, 0
	}
	switch h.said++; {
	case h.said < hostLines:
		h.log.Warn("bastion-plugins says", "line", escape(string(h.line), hostLine))
	case h.said == hostLines:
		h.log.Warn("bastion-plugins says more than is shown", "lines", hostLines)
	}
}
