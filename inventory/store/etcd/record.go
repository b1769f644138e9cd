package etcd

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"mayfly/inventory/store"
)

// Keys, below the prefix (docs/formats/store-etcd.md). Numbers are of 20 digits, so that they are in order.
const (
	keyVersion   = "version"
	keyImporting = "importing"
	keyPolicy    = "policy"
	keyPause     = "pause"
	keyUse       = "use"
	keyOpen      = "open"  // the open run's number
	keyLast      = "ended" // of the run that ended last
	keyLive      = "live/" // what checks are decided from: one watch sees it
	keyGuard     = "live/guard"
	keyHealth    = "live/health/"
	keyServer    = "live/server/"
	keyClaim     = "claim/"
	keyTicket    = "ticket/"
	keyRevoked   = "revoked/"
	keyFailure   = "failure/"
	keyDrain     = "drain/"
	keyRestart   = "restart/"
	keyExtension = "extension/"
	keyEvent     = "event/"
	keyRun       = "run/"
	keyPlan      = "plan/"
	keyJournal   = "journal/"
	keyOutcome   = "outcome/"
	keyMark      = "mark/"
	keyLogin     = "login/"
)

// record is a server as it is kept.
type record struct {
	store.Server
	Ticket string `json:"ticket,omitempty"` // hash of the one ticket that may still be used, hex
	Floor  uint64 `json:"floor,omitempty"`  // the least number of the next life
}

// guard is written with every change of a state.
type guard struct {
	Event int64 `json:"event"` // the number of the last event
}

// report is a server's newest report of health. It is kept apart, for it changes all the time.
type report struct {
	Epoch  uint64    `json:"epoch"`
	At     time.Time `json:"at"`
	Health []byte    `json:"health"`
}

func (s *shared) key(parts ...string) string { return s.prefix + strings.Join(parts, "") }

func number(n uint64) string { return fmt.Sprintf("%020d", n) }

func (s *shared) eventKey(id int64) string { return s.key(keyEvent, number(uint64(id))) }
func (s *shared) runKey(id int64) string   { return s.key(keyRun, number(uint64(id))) }

func (s *shared) lifeKey(kind, server string, epoch uint64) string {
	return s.key(kind, server, "/", number(epoch))
}

func (s *shared) ticketKey(hash []byte) string { return s.key(keyTicket, hex.EncodeToString(hash)) }

func (s *shared) markKey(version uint64, digest string) string {
	return s.key(keyMark, number(version), "/", digest)
}

// lastNumber is the number at a key's end.
func lastNumber(key string) (int64, error) {
	n, err := strconv.ParseInt(key[strings.LastIndexByte(key, '/')+1:], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("key %q: %w", key, err)
	}
	return n, nil
}

// decode reads the value of a key.
func decode(kv *mvccpb.KeyValue, v any) error {
	if err := json.Unmarshal(kv.Value, v); err != nil {
		return fmt.Errorf("key %q holds something else than it should: %w", kv.Key, err)
	}
	return nil
}

// utc brings a record's times, which JSON gives in their own zones, into the form of the store.
func utc(times ...*time.Time) {
	for _, t := range times {
		if !t.IsZero() {
			*t = t.UTC()
		}
	}
}
