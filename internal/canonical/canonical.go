// Package canonical is the one form of JSON that mayfly signs: struct order, two spaces of indent, no HTML escapes, a newline at
// the end. Parse accepts nothing else, so that what was read and what was signed cannot differ: an unknown field, a
// duplicate, another case, other white space and trailing data are all refused by comparing bytes.
package canonical

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Marshal returns v in canonical form.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Parse reads data of at most limit bytes into v, a pointer to a zero value. What v then holds marshals to the same bytes.
func Parse(data []byte, limit int, v any) error {
	if len(data) > limit {
		return fmt.Errorf("longer than %d bytes", limit)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("not in canonical form: differs at byte %d", differ(again, data))
	}
	return nil
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
