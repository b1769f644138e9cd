package pivcard

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"mayfly/internal/hint"
)

// Request is a line to a card's control socket.
type Request struct {
	Do       string   `json:"do"`
	Mode     string   `json:"mode,omitempty"`     // mode: manual, auto, refused, late
	Window   string   `json:"window,omitempty"`   // mode: how long the card waits for a touch
	Wait     bool     `json:"wait,omitempty"`     // touch, refuse: wait until the card asks
	Key      *KeyPlan `json:"key,omitempty"`      // generate, import
	PEM      string   `json:"pem,omitempty"`      // import: a PKCS #8 key
	Faults   *Faults  `json:"faults,omitempty"`   // faults
	Firmware string   `json:"firmware,omitempty"` // firmware
	Issuer   string   `json:"issuer,omitempty"`   // replace: an issuer's file
	Chain    Chain    `json:"chain,omitempty"`    // replace
}

// Reply is the answer to it, one line: an error, or what the card looks like then.
type Reply struct {
	Error  string `json:"error,omitempty"`
	Card   *Shown `json:"card,omitempty"`
	Inside bool   `json:"inside"`        // in the reader
	Why    string `json:"why,omitempty"` // why not, though it should be
}

// Implementation constants.
const (
	maxControlLine    = 64 << 10
	maxControlClients = 16
	controlPatience   = 60 * time.Second // for one request, and between two of a client
	controlTalk       = 10 * time.Second // to write an answer
)

// Control is the socket at which a card is held in the hand.
type Control struct {
	Card *Card
	Slot *Slot // nil: the card cannot be pulled
}

// ListenControl opens a control socket, 0600. A file that is there already is refused unless it is a socket at which nobody answers.
func ListenControl(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("opening control socket %s: a file that is no socket is there", path)
		}
		if conn, err := net.Dial("unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("opening control socket %s: another card answers there", path), conn.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("opening control socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("opening control socket: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers at a control socket until ctx ends, and closes it and every connection.
func (k *Control) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var clients sync.WaitGroup
	defer clients.Wait()
	places := make(chan struct{}, maxControlClients)
	for {
		select { // who finds no place waits for one; a client that says nothing for long loses its own
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting at the control socket: %w", err)
		}
		clients.Go(func() {
			defer func() { <-places }()
			k.client(ctx, conn)
		})
	}
}

func (k *Control) client(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxControlLine)
	for {
		if conn.SetReadDeadline(time.Now().Add(controlPatience)) != nil || !lines.Scan() {
			return
		}
		reply := k.line(ctx, lines.Bytes())
		data, err := json.Marshal(reply)
		if err != nil || conn.SetWriteDeadline(time.Now().Add(controlTalk)) != nil {
			return
		}
		if _, err := conn.Write(append(data, '\n')); err != nil {
			return
		}
	}
}

// line does what a line says.
func (k *Control) line(ctx context.Context, line []byte) Reply {
	var r Request
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	err := dec.Decode(&r)
	if err == nil && dec.More() {
		err = errors.New("more than one object in a line")
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, controlPatience)
		err = k.do(ctx, r)
		cancel()
	} else {
		err = fmt.Errorf("reading a request: %w", err)
	}
	shown := k.Card.Show()
	reply := Reply{Card: &shown}
	if k.Slot != nil {
		var why error
		if reply.Inside, why = k.Slot.State(); why != nil {
			reply.Why = why.Error()
		}
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}

func (k *Control) do(ctx context.Context, r Request) error {
	switch r.Do {
	case "show":
		return nil
	case "touch", "refuse":
		if r.Wait {
			if err := k.Card.Touch.Asked(ctx); err != nil {
				return err
			}
		}
		if r.Do == "touch" {
			return k.Card.Touch.Give()
		}
		return k.Card.Touch.Refuse()
	case "mode":
		return k.mode(r)
	case "pull", "insert":
		if k.Slot == nil {
			return errors.New("this card is in no reader")
		}
		if r.Do == "pull" {
			return k.Slot.Pull(ctx)
		}
		return k.Slot.Insert(ctx)
	case "generate":
		if r.Key == nil {
			return errors.New("generate wants a key")
		}
		_, err := k.Card.Generate(*r.Key)
		return err
	case "import":
		return k.importKey(r)
	case "faults":
		if r.Faults == nil {
			r.Faults = &Faults{}
		}
		return k.Card.SetFaults(*r.Faults)
	case "firmware":
		var f Firmware
		if err := f.UnmarshalText([]byte(r.Firmware)); err != nil {
			return err
		}
		return k.Card.SetFirmware(f)
	case "replace":
		issuer, err := LoadIssuer(r.Issuer)
		if err != nil {
			return err
		}
		return k.Card.Replace(issuer, r.Chain)
	}
	return fmt.Errorf("no request %q: want show, touch, refuse, mode, pull, insert, generate, import, faults, firmware or replace", r.Do)
}

func (k *Control) mode(r Request) error {
	if r.Window != "" {
		d, err := time.ParseDuration(r.Window)
		if err != nil {
			return err
		}
		if err := k.Card.Touch.SetWindow(d); err != nil {
			return err
		}
	}
	if r.Mode == "" {
		return nil
	}
	return k.Card.Touch.SetMode(TouchMode(r.Mode))
}

func (k *Control) importKey(r Request) error {
	block, _ := pem.Decode([]byte(r.PEM))
	if r.Key == nil || block == nil {
		return errors.New("import wants a slot and a PEM file")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	_, err = k.Card.Import(*r.Key, key)
	return err
}

// Ask sends one request to a control socket.
func Ask(ctx context.Context, socket string, r Request) (Reply, error) {
	fail := func(err error) (Reply, error) {
		return Reply{}, hint.New(fmt.Errorf("asking the virtual card at %s: %w", socket, err), "testenv pivcard serve holds a card; its --control is this path")
	}
	ctx, cancel := context.WithTimeout(ctx, controlPatience+controlTalk)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	data, err := json.Marshal(r)
	if err != nil {
		return fail(err)
	}
	if _, err := conn.Write(append(data, '\n')); err != nil {
		return fail(err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxControlLine)).ReadBytes('\n')
	if err != nil {
		return fail(errors.Join(err, context.Cause(ctx)))
	}
	var reply Reply
	if err := json.Unmarshal(line, &reply); err != nil {
		return fail(err)
	}
	if reply.Error != "" {
		return reply, errors.New(reply.Error)
	}
	return reply, nil
}
