package store

import (
	"context"
	"time"
)

// Entry is one record of the journal (docs/formats/journal.md): an effect on a server that is about to happen, or how it ended.
type Entry struct {
	ID      int64     `json:"id,omitempty"`
	Run     int64     `json:"run"`
	At      time.Time `json:"at"`
	Server  string    `json:"server"`
	Epoch   uint64    `json:"epoch"`
	Step    string    `json:"step"`
	Outcome string    `json:"outcome,omitempty"`
	Detail  string    `json:"detail,omitempty"`
}

// Run is a rotation with its plan. It is open until EndRun; there is at most one open run, and every controller works on it.
type Run struct {
	ID        int64     `json:"id"`
	Plan      []byte    `json:"plan,omitempty"`
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended,omitzero"`
	Result    string    `json:"result,omitempty"`
	Cancelled time.Time `json:"cancelled,omitzero"` // from then on it begins nothing; zero: it goes on
	By        string    `json:"by,omitempty"`       // who cancelled it
}

// Outcome is how one server's rotation ended: with it the rotation counts, once.
type Outcome struct {
	Server    string    `json:"server"`
	Epoch     uint64    `json:"epoch"` // the life that it began
	Run       int64     `json:"run"`
	Release   string    `json:"release"` // as SetRelease put it
	Served    bool      `json:"served"`  // false: quarantined
	Restarted bool      `json:"restarted"`
	Attempts  int       `json:"attempts"` // lives that it took
	Failed    int       `json:"failed"`   // of those
	Reason    string    `json:"reason,omitempty"`
	At        time.Time `json:"at"`
}

// Pause is whether rotations begin at all. What is in flight goes on to its end.
type Pause struct {
	On  bool      `json:"on"`
	By  string    `json:"by,omitempty"`
	Why string    `json:"why,omitempty"`
	At  time.Time `json:"at,omitzero"`
}

// Runs are the journal, and what is asked of rotations.
type Runs interface {
	// Record writes one record. It is durable when Record returns.
	Record(ctx context.Context, e Entry) error
	// Journal returns the newest records of a server, oldest first, a bounded number.
	Journal(ctx context.Context, server string) ([]Entry, error)

	// BeginRun writes a plan down before its first step. It fails with ErrRunOpen if another run is open.
	BeginRun(ctx context.Context, plan []byte, now time.Time) (id int64, err error)
	// OpenRun returns the run that is not finished, if there is one.
	OpenRun(ctx context.Context) (Run, bool, error)
	// CancelRun has an open run begin nothing more. A run is cancelled once; ErrStale if it is not open.
	CancelRun(ctx context.Context, id int64, by string, now time.Time) error
	// EndRun closes a run with its result. A run ends once; ErrStale otherwise.
	EndRun(ctx context.Context, id int64, result string, now time.Time) error
	// LastRun returns the run that ended last, if there is one.
	LastRun(ctx context.Context) (Run, bool, error)

	// EndRotation records how a rotation ended; ErrEnded if that of this server and epoch has ended before.
	EndRotation(ctx context.Context, o Outcome) error
	// Outcomes returns those at since or later, oldest first; of a release, or of all with "".
	Outcomes(ctx context.Context, release string, since time.Time) ([]Outcome, error)

	// SetPause says whether rotations begin.
	SetPause(ctx context.Context, p Pause) error
	// Paused returns what SetPause said last.
	Paused(ctx context.Context) (Pause, error)
}
