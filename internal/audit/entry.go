package audit

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/inclusion"
)

// Specification constants: c2sp.org/tlog-tiles.
const (
	MaxEntry   = 1<<16 - 1 // bytes of one entry: its length has 16 bits in an entry bundle
	tileHeight = 8
	tileWidth  = 1 << tileHeight // entries in a bundle, hashes in a tile
)

// EventTorn is the event of the record that notes a frame of the journal which was not whole after a crash.
const EventTorn = "audit_torn"

// Entry is one record of the log: an object with these keys in this order, without white space.
type Entry = inclusion.Entry

// torn is the record of an EventTorn.
type torn struct {
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// appendEntry writes an entry as encoding/json would, around a record that encoding/json wrote.
func appendEntry(b []byte, now time.Time, event string, record []byte) []byte {
	b = append(b, `{"time":"`...)
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","event":"`...)
	b = append(b, event...)
	b = append(b, `","record":`...)
	b = append(b, record...)
	return append(b, '}')
}

// encodeRecord checks what Append was given.
func encodeRecord(event string, record any) ([]byte, error) {
	if !inclusion.IsEvent(event) {
		return nil, errors.New("event is no lower-case word")
	}
	body, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	if len(body)+len(event)+64 > MaxEntry { // 64: the keys and the time
		return nil, fmt.Errorf("longer than %d bytes", MaxEntry)
	}
	return body, nil
}

// ParseEntry reads one entry, which must be exactly as the log writes it.
func ParseEntry(text []byte) (Entry, error) { return inclusion.ParseEntry(text) }

// parseBundle cuts an entry bundle into its first n entries; a bundle of a bigger log may hold more.
func parseBundle(data []byte, n int) ([][]byte, error) {
	entries := make([][]byte, 0, n)
	for len(entries) < n {
		if len(data) < 2 {
			return nil, fmt.Errorf("bundle ends after %d entries of %d", len(entries), n)
		}
		size := int(binary.BigEndian.Uint16(data))
		if len(data) < 2+size {
			return nil, fmt.Errorf("bundle ends within entry %d of %d", len(entries)+1, n)
		}
		entries = append(entries, data[2:2+size])
		data = data[2+size:]
	}
	return entries, nil
}
