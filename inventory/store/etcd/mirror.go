package etcd

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory/store"
)

// mirror is a copy of all servers that a watch keeps up, so that a check does not read them all. What it says is used only when it is as
// new as the guard that the change compares.
type mirror struct {
	mu      sync.RWMutex
	begun   bool
	ready   bool
	guarded int64 // the guard's revision
	servers []store.Server
	index   map[string]int
	reports map[string]report
	changed chan struct{} // closed at the next change
}

// mirrored asks check about the servers at the guard's revision, if the mirror gets there in time: known says whether it did.
func (s *shared) mirrored(ctx context.Context, guarded int64, check store.Check) (known bool, verdict, err error) {
	m := &s.mirror
	s.watch()
	patience := time.NewTimer(mirrorPatient)
	defer patience.Stop()
	for {
		m.mu.RLock()
		if m.ready && m.guarded == guarded {
			defer m.mu.RUnlock() // check may only read what it is given
			return true, check(m.servers), nil
		}
		ahead, changed := m.ready && m.guarded > guarded, m.changed
		m.mu.RUnlock()
		if ahead {
			return false, nil, errAgain // a state has changed since the guard was read
		}
		select {
		case <-changed:
		case <-patience.C:
			return false, nil, nil
		case <-ctx.Done():
			return false, nil, unreachable(ctx.Err())
		}
	}
}

// watch begins to keep the mirror, once.
func (s *shared) watch() {
	m := &s.mirror
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.begun {
		return
	}
	m.begun, m.changed = true, make(chan struct{})
	s.watching.Go(func() {
		for s.closed.Err() == nil {
			s.follow(s.closed) // until the watch breaks: then from the beginning
			m.lose()
			select {
			case <-s.closed.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

// follow reads everything and then what changes, until the watch breaks.
func (s *shared) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all, rev, guarded, err := (&Store{shared: s}).load(ctx, 0)
	if err != nil {
		return
	}
	s.mirror.fill(all, guarded)
	for r := range s.client.Watch(clientv3.WithRequireLeader(ctx), s.key(keyLive), clientv3.WithPrefix(), clientv3.WithRev(rev+1)) {
		if r.Err() != nil || s.take(r.Events) != nil {
			return
		}
	}
}

func (m *mirror) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = false
}

func (m *mirror) fill(all []store.Server, guarded int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.servers, m.guarded, m.ready = all, guarded, true
	m.reports, m.index = map[string]report{}, make(map[string]int, len(all))
	for i, v := range all {
		m.index[v.Name] = i
		if !v.HealthAt.IsZero() {
			m.reports[v.Name] = report{v.Epoch, v.HealthAt, v.Health}
		}
	}
	m.wake()
}

// wake wakes who waits. The caller holds mu.
func (m *mirror) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// take takes the changes of whole revisions, in their order.
func (s *shared) take(events []*clientv3.Event) error {
	m := &s.mirror
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake()
	for _, e := range events {
		if e.Type == clientv3.EventTypeDelete {
			name := string(e.Kv.Key[min(len(s.key(keyHealth)), len(e.Kv.Key)):])
			if string(e.Kv.Key) != s.key(keyHealth, name) {
				return fmt.Errorf("key %q was removed", e.Kv.Key) // nobody removes a server: begin again
			}
			m.put(live{kind: keyHealth, name: name})
			continue
		}
		l, err := s.live(e.Kv)
		if err != nil {
			return err
		}
		m.put(l)
	}
	return nil
}

// put takes one key's value. The caller holds mu.
func (m *mirror) put(l live) {
	i, known := m.index[l.name]
	switch {
	case l.kind == keyGuard:
		m.guarded = l.mod
	case l.kind == keyHealth:
		m.reports[l.name] = l.report
		if known {
			m.servers[i] = withReport(m.servers[i], l.report)
		}
	case known:
		m.servers[i] = withReport(l.server, m.reports[l.name])
	default:
		i = sort.Search(len(m.servers), func(i int) bool { return m.servers[i].Name > l.name })
		m.servers = slices.Insert(m.servers, i, withReport(l.server, m.reports[l.name]))
		for j := i; j < len(m.servers); j++ {
			m.index[m.servers[j].Name] = j
		}
	}
}
