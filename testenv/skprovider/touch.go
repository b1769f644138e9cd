package skprovider

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

// ErrLate is a touch that nobody waited for any more.
var ErrLate = errors.New("the key had given up before it was touched")

// Words between the key and its finger, a line each.
const (
	wordGiven   = "given\n"
	wordRefused = "refused\n"
	wordTaken   = "taken\n"
)

// Ask is the key asking for a touch.
type Ask struct {
	Operation   string `json:"operation"`
	Application string `json:"application"`

	conn net.Conn
	in   *bufio.Reader
}

// Give touches the key. ErrLate: it had given up.
func (a *Ask) Give() error {
	defer a.conn.Close()
	if _, err := a.conn.Write([]byte(wordGiven)); err != nil {
		return ErrLate
	}
	if word, err := a.in.ReadString('\n'); err != nil || word != wordTaken {
		return ErrLate
	}
	return nil
}

// Refuse tells the key that nobody will touch it.
func (a *Ask) Refuse() error {
	defer a.conn.Close()
	_, err := a.conn.Write([]byte(wordRefused))
	return err
}

// Wait returns when the key has given up waiting; a Give after that is late.
func (a *Ask) Wait() { _, _ = a.in.ReadByte() }

// Finger is asked for each touch of a key whose Touch is TouchAsked.
type Finger struct {
	Asks <-chan *Ask
}

// Attend lets this process be the key's finger until ctx ends. One process attends at a time.
func (d *Device) Attend(ctx context.Context) (*Finger, error) {
	path := d.path(socketFile)
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(errors.New("another process is this key's finger"), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("attending a software security key: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("attending a software security key: %w", err)
	}
	asks := make(chan *Ask)
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		defer close(asks)
		defer l.Close()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			ask := &Ask{conn: conn, in: bufio.NewReader(conn)}
			line, err := ask.in.ReadBytes('\n')
			if err != nil || json.Unmarshal(line, ask) != nil {
				conn.Close()
				continue
			}
			select {
			case asks <- ask:
			case <-ctx.Done():
				conn.Close()
				return
			}
		}
	}()
	return &Finger{Asks: asks}, nil
}

// touch waits for a touch, or refuses. The caller does not hold the lock.
func (d *Device) touch(s Settings, operation, application string) error {
	switch s.Touch {
	case TouchGiven:
		return nil
	case TouchAsked:
		return d.ask(s, operation, application)
	}
	return refuse(General, "nobody touched the key")
}

func (d *Device) ask(s Settings, operation, application string) error {
	conn, err := net.Dial("unix", d.path(socketFile))
	if err != nil {
		return refuse(General, "nobody attends the key: %v", err)
	}
	defer conn.Close()
	patience := s.Patience
	if patience == 0 {
		patience = DefaultPatience
	}
	line, err := json.Marshal(Ask{Operation: operation, Application: application})
	if err == nil {
		_, err = conn.Write(append(line, '\n'))
	}
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience)) // from when it has asked
	}
	if err != nil {
		return refuse(General, "asking for a touch: %v", err)
	}
	word, err := bufio.NewReader(conn).ReadString('\n')
	switch {
	case err != nil:
		return refuse(General, "nobody touched the key in time: %v", err)
	case word != wordGiven:
		return refuse(General, "nobody touched the key")
	}
	if _, err := conn.Write([]byte(wordTaken)); err != nil {
		return refuse(General, "nobody touched the key: its finger left: %v", err)
	}
	return nil
}
