package rotate

import (
	"context"
	"sync"
	"time"

	"mayfly/inventory/store"
)

// readingShare is how much of the time at most is spent on reading the store: 1/readingShare.
const readingShare = 10

// watch reads the servers for all lives of the process: one reading a poll, however many lives wait for it, and one at once when something in this
// process has come about that the next step waits for.
type watch struct {
	r    *Runner
	done chan struct{}
	soon chan struct{} // somebody waits for the next reading

	mu      sync.Mutex // guards the rest
	begun   uint64     // number of the newest reading that was begun
	read    uint64     // number of the newest reading that ended
	list    []store.Server
	servers map[string]store.Server
	claims  map[string]bool // servers that somebody holds
	err     error
	heard   [2]voice      // the two servers that were heard last
	changed chan struct{} // closed with each reading
}

func (r *Runner) watch(ctx context.Context) *watch {
	w := &watch{r: r, done: make(chan struct{}), soon: make(chan struct{}, 1), changed: make(chan struct{})}
	go w.loop(ctx)
	return w
}

func (w *watch) loop(ctx context.Context) {
	defer close(w.done)
	for ctx.Err() == nil {
		began := time.Now()
		w.look(ctx)
		least := readingShare * time.Since(began)
		rest(ctx, least, nil)
		rest(ctx, w.r.Poll-least, w.soon)
	}
}

// rest waits for d, or less when it is woken.
func rest(ctx context.Context, d time.Duration, soon <-chan struct{}) {
	pause := time.NewTimer(d)
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-soon:
	case <-pause.C:
	}
}

// wake has the store read as soon as the share of its readings allows it.
func (w *watch) wake() {
	select {
	case w.soon <- struct{}{}:
	default: // it will be
	}
}

// look reads the store once.
func (w *watch) look(ctx context.Context) {
	w.mu.Lock()
	w.begun++
	number := w.begun
	w.mu.Unlock()
	list, err := w.r.Store.Servers(ctx)
	claimed := map[string]bool{}
	if err == nil {
		var claims []store.Claim
		claims, err = w.r.Store.Claims(ctx, time.Now())
		for _, c := range w.r.bury(ctx, claims) {
			claimed[c.Server] = true
		}
	}
	servers := make(map[string]store.Server, len(list))
	for _, s := range list {
		servers[s.Name] = s
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read, w.err = number, err
	if err == nil {
		w.list, w.servers, w.claims, w.heard = list, servers, claimed, lastHeard(list)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// reading is what one look found.
type reading struct {
	number  uint64 // they rise; 0: nothing was read yet
	servers []store.Server
	claimed map[string]bool
}

// now returns the newest reading, and a channel that is closed with the next one.
func (w *watch) now() (reading, <-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return reading{w.read, w.list, w.claims}, w.changed, w.err
}

// after returns a server as a reading that began after the one with this number found it; ok is false until there is one.
func (w *watch) after(number uint64, server string) (s store.Server, ok bool, changed <-chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.read <= number || w.servers == nil {
		return s, false, w.changed, nil
	}
	s, ok = w.servers[server]
	return s, ok, w.changed, w.err
}

// readNumber is that of the newest reading that ended.
func (w *watch) readNumber() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.read
}

// number is that of the newest reading that was begun.
func (w *watch) number() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun
}

// voice is when a server was heard.
type voice struct {
	server string
	at     time.Time
}

// lastHeard are the two servers that were heard last.
func lastHeard(servers []store.Server) (last [2]voice) {
	for _, s := range servers {
		switch {
		case s.HealthAt.After(last[0].at):
			last[0], last[1] = voice{s.Name, s.HealthAt}, last[0]
		case s.HealthAt.After(last[1].at):
			last[1] = voice{s.Name, s.HealthAt}
		}
	}
	return last
}

// heardBeside is when any other server than this one was heard last.
func (w *watch) heardBeside(server string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.heard[0].server == server {
		return w.heard[1].at
	}
	return w.heard[0].at
}
