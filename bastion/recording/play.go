package recording

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"
)

// ErrTruncated is returned for a recording that lacks its end: the bastion was stopped hard, its disk was full, or somebody cut or
// changed it. The encryption does not tell these apart.
var ErrTruncated = errors.New("the recording is damaged or lacks its end")

// ErrIdentity is returned when none of the identities can read it.
var ErrIdentity = errors.New("none of the identities can read this recording")

// Open decrypts a recording and reads its header.
func Open(r io.Reader, identities ...age.Identity) (*Reader, error) {
	plain, err := age.Decrypt(r, identities...)
	var nobody *age.NoIdentityMatchError
	if errors.As(err, &nobody) {
		return nil, ErrIdentity
	}
	if err != nil {
		return nil, fmt.Errorf("opening recording: %w: %w", ErrTruncated, err)
	}
	c, err := NewReader(plain)
	if err != nil {
		return nil, fmt.Errorf("opening recording: %w", err)
	}
	return c, nil
}

// Pace is how a recording is shown.
type Pace struct {
	Speed   float64       // 2 is twice as fast
	MaxIdle time.Duration // longest wait; 0 is no bound
}

// Play shows a recording as it was seen, and returns how it ended.
func (c *Reader) Play(ctx context.Context, out io.Writer, pace Pace) (how string, err error) {
	last := 0.0
	return c.each(func(e Event) error {
		wait := time.Duration((e.Seconds - last) / pace.Speed * float64(time.Second))
		last = e.Seconds
		if pace.MaxIdle > 0 {
			wait = min(wait, pace.MaxIdle)
		}
		if wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		data := []byte(e.Data)
		switch e.Kind {
		case KindOutput:
		case KindRawOutput:
			var err error
			if data, err = base64.StdEncoding.DecodeString(e.Data); err != nil {
				return err
			}
		default:
			return nil
		}
		_, err := out.Write(data)
		return err
	})
}

// Dump writes header and events as JSON lines.
func (c *Reader) Dump(out io.Writer) (how string, err error) {
	encoder := json.NewEncoder(out)
	if err := encoder.Encode(c.Header); err != nil {
		return "", err
	}
	return c.each(func(e Event) error {
		return encoder.Encode(struct {
			Seconds float64 `json:"seconds"`
			Kind    string  `json:"kind"`
			Data    string  `json:"data"`
		}{e.Seconds, e.Kind, e.Data})
	})
}

// each hands every event on. A recording that ends without its marker, or has something after it, is not whole.
func (c *Reader) each(f func(Event) error) (how string, err error) {
	ended := false
	for {
		e, err := c.Next()
		if errors.Is(err, io.EOF) {
			if !ended {
				return "", ErrTruncated
			}
			return how, nil
		}
		if err != nil {
			return "", err
		}
		if ended {
			return "", fmt.Errorf("%w: an event after the end", errCast)
		}
		if e.Kind == KindMarker {
			ended, how = true, e.Data
		}
		if err := f(e); err != nil {
			return "", err
		}
	}
}
