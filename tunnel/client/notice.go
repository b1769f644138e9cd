package client

import (
	"context"
	"net/http"
	"sync"
	"time"

	"mayfly/tunnel/wire"
)

// How the watcher deals with failures.
const (
	watchRetry  = 2 * time.Second
	watchMisses = 3 // in a row: the session is lost
	watchLimit  = wire.NoticeHold + 10*time.Second
)

// signal is what a watcher tells: the server drains until deadline, or, with the zero deadline, the session is lost.
type signal struct {
	draining bool
	deadline time.Time
}

// watch asks the server for notices until there is something to tell, once.
func (s *session) watch(ctx context.Context, running *sync.WaitGroup) <-chan signal {
	told := make(chan signal, 1)
	running.Go(func() {
		misses := 0
		for misses < watchMisses {
			n, err := s.notice(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil && n.Draining:
				told <- signal{draining: true, deadline: time.Now().Add(time.Duration(n.RemainingSeconds) * time.Second)}
				return
			case err == nil:
				misses = 0
				continue
			}
			misses++
			if !wait(ctx, watchRetry) {
				return
			}
		}
		told <- signal{}
	})
	return told
}

func (s *session) notice(ctx context.Context) (wire.Notice, error) {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	var n wire.Notice
	err := ask(ctx, s.http, http.MethodGet, "https://"+s.grant.notice.String()+wire.PathNotice, nil, &n)
	return n, err
}

// wait sleeps, and returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
