package inclusion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

var eventName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)

// IsEvent reports whether a record's event may have this name.
func IsEvent(name string) bool { return eventName.MatchString(name) }

// Entry is one record of the log: an object with these keys in this order, without white space.
type Entry struct {
	Time   time.Time       `json:"time"`
	Event  string          `json:"event"`
	Record json.RawMessage `json:"record"`
}

// ParseEntry reads one entry, which must be exactly as the log writes it.
func ParseEntry(text []byte) (Entry, error) {
	var e Entry
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return Entry{}, fmt.Errorf("not a record: %w", err)
	}
	if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, text) {
		return Entry{}, errors.New("not a record: not as the log writes it")
	}
	if !IsEvent(e.Event) {
		return Entry{}, errors.New("not a record: its event is no lower-case word")
	}
	return e, nil
}
