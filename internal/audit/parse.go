package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// parse reads one line, which must be exactly as Append writes it.
func parse(text []byte) (line, error) {
	var v line
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return line{}, fmt.Errorf("not a record: %w", err)
	}
	if again, err := json.Marshal(v); err != nil || !bytes.Equal(again, text) {
		return line{}, errors.New("not a record: not as the log writes it")
	}
	if !eventName.MatchString(v.Event) {
		return line{}, errors.New("not a record: its event is no lower-case word")
	}
	return v, nil
}

// newScanner cuts a log into lines of at most MaxLine bytes. A last line without its newline is an error.
func newScanner(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 4096), MaxLine)
	s.Split(func(data []byte, atEOF bool) (advance int, token []byte, err error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			return 0, nil, errors.New("its end is missing")
		}
		return 0, nil, nil
	})
	return s
}
