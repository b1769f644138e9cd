package logins

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxJournalLine bounds one entry of a journal, in bytes.
const maxJournalLine = 1 << 20

// maxReports bounds what one journal may hold.
const maxReports = 4 << 20

// programs are the names of sshd's processes in a journal.
var programs = []string{"sshd", "sshd-session"}

// journalEntry is what is read of an entry (systemd.journal-fields(7)). Fields that begin with an underscore are the journal's own
// word, not the writer's.
type journalEntry struct {
	Time       string          `json:"__REALTIME_TIMESTAMP"` // microseconds
	Host       string          `json:"_HOSTNAME"`
	UID        *string         `json:"_UID"`
	Command    *string         `json:"_COMM"`
	Identifier string          `json:"SYSLOG_IDENTIFIER"`
	Message    json.RawMessage `json:"MESSAGE"`
}

// ReadJournal reads the logins from the output of `journalctl -o json`. Only what root's sshd said counts. server is the name of the
// host in the inventory; empty: the first label of the journal's host name.
func ReadJournal(r io.Reader, server string) ([]Report, error) {
	var list []Report
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxJournalLine)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		report, ok, err := readEntry(lines.Bytes(), server)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if ok && len(list) >= maxReports {
			return nil, fmt.Errorf("line %d: more than %d logins", n, maxReports)
		}
		if ok {
			list = append(list, report)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading a journal: %w", err)
	}
	return list, nil
}

func readEntry(line []byte, server string) (Report, bool, error) {
	var e journalEntry
	if err := json.Unmarshal(line, &e); err != nil {
		return Report{}, false, fmt.Errorf("no entry of a journal: %w", err)
	}
	name := e.Identifier
	if e.Command != nil {
		name = *e.Command
	}
	if !slices.Contains(programs, name) || e.UID != nil && *e.UID != "0" {
		return Report{}, false, nil
	}
	text, err := message(e.Message)
	if err != nil {
		return Report{}, false, err
	}
	a, ok, err := Parse(text)
	if !ok {
		return Report{}, false, nil
	}
	micro, terr := strconv.ParseInt(e.Time, 10, 64)
	if terr != nil || micro <= 0 {
		return Report{}, false, errors.New("an entry without __REALTIME_TIMESTAMP")
	}
	if server == "" {
		server, _, _ = strings.Cut(strings.ToLower(e.Host), ".")
	}
	if server == "" {
		return Report{}, false, errors.New("an entry without _HOSTNAME")
	}
	report := Report{Time: time.UnixMicro(micro).UTC(), Server: server, User: a.User, Method: a.Method, Key: a.Key, Peer: a.Peer}
	if err != nil {
		report.Unread = strconv.QuoteToASCII(text[:min(len(text), MaxLine)])
	}
	return report, true, nil
}

// message is text, or bytes where it was not UTF-8 or too long for a text. Null stands for one that was too long for either.
func message(raw json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var b []byte
	if err := json.Unmarshal(raw, &b); err != nil {
		return "", errors.New("an entry whose MESSAGE is neither text nor bytes")
	}
	return string(b), nil
}
