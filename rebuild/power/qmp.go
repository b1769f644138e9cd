package power

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Bounds of QMP (QEMU's docs/interop/qmp-spec.txt).
const (
	maxQMPLine   = 1 << 20
	maxQMPEvents = 1000
	qmpTimeout   = 2 * time.Minute
)

// qmp runs one command on a connection of its own and reads its result into out, unless that is nil.
func (q *QEMU) qmp(ctx context.Context, command string, arguments, out any) (err error) {
	// A socket's path has at most 107 bytes, a directory's may be longer.
	dir, err := os.Open(q.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, qmpTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), qmpSocket))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // wakes a blocked read; its error is the answer
	defer stop()

	in := bufio.NewScanner(conn)
	in.Buffer(nil, maxQMPLine)
	if _, err := nextQMP(in); err != nil { // the greeting
		return fmt.Errorf("qmp greeting: %w", err)
	}
	for _, step := range []struct {
		name      string
		arguments any
		out       any
	}{{"qmp_capabilities", nil, nil}, {command, arguments, out}} {
		request := map[string]any{"execute": step.name}
		if step.arguments != nil {
			request["arguments"] = step.arguments
		}
		if err := json.NewEncoder(conn).Encode(request); err != nil {
			return fmt.Errorf("qmp %s: %w", step.name, err)
		}
		result, err := nextQMP(in)
		if err != nil {
			return fmt.Errorf("qmp %s: %w", step.name, err)
		}
		if step.out != nil {
			if err := json.Unmarshal(result, step.out); err != nil {
				return fmt.Errorf("qmp %s: %w", step.name, err)
			}
		}
	}
	return nil
}

// nextQMP reads the next line that is not an event.
func nextQMP(in *bufio.Scanner) (json.RawMessage, error) {
	for range maxQMPEvents {
		if !in.Scan() {
			return nil, errors.Join(errors.New("connection ended"), in.Err())
		}
		var line struct {
			QMP    json.RawMessage `json:"QMP"`
			Event  string          `json:"event"`
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return nil, err
		}
		switch {
		case line.Event != "":
			continue
		case line.Error != nil:
			return nil, errors.New(line.Error.Desc)
		case line.QMP != nil:
			return line.QMP, nil
		}
		return line.Return, nil
	}
	return nil, fmt.Errorf("more than %d events", maxQMPEvents)
}
