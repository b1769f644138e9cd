package web

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Bounds of live updates. Implementation constants.
const (
	maxListeners   = 64               // that wait for changes at once
	maxOfEngineer  = 8                // of one engineer
	lookInterval   = 2 * time.Second  // between two looks at the fleet, while somebody watches
	lookShare      = 4                // a look that took T is followed by a rest of at least this many T
	refreshEach    = 10 * time.Second // ages that are shown are at most this old
	keepAlive      = 15 * time.Second // a line that says nothing, so that a dead listener is noticed
	listenFor      = 10 * time.Minute // then the client comes again
	writeWait      = 10 * time.Second // for one line
	retryAfter     = 3 * time.Second  // when a client comes again
	firstViewLimit = 30 * time.Second
	staleAfter     = time.Minute // a view that is older is shown for what it is
)

// feed makes views while somebody looks, one at a time, and tells who listens that there is a new one.
type feed struct {
	gather func(context.Context) (View, error)
	now    func() time.Time
	fail   func(error)

	making chan struct{} // holds one: who makes a view

	mu        sync.Mutex // guards the rest
	last      *View
	tag       string // hash of what is shown, but for the time
	made      time.Time
	took      time.Duration
	changed   chan struct{} // closed with each new tag
	listeners map[string]int
	count     int
}

func newFeed(gather func(context.Context) (View, error), now func() time.Time, fail func(error)) *feed {
	return &feed{gather: gather, now: now, fail: fail, making: make(chan struct{}, 1), changed: make(chan struct{}), listeners: map[string]int{}}
}

// view is the newest view; nil if none could be made yet.
func (f *feed) view(ctx context.Context) *View {
	ctx, cancel := context.WithTimeout(ctx, firstViewLimit)
	defer cancel()
	f.look(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil || f.now().Sub(f.made) < f.oldest() {
		return f.last
	}
	return f.last.stale()
}

// oldest is how old a view may be that is shown as it is. The caller holds mu.
func (f *feed) oldest() time.Duration { return staleAfter + (lookShare+1)*f.took }

// stale is the view when nothing newer can be had: whoever reads it has to know.
func (v *View) stale() *View {
	old := *v
	old.Stale, old.Mood = true, Danger
	old.Summary = "The fleet cannot be read: what is shown is old."
	old.Alerts = append([]Alert{{Danger, "stale", "", "", "The fleet was last read at " + v.Made.UTC().Format(time.RFC3339) + ": everything here is as old."}}, v.Alerts...)
	return &old
}

// look makes a new view if the last one is old. Whoever comes meanwhile gets the old one, if there is one.
func (f *feed) look(ctx context.Context) {
	if f.fresh() {
		return
	}
	f.mu.Lock()
	first := f.last == nil || f.now().Sub(f.made) >= f.oldest() // there is nothing to give meanwhile
	f.mu.Unlock()
	select {
	case f.making <- struct{}{}:
	default:
		if !first {
			return
		}
		select {
		case f.making <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
	defer func() { <-f.making }()
	if f.fresh() {
		return
	}
	began := f.now()
	v, err := f.gather(ctx)
	if err != nil {
		f.fail(err)
		return
	}
	tag := tagOf(v)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.made, f.took = &v, f.now(), f.now().Sub(began)
	if tag != f.tag {
		f.tag = tag
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

func (f *feed) fresh() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last != nil && f.now().Sub(f.made) < max(lookInterval, lookShare*f.took)
}

// tagOf is the hash of what is shown. Ages run by themselves: they make a new tag each refreshEach.
func tagOf(v View) string {
	h := sha256.New()
	out := bufio.NewWriterSize(h, 1<<16)
	fmt.Fprint(out, v.Made.Unix()/int64(refreshEach/time.Second))
	for i := range v.Servers {
		s := &v.Servers[i]
		out.WriteString(s.Name)
		out.WriteString(string(s.Kind) + string(s.State) + s.Reason + s.Release)
		out.WriteByte(byte(s.Epoch))
		if s.Due {
			out.WriteByte('d')
		}
		if s.Now {
			out.WriteByte('n')
		}
		if s.Entry != nil && s.Entry.Proven {
			out.WriteByte('p')
		}
	}
	if err := json.NewEncoder(out).Encode([]any{v.Policy, v.Train, v.Releases, v.Pause, v.Run, v.Alerts, v.Ledger.Size, v.Quarantine}); err != nil {
		panic("web: internal error: " + err.Error())
	}
	out.Flush() // a hash takes all
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// state is the newest tag, and what is closed when there is a newer one.
func (f *feed) state() (tag string, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tag, f.changed
}

// enter takes a place for a listener.
func (f *feed) enter(who string) (leave func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count >= maxListeners || f.listeners[who] >= maxOfEngineer {
		return nil, false
	}
	f.count++
	f.listeners[who]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.count--
		if f.listeners[who]--; f.listeners[who] == 0 {
			delete(f.listeners, who)
		}
	}, true
}

// serve tells one listener of each change, as server-sent events. The event carries the tag alone: the client asks for its page again.
func (f *feed) serve(w http.ResponseWriter, r *http.Request) {
	leave, ok := f.enter(engineerOf(r.Context()))
	if !ok {
		w.Header().Set("Retry-After", "30")
		refuse(w, r, http.StatusServiceUnavailable, Busy, "Too many pages listen to changes; this one asks by itself now and then.")
		return
	}
	defer leave()
	ctx, cancel := context.WithTimeout(r.Context(), listenFor)
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	say := func(format string, args ...any) bool {
		if out.SetWriteDeadline(f.now().Add(writeWait)) != nil {
			return false
		}
		_, err := fmt.Fprintf(w, format, args...)
		// HTTP/2 ends a stream at its deadline, whether something is being written or not.
		return err == nil && out.Flush() == nil && out.SetWriteDeadline(time.Time{}) == nil
	}
	// Likewise HTTP/1 at the deadline of the request, which was read long ago.
	if out.SetReadDeadline(time.Time{}) != nil || !say("retry: %d\n\n", retryAfter.Milliseconds()) {
		return
	}
	look, alive := time.NewTicker(lookInterval), time.NewTicker(keepAlive)
	defer look.Stop()
	defer alive.Stop()
	said := ""
	for {
		f.look(ctx)
		tag, changed := f.state()
		if tag != said {
			if !say("event: change\ndata: %s\n\n", tag) {
				return
			}
			said = tag
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-look.C:
		case <-alive.C:
			if allowed := decisionOf(r.Context()); allowed != nil && !allowed() {
				return // the engineer's leave is over: the next request says why
			}
			if !say(": alive\n\n") {
				return
			}
		}
	}
}
