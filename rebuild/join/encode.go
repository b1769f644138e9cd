package join

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Encode returns the one form in which a message travels: compact JSON, fields in the order of the type, HTML characters escaped.
func Encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	return b, nil
}

// Decode reads a message and accepts nothing that Encode would not have written: no unknown, repeated or otherwise spelled
// field, nothing before or after. Its errors are *Refusal with BodyMalformed or BodyOversize.
func Decode[T any](data []byte, limit int) (T, error) {
	var v, zero T
	if len(data) > limit {
		return zero, Refuse(BodyOversize, "%d bytes, at most %d", len(data), limit)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return zero, Refuse(BodyMalformed, "%v", err)
	}
	again, err := json.Marshal(v)
	if err != nil {
		return zero, Refuse(BodyMalformed, "%v", err)
	}
	if !bytes.Equal(again, data) {
		return zero, Refuse(BodyMalformed, "not in the form that the protocol fixes")
	}
	return v, nil
}

// ReadBody reads a whole body of at most limit bytes.
func ReadBody(r io.Reader, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("reading a body: %w", err)
	}
	if len(b) > limit {
		return nil, Refuse(BodyOversize, "more than %d bytes", limit)
	}
	return b, nil
}

// IsRefusal returns the refusal that err is or wraps.
func IsRefusal(err error) (*Refusal, bool) {
	r, ok := errors.AsType[*Refusal](err)
	return r, ok
}
