package audit

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/durable"
)

// Implementation constants of offering a log that another process writes.
const (
	offerLook  = time.Second      // how often the log is looked at
	offerAgain = 10 * time.Minute // a log that does not grow is shown to its witnesses as often: what they sign has a time
)

// Offers say what is offered to whom.
type Offers struct {
	Dir       string          // of the log, whose writer is another process
	Log       []note.Verifier // any of them signs
	Witnesses []string        // their submission prefixes
	Keys      []note.Verifier // of their cosignatures; several of one name are one witness
	Enough    int             // witnesses that make a checkpoint worth keeping

	OnRejected func(Rejection) // may be nil
}

// Offer takes the checkpoints of a log that another process writes to its witnesses until ctx ends, and keeps the newest that enough of them
// cosigned in WitnessedFile, which is the one file in the log's directory that this process writes. A log that is not there yet is waited for.
func Offer(ctx context.Context, o Offers) {
	w := newAsking(o.Dir, o.Enough, o.OnRejected)
	w.mode = 0o644 // its readers are others than who wrote it
	for _, url := range o.Witnesses {
		w.add(url, url, o.Keys...)
	}
	defer w.client.CloseIdleConnections()
	stop := context.AfterFunc(ctx, w.stop)
	defer stop()
	w.head = func() (Checkpoint, []byte, error) { return readHead(o.Dir, o.Log) }
	var offered Checkpoint // the last that all of them cosigned
	var at, tried time.Time
	tick := time.NewTicker(offerLook)
	defer tick.Stop()
	for {
		c, _, err := w.head()
		now := time.Now()
		due := (c != offered || now.Sub(at) >= offerAgain) && now.Sub(tried) >= witnessEvery
		if err == nil && due && c.Size > 0 { // an empty log shows nothing, and would hold its first entry up
			tried = now
			if w.offer() {
				offered, at = c, now
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readHead is the newest checkpoint of a log, as one of its own keys signed it.
func readHead(dir string, log []note.Verifier) (c Checkpoint, signed []byte, err error) {
	data, err := durable.ReadRegular(filepath.Join(dir, checkpointFile), MaxCheckpoint)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	err = ErrForged
	for _, v := range log {
		if c, _, err = OpenCheckpoint(data, v); err == nil {
			return c, data, nil
		}
	}
	return Checkpoint{}, nil, err
}
