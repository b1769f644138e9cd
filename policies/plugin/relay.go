package plugin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Bounds of the relay.
const (
	MaxAtOnce  = 64                     // questions under way; one more is refused as failed
	relayGrace = 250 * time.Millisecond // beyond a plugin's deadline, for the way to it and back
	maxQueued  = 4 * MaxAtOnce          // lines that wait for the host to read; one more fails
	writeLimit = 30 * time.Second       // for one line; a host that reads nothing for so long is taken for gone
)

// message is one line on the socket between bastion and host.
type message struct {
	ID      uint64   `json:"id,omitempty"`
	Pins    []Pin    `json:"pins,omitempty"` // with ID 0: these run from now on; with another: these are asked
	Request *Request `json:"request,omitempty"`
	Verdict *Verdict `json:"verdict,omitempty"`
}

// Relay is the bastion's end of the socket. Once the other end is gone, every question fails. Nobody who asks ever waits for the
// socket: a host that does not read, which a plugin as the same user can bring about, makes answers late and nothing else.
type Relay struct {
	conn io.ReadWriteCloser

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Verdict
	queue   []line
	err     error // set for good when the host is gone
	more    chan struct{}
	done    chan struct{}
	written chan struct{}
}

// line is a message on its way to the host.
type line struct {
	id   uint64 // 0: of nobody who waits
	data []byte
}

// NewRelay speaks to a host over conn until Close.
func NewRelay(conn io.ReadWriteCloser) *Relay {
	r := &Relay{conn: conn, waiting: map[uint64]chan Verdict{}, more: make(chan struct{}, 1), done: make(chan struct{}), written: make(chan struct{})}
	go r.read()
	go r.write()
	return r
}

// Close ends the host, and with it the plugins.
func (r *Relay) Close() error {
	err := r.conn.Close()
	<-r.done
	<-r.written
	return err
}

// Done is closed when the host is gone.
func (r *Relay) Done() <-chan struct{} { return r.done }

// Pin says which plugins are to run. It does not wait for the host.
func (r *Relay) Pin(pins []Pin) error { return r.send(message{Pins: pins, Request: &Request{}}) }

// Decide asks the plugins of these pins, in order, until one denies.
func (r *Relay) Decide(ctx context.Context, pins []Pin, q Request) Verdict {
	limit := relayGrace
	for _, p := range pins {
		limit += p.Deadline
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan Verdict, 1)
	r.mu.Lock()
	if r.err != nil || len(r.waiting) >= MaxAtOnce {
		err := r.err
		r.mu.Unlock()
		return Verdict{Outcome: Failed, Text: fmt.Sprintf("too many questions at once, or no host: %v", err)}
	}
	r.next++
	id := r.next
	r.waiting[id] = answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, id)
	}()
	if err := r.send(message{ID: id, Pins: pins, Request: &q}); err != nil {
		return Verdict{Outcome: Failed, Text: err.Error()}
	}
	select {
	case v := <-answer:
		return v
	case <-ctx.Done():
		return Verdict{Outcome: Late, Text: "no answer within " + limit.String()}
	}
}

// send puts a message into the queue.
func (r *Relay) send(m message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return r.err
	case len(data) >= MaxMessage:
		return errors.New("a question that is too long")
	case len(r.queue) >= maxQueued:
		return errors.New("the plugins' host does not read")
	}
	r.queue = append(r.queue, line{m.ID, append(data, '\n')})
	select {
	case r.more <- struct{}{}:
	default: // it knows
	}
	return nil
}

// take is the next line to write; questions whose asker has given up are left out.
func (r *Relay) take() ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 {
		first := r.queue[0]
		r.queue = r.queue[1:]
		if first.id == 0 || r.waiting[first.id] != nil {
			return first.data, true
		}
	}
	r.queue = nil
	return nil, false
}

// write is the only one that waits for the host to read. A host that does not is cut off.
func (r *Relay) write() {
	defer close(r.written)
	for {
		select {
		case <-r.done:
			return
		case <-r.more:
		}
		for data, ok := r.take(); ok; data, ok = r.take() {
			hung := time.AfterFunc(writeLimit, r.cutOff)
			_, err := r.conn.Write(data)
			hung.Stop()
			if err != nil {
				r.cutOff()
				return
			}
		}
	}
}

// cutOff ends the socket, which read notices.
func (r *Relay) cutOff() {
	if err := r.conn.Close(); err != nil {
		return // it is closed already
	}
}

func (r *Relay) read() {
	defer close(r.done)
	lines := bufio.NewScanner(r.conn)
	lines.Buffer(make([]byte, 0, 4096), MaxMessage)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil || m.Verdict == nil {
			break // whoever is there is not our host any more
		}
		r.mu.Lock()
		answer := r.waiting[m.ID]
		delete(r.waiting, m.ID)
		r.mu.Unlock()
		if answer != nil {
			answer <- *m.Verdict
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.New("the plugins' host is gone")
	for id, answer := range r.waiting {
		answer <- Verdict{Outcome: Failed, Text: r.err.Error()}
		delete(r.waiting, id)
	}
	if err := r.conn.Close(); err != nil {
		r.err = fmt.Errorf("%w: %w", r.err, err)
	}
}

// Decider is what a host does.
type Decider interface {
	Pin([]Pin)
	Decide(context.Context, []Pin, Request) Verdict
}

// ServeRelay answers a bastion over conn with what d decides, until the bastion is gone.
func ServeRelay(ctx context.Context, conn io.ReadWriteCloser, d Decider) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	var writing sync.Mutex
	places := make(chan struct{}, MaxAtOnce)
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), MaxMessage)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil || m.Request == nil {
			return fmt.Errorf("the bastion sent what is no question: %w", err)
		}
		if m.ID == 0 {
			d.Pin(m.Pins)
			continue
		}
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			v := d.Decide(ctx, m.Pins, *m.Request)
			data, err := json.Marshal(message{ID: m.ID, Verdict: &v})
			if err != nil {
				return
			}
			writing.Lock()
			defer writing.Unlock()
			if _, err := conn.Write(append(data, '\n')); err != nil {
				cancel()
			}
		})
	}
	return lines.Err()
}
