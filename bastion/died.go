package bastion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"mayfly/internal/audit"
	"mayfly/policies"
)

// Implementation constants of looking for connections that a bastion took with it.
const (
	// longestSession is more than any policy lets a connection last: whoever was let in longer before the last record was not in any more.
	longestSession = 25 * time.Hour

	maxLookBack  = 1 << 17 // records, so that a bastion starts soon whatever its log holds
	diedAtOnce   = 64      // closing records that are written together, which share the log's batches
	diedRecordAs = "no closing record was written before the bastion ended: the bytes and the time of the end are not known"
)

// died is a connection whose login the log has, and not its end.
type died struct {
	at      time.Time // of the login's record
	last    time.Time // of the last record of it
	login   loginRecord
	targets []openingRecord // oldest first
	more    int
}

// findDied reads the log back to where the last run began, or as far as somebody can have been in, and returns who was let in and has no
// closing record, the oldest first. The closing records that this run writes come before its own record "serve": who is killed between them
// finds the rest at the next start. cut is true if the bound of the look ended it.
func findDied(dir string) (list []died, cut bool, err error) {
	type trace struct {
		last    time.Time
		targets []openingRecord
		more    int
	}
	closed, open := make(map[string]bool), make(map[string]*trace)
	var newest time.Time
	read := 0
	err = audit.ReadBack(dir, func(index uint64, text []byte) error {
		at, event, connection, err := skim(text)
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		if newest.IsZero() {
			newest = at
		}
		if read++; read > maxLookBack {
			cut = true
			return audit.ErrEnough
		}
		if event == eventServe || newest.Sub(at) > longestSession {
			return audit.ErrEnough
		}
		if event != eventConnection && event != eventTarget && event != eventLogin {
			return nil
		}
		if event == eventConnection {
			closed[connection] = true
		}
		if closed[connection] {
			return nil
		}
		var e audit.Entry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		t := open[connection]
		if t == nil {
			t = &trace{last: at}
			open[connection] = t
		}
		if event == eventTarget {
			var r openingRecord
			if err := json.Unmarshal(e.Record, &r); err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
			if t.targets = append(t.targets, r); len(t.targets) > maxTargets { // the first ones are kept, as while it lives
				t.targets, t.more = t.targets[1:], t.more+1
			}
			return nil
		}
		d := died{at: at, last: t.last, targets: t.targets, more: t.more}
		if err := json.Unmarshal(e.Record, &d.login); err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		slices.Reverse(d.targets)
		list = append(list, d)
		closed[connection] = true
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // there is no log yet
	}
	slices.Reverse(list)
	return list, cut, err
}

// skim reads what every record begins with: the log writes it in one way only (audit.ParseEntry), and the records of connections begin with
// their connection. It is many times faster than to parse whole records of which nearly all are of no interest.
func skim(text []byte) (at time.Time, event, connection string, err error) {
	rest, ok := bytes.CutPrefix(text, []byte(`{"time":"`))
	stamp, rest, found := bytes.Cut(rest, []byte(`","event":"`))
	name, rest, named := bytes.Cut(rest, []byte(`","record":`))
	if !ok || !found || !named {
		return at, "", "", errors.New("not a record")
	}
	if at, err = time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return at, "", "", fmt.Errorf("not a record: %w", err)
	}
	if id, is := bytes.CutPrefix(rest, []byte(`{"connection":"`)); is {
		id, _, _ = bytes.Cut(id, []byte(`"`))
		connection = string(id)
	}
	return at, string(name), connection, nil
}

// record is the closing record that was never written, of what the log still knows.
func (d died) record() closingRecord {
	l := d.login
	r := closingRecord{
		Connection: l.Connection, Source: l.Source, Balancer: l.Balancer, Outcome: "accepted", Reason: policies.Allowed, Detail: diedRecordAs,
		User: l.User, Identity: l.Identity, Key: l.Key, KeyType: l.KeyType, Evidence: l.Evidence, Certificate: l.Certificate, Test: l.Test,
		Policy: l.Policy, Began: d.at.UTC(), Seconds: max(d.last.Sub(d.at), 0).Round(time.Millisecond).Seconds(), Ended: endDied, MoreTargets: d.more,
	}
	for _, t := range d.targets {
		r.Targets = append(r.Targets, targetRecord{Number: t.Number, Server: t.Server, Address: t.Address, Port: t.Port, Ended: endDied,
			Session: t.Session, Basis: t.Basis})
	}
	return r
}

// closeDied writes the closing records that a bastion which was killed, or lost its power or its disk, could not write. An older log that
// cannot be read keeps nobody out: "bastion audit verify" is for that.
func (s *Server) closeDied() error {
	list, cut, err := findDied(s.config.Audit)
	if err != nil {
		s.log.Error("connections that ended with the last bastion cannot be found in the audit log", "error", err,
			"hint", "bastion audit verify says what is wrong with the log")
	}
	if cut {
		s.log.Warn("the audit log is too long to look for all connections that ended with the last bastion", "records", maxLookBack)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	places := make(chan struct{}, diedAtOnce)
	for _, d := range list {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			if err := s.audit.Append(eventConnection, d.record()); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	all.Wait()
	if failed != nil {
		return fmt.Errorf("closing connections that ended with the last bastion: %w", failed)
	}
	if len(list) > 0 {
		s.log.Warn("connections ended with the last bastion: their closing records are written now", "connections", len(list))
	}
	return nil
}
