package main

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"mayfly/internal/logins"
	"mayfly/rebuild/join"
)

// loginReports are the engineers' logins that the controller does not have yet. They are in this program's memory only, and nothing else
// that sshd says is kept anywhere.
type loginReports struct {
	now  func() time.Time
	wake func() // something is to be sent

	mu     sync.Mutex // guards the rest
	number uint64     // of the last one
	held   []join.Login
	missed uint64 // did not fit, since the last one held
}

// take reads what one sshd says until it and its sessions have ended. Reading never waits for anything: sshd waits for its reader.
func (l *loginReports) take(r io.ReadCloser) {
	defer r.Close()
	lines := bufio.NewReaderSize(r, logins.MaxLine)
	for {
		line, err := lines.ReadSlice('\n')
		l.line(strings.TrimRight(string(line), "\r\n"))
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line that is too long for a login
			_, err = lines.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// line keeps a login and forgets everything else.
func (l *loginReports) line(text string) {
	a, ok, err := logins.Parse(text)
	if !ok {
		return
	}
	r := join.Login{Time: l.now().UTC(), User: a.User, Method: a.Method, Key: a.Key, Peer: a.Peer}
	if err != nil {
		r.Unread = join.Printable(text, join.MaxLoginText)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) >= join.MaxLogins {
		l.missed++
		return
	}
	l.number++
	r.Number, r.Missed, l.missed = l.number, l.missed, 0
	l.held = append(l.held, r)
	l.wake()
}

// after returns the reports with higher numbers than this one.
func (l *loginReports) after(number uint64) []join.Login {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.held, number+1, func(r join.Login, n uint64) int { return int(int64(r.Number) - int64(n)) })
	return slices.Clone(l.held[i:])
}

// kept forgets what the controller has.
func (l *loginReports) kept(through uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = slices.DeleteFunc(l.held, func(r join.Login) bool { return r.Number <= through })
}
