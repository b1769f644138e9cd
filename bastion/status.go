package bastion

import (
	"cmp"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"mayfly/policies"
)

// Bounds of a status. What exceeds them is counted.
const (
	maxStatusSessions  = 1000
	maxStatusTargets   = 16 // of one session
	maxStatusPenalties = 100
	maxStatusNetworks  = 32
	maxStatusRefused   = 100
)

const kindStatus = "mayfly-bastion-status/1"

// Status is how a serving bastion does: what "bastion status" prints.
type Status struct {
	Kind               string          `json:"kind"`
	At                 time.Time       `json:"at"`
	Began              time.Time       `json:"began"`
	Listen             string          `json:"listen"`
	DrainingUntil      *time.Time      `json:"draining_until,omitempty"`
	Fleet              string          `json:"fleet"`
	Policy             uint64          `json:"policy"`
	PolicyExpires      time.Time       `json:"policy_expires"`
	Fresh              FreshStatus     `json:"fresh"`
	Level              policies.Level  `json:"level"`
	CertificateExpires time.Time       `json:"host_certificate_expires"`
	Audit              AuditStatus     `json:"audit"`
	Sessions           []SessionStatus `json:"sessions"` // oldest first
	MoreSessions       int             `json:"more_sessions"`
	HalfOpen           HalfOpenStatus  `json:"half_open"`
	Penalties          []PenaltyStatus `json:"penalties"` // longest first
	MorePenalties      int             `json:"more_penalties"`
	Refused            []RefusedStatus `json:"refused"` // within a minute of the first of its kind, most first
	MoreRefused        int             `json:"more_refused"`
	DroppedByFilter    uint32          `json:"dropped_by_filter"` // segments, since the socket was made
	Goroutines         int             `json:"goroutines"`
	HeapBytes          uint64          `json:"heap_bytes"`        // that the Go runtime has in use, garbage included
	Sandbox            ReportSandbox   `json:"sandbox"`           // as it is in force
	Plugins            *PluginsStatus  `json:"plugins,omitempty"` // left out where neither policy nor configuration has any
}

// SessionStatus is somebody who is in.
type SessionStatus struct {
	Connection string         `json:"connection"`
	User       string         `json:"user"`
	Identity   policies.Kind  `json:"identity"`
	Key        string         `json:"key"` // SHA-256 fingerprint
	Source     string         `json:"source"`
	Balancer   string         `json:"balancer,omitempty"`
	Since      time.Time      `json:"since"`
	Up         int64          `json:"bytes_up"`
	Down       int64          `json:"bytes_down"`
	Targets    []TargetStatus `json:"targets"` // open now
	More       int            `json:"more_targets"`
}

// TargetStatus is an open target.
type TargetStatus struct {
	Server string    `json:"server"`
	Port   uint16    `json:"port"`
	Since  time.Time `json:"since"`
	Up     int64     `json:"bytes_up"`
	Down   int64     `json:"bytes_down"`
}

// HalfOpenStatus counts connections that have not authenticated.
type HalfOpenStatus struct {
	Total    int             `json:"total"`
	Most     int             `json:"most"`      // places there are
	Past     int             `json:"exchanged"` // whose key exchange is done
	Networks []NetworkStatus `json:"networks"`  // most first
	More     int             `json:"more_networks"`
}

// NetworkStatus is how many a network holds.
type NetworkStatus struct {
	Network string `json:"network"`
	Count   int    `json:"count"`
}

// RefusedStatus is a count of refusals before admission.
type RefusedStatus struct {
	Network string          `json:"network,omitempty"`
	Reason  policies.Reason `json:"reason"`
	Minute  time.Time       `json:"minute"`
	Count   int             `json:"count"`
}

// AuditStatus is whether the audit log takes records.
type AuditStatus struct {
	Works   bool       `json:"works"` // the last record was written, and the log is well
	Records uint64     `json:"records"`
	Failed  *time.Time `json:"failed,omitempty"` // the last time that one was not
	Error   string     `json:"error,omitempty"`
}

// watchedLog is the audit log, and how it does.
type watchedLog struct {
	auditLog
	metrics *metrics
	mu      sync.Mutex
	status  AuditStatus
}

func (w *watchedLog) Append(event string, record any) error {
	began := time.Now()
	return w.note(began, w.auditLog.Append(event, record))
}

func (w *watchedLog) AppendOpening(event string, record any) error {
	began := time.Now()
	return w.note(began, w.auditLog.AppendOpening(event, record))
}

func (w *watchedLog) note(began time.Time, err error) error {
	w.metrics.appended(time.Since(began), err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status.Works = err == nil; w.status.Works {
		w.status.Records++
	} else {
		now := time.Now().UTC()
		w.status.Failed, w.status.Error = &now, escape(err.Error(), maxDetail)
	}
	return err
}

func (w *watchedLog) state() AuditStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// status is bounded, whatever the tables hold.
func (s *Server) status(now time.Time) Status {
	r := s.ruling.Load()
	status := Status{
		Kind: kindStatus, At: now.UTC(), Began: s.began.UTC(), Listen: s.listener.Addr().String(),
		Fleet: r.bundle.Fleet, Policy: r.bundle.Version, PolicyExpires: r.bundle.Expires.UTC(), Level: r.bundle.Policy.SSH.Level,
		CertificateExpires: r.keys.validBefore().UTC(), HalfOpen: s.startups.status(r.limits.MaxStartups), DroppedByFilter: s.drops.Load(),
	}
	status.Fresh = r.fresh.status()
	status.Sandbox = s.sandboxStatus()
	status.Plugins = s.pluginsStatus(r)
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	status.Goroutines, status.HeapBytes = runtime.NumGoroutine(), memory.HeapInuse
	if end := s.drain.end(); !end.IsZero() {
		end = end.UTC()
		status.DrainingUntil = &end
	}
	if w, ok := s.audit.(*watchedLog); ok {
		status.Audit = w.state()
		if err := s.audit.Healthy(); err != nil {
			status.Audit.Works, status.Audit.Error = false, escape(err.Error(), maxDetail)
		}
	}
	sessions := []SessionStatus{}
	for v := range s.sessions.list() {
		sessions = append(sessions, v.status())
	}
	slices.SortFunc(sessions, func(a, b SessionStatus) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Connection, b.Connection))
	})
	status.Sessions, status.MoreSessions = bounded(sessions, maxStatusSessions)
	list, all := s.penalties.list(maxStatusPenalties, now)
	status.Penalties, status.MorePenalties = listed(list), all-len(list)
	status.Refused, status.MoreRefused = s.refusals.status()
	return status
}

// bounded is the beginning of a list, never nil, and how many it leaves out.
func bounded[T any](list []T, most int) ([]T, int) {
	n := min(most, len(list))
	return listed(list[:n:n]), len(list) - n
}

// status of a session: of what it entered with, which changes no more.
func (v *visit) status() SessionStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	status := SessionStatus{Connection: v.id, User: v.entered.user, Identity: v.entered.identity, Key: v.entered.key,
		Source: v.source.String(), Balancer: v.balancer(), Since: v.began.UTC(), Up: v.record.Up, Down: v.record.Down, Targets: []TargetStatus{}}
	for _, o := range v.open {
		up, down := o.up.Load(), o.down.Load()
		status.Up += up
		status.Down += down
		if len(status.Targets) >= maxStatusTargets {
			status.More++
			continue
		}
		status.Targets = append(status.Targets, TargetStatus{Server: o.target.Server, Port: o.target.Port, Since: o.began.UTC(), Up: up, Down: down})
	}
	return status
}

// entered is who a visit has let in, for who looks from outside.
type entered struct {
	user, key string
	identity  policies.Kind
}

// shows notes it before the visit takes its place among the sessions.
func (v *visit) shows(user string, c credential) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.entered = entered{user: escape(user, maxText), key: c.fingerprint, identity: c.identity}
}

func (s *startups) status(most int) HalfOpenStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := HalfOpenStatus{Total: len(s.all), Most: most}
	for _, p := range s.all {
		if p.stage.Load() >= stageExchanged {
			status.Past++
		}
	}
	var networks []NetworkStatus
	for n, h := range s.bySource {
		networks = append(networks, NetworkStatus{name(n), h.places})
	}
	slices.SortFunc(networks, func(a, b NetworkStatus) int { return cmp.Or(b.Count-a.Count, cmp.Compare(a.Network, b.Network)) })
	status.Networks, status.More = bounded(networks, maxStatusNetworks)
	return status
}

func (r *refusals) status() ([]RefusedStatus, int) {
	r.mu.Lock()
	var counts []RefusedStatus
	for key, c := range r.counts {
		counts = append(counts, RefusedStatus{Network: name(key.network), Reason: key.reason, Minute: c.began.UTC(), Count: c.total})
	}
	r.mu.Unlock()
	slices.SortFunc(counts, func(a, b RefusedStatus) int {
		return cmp.Or(b.Count-a.Count, cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Network, b.Network))
	})
	return bounded(counts, maxStatusRefused)
}

// name of a network; empty if nobody knows it.
func name(n netip.Prefix) string {
	if !n.IsValid() {
		return ""
	}
	return n.String()
}
