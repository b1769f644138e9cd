package card

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/agent"
	"mayfly/internal/hint"
)

// Each use of a card by the agent is a process of its own, which speaks with the agent over its standard input and output: what a card
// answers, and what the libraries on the way to it make of that, ends no more than one use. It holds the card as long as it runs.

// Verb is what that process is started with.
const Verb = "card"

// maxLine bounds one line between the two, in bytes.
const maxLine = 1 << 20

// Limits of what comes from that process.
const (
	maxKeys    = 32
	maxComment = 128
	maxText    = 512
	limitKeys  = 2 * time.Minute
	limitClose = 5 * time.Second
)

// question is a line from the agent to the process.
type question struct {
	Do     string `json:"do"` // "open", "keys", "sign"
	Reader string `json:"reader,omitempty"`
	Serial uint32 `json:"serial,omitempty"`
	State  string `json:"state,omitempty"`
	Slot   string `json:"slot,omitempty"`
	Public []byte `json:"public,omitempty"`
	Data   []byte `json:"data,omitempty"`
}

// answer is a line from the process.
type answer struct {
	Ask    bool      `json:"ask,omitempty"` // for the PIN
	Tries  int       `json:"tries,omitempty"`
	Serial uint32    `json:"serial,omitempty"` // of the card that is open
	Keys   []sentKey `json:"keys,omitempty"`
	Sig    []byte    `json:"signature,omitempty"`

	Fault Fault  `json:"fault,omitempty"`
	Left  int    `json:"left,omitempty"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

type sentKey struct {
	Slot    string `json:"slot"`
	Public  []byte `json:"public"`
	Comment string `json:"comment"`
	Touch   bool   `json:"touch"`
}

// lines sends and receives them, one at a time.
type lines struct {
	in  *bufio.Scanner
	out io.Writer
}

func newLines(in io.Reader, out io.Writer) *lines {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 0, 4<<10), maxLine)
	return &lines{s, out}
}

func (l *lines) send(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = l.out.Write(append(data, '\n'))
	return err
}

// How the line begins that answers a process that asks for a PIN. It is no JSON: encoding/json keeps the buffers that it has used.
const (
	linePIN   = '=' // and the PIN, in hex
	lineNoPIN = '-'
)

// sendPIN answers what asks for a PIN, and keeps nothing of it.
func (l *lines) sendPIN(secret []byte, given bool) error {
	line := make([]byte, 0, 2*len(secret)+2)
	defer clear(line[:cap(line)])
	if given {
		line = hex.AppendEncode(append(line, linePIN), secret)
	} else {
		line = append(line, lineNoPIN)
	}
	_, err := l.out.Write(append(line, '\n'))
	return err
}

// receivePIN is the other end of sendPIN.
func (l *lines) receivePIN() ([]byte, error) {
	if !l.in.Scan() {
		return nil, errors.Join(io.ErrUnexpectedEOF, l.in.Err())
	}
	line := l.in.Bytes()
	defer clear(line)
	if len(line) == 0 || line[0] != linePIN {
		return nil, errors.New("no PIN was given")
	}
	secret := make([]byte, hex.DecodedLen(len(line)-1))
	if _, err := hex.Decode(secret, line[1:]); err != nil {
		clear(secret)
		return nil, errors.New("what was given is no PIN")
	}
	return secret, nil
}

func (l *lines) receive(v any) error {
	if !l.in.Scan() {
		return errors.Join(io.ErrUnexpectedEOF, l.in.Err())
	}
	return json.Unmarshal(l.in.Bytes(), v)
}

// Serve is that process: it opens one card, does what it is asked, and ends with its input.
func Serve(ctx context.Context, in io.Reader, out io.Writer, reach Reach) error {
	l := newLines(in, out)
	var s *session
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	for {
		var q question
		if err := l.receive(&q); errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading what to do: %w", err)
		}
		var (
			a   answer
			err error
		)
		switch {
		case q.Do == "open" && s == nil:
			if s, err = open(ctx, reach, agent.CardInfo{Reader: q.Reader, Serial: q.Serial, State: q.State}); err == nil {
				a.Serial = s.Serial()
			}
		case q.Do == "keys" && s != nil:
			var keys []agent.Key
			keys, err = s.Keys()
			for _, k := range keys {
				a.Keys = append(a.Keys, sentKey{k.Slot, k.Public.Marshal(), k.Comment, k.Touch})
			}
		case q.Do == "sign" && s != nil:
			a.Sig, err = s.serveSign(ctx, l, q)
		default:
			err = fmt.Errorf("asked to %q out of turn", q.Do)
		}
		if err != nil {
			a = answer{Fault: FaultOf(err), Left: left(err), Error: err.Error(), Hint: hint.Of(err)}
			if errors.Is(err, agent.ErrGone) && a.Fault == "" {
				a.Fault = Removed
			}
		}
		if err := l.send(a); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

func (s *session) serveSign(ctx context.Context, l *lines, q question) ([]byte, error) {
	public, err := ssh.ParsePublicKey(q.Public)
	if err != nil {
		return nil, fmt.Errorf("the key to sign with: %w", err)
	}
	sig, err := s.Sign(ctx, agent.Key{Public: public, Slot: q.Slot}, q.Data, func(tries int) ([]byte, error) {
		if err := l.send(answer{Ask: true, Tries: tries}); err != nil {
			return nil, err
		}
		return l.receivePIN()
	})
	if err != nil {
		return nil, err
	}
	return ssh.Marshal(sig), nil
}

// Confined are the cards of this machine, each use of which is a process of its own.
type Confined struct {
	Reach   Reach    // asked for readers alone
	Command []string // starts the process
}

var _ agent.Cards = Confined{}

// Cards lists the readers with a card, as PC/SC says: no card is asked anything.
func (c Confined) Cards(ctx context.Context) ([]agent.CardInfo, error) {
	readers, err := c.Reach.Readers(ctx)
	if err != nil {
		return nil, err
	}
	var cards []agent.CardInfo
	for _, r := range readers {
		if r.Present && !r.Mute {
			cards = append(cards, agent.CardInfo{Reader: r.Name, Name: nameOf(r.Name), State: r.State})
		}
	}
	return cards, nil
}

// Open starts the process and has it open the card.
func (c Confined) Open(ctx context.Context, info agent.CardInfo) (agent.Card, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	cmd := exec.CommandContext(life, c.Command[0], c.Command[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		end()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		end()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		end()
		return nil, fmt.Errorf("starting what reaches the card: %w", err)
	}
	p := &process{cmd: cmd, end: end, in: in, lines: newLines(out, in)}
	a, err := p.ask(ctx, question{Do: "open", Reader: info.Reader, Serial: info.Serial, State: info.State}, nil)
	if err == nil && info.Serial != 0 && a.Serial != info.Serial {
		err = fault(Garbage, fmt.Errorf("what reaches the card opened card %d and not %d", a.Serial, info.Serial))
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.serial = a.Serial
	return p, nil
}

// process is the agent's end of an open card.
type process struct {
	cmd    *exec.Cmd
	end    context.CancelFunc
	in     io.Closer
	lines  *lines
	serial uint32
	closed sync.Once
}

var _ agent.Card = (*process)(nil)

// ask sends a question and waits for its answer, giving the PIN where the process wants it. When ctx ends so does the process.
func (p *process) ask(ctx context.Context, q question, pin func(tries int) ([]byte, error)) (answer, error) {
	defer context.AfterFunc(ctx, p.end)()
	var refused error
	send := func() error { return p.lines.send(q) }
	for {
		err := send()
		var a answer
		if err == nil {
			err = p.lines.receive(&a)
		}
		switch {
		case ctx.Err() != nil:
			return answer{}, ctx.Err()
		case err != nil:
			return answer{}, fault(Garbage, fmt.Errorf("what reaches the card has ended: %w", err))
		case a.Ask && pin != nil && refused == nil:
			var secret []byte
			secret, refused = pin(a.Tries)
			send = func() error {
				defer clear(secret)
				return p.lines.sendPIN(secret, refused == nil)
			}
		case refused != nil:
			return answer{}, refused
		case a.Ask:
			return answer{}, fault(Garbage, errors.New("what reaches the card asks for a PIN out of turn"))
		case a.Error != "":
			return answer{}, a.err()
		default:
			return a, nil
		}
	}
}

// err is the error that the process had.
func (a answer) err() error {
	text := a.Error
	if len(text) > maxText {
		text = text[:maxText]
	}
	if _, known := mends[a.Fault]; !known {
		return hint.New(errors.New(text), "%s", a.Hint)
	}
	if a.Fault == WrongPIN {
		return cause(NewError(WrongPIN, "checking the PIN: the card did not take it"))
	}
	return cause(&Error{Fault: a.Fault, Left: a.Left, Err: errors.New(text)})
}

func (p *process) Serial() uint32 { return p.serial }

func (p *process) Keys() ([]agent.Key, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limitKeys)
	defer cancel()
	a, err := p.ask(ctx, question{Do: "keys"}, nil)
	if err != nil {
		return nil, err
	}
	if len(a.Keys) > maxKeys {
		return nil, fault(Garbage, fmt.Errorf("the card lists %d keys", len(a.Keys)))
	}
	var keys []agent.Key
	for _, k := range a.Keys {
		public, err := ssh.ParsePublicKey(k.Public)
		if _, slotErr := ParseSlot(k.Slot); err != nil || slotErr != nil || len(k.Comment) > maxComment {
			return nil, fault(Garbage, errors.Join(errors.New("what reaches the card lists no keys"), err, slotErr))
		}
		keys = append(keys, agent.Key{Public: public, Slot: k.Slot, Comment: k.Comment, Touch: k.Touch})
	}
	return keys, nil
}

func (p *process) Sign(ctx context.Context, key agent.Key, data []byte, pin func(tries int) ([]byte, error)) (*ssh.Signature, error) {
	a, err := p.ask(ctx, question{Do: "sign", Slot: key.Slot, Public: key.Public.Marshal(), Data: data}, pin)
	if err != nil {
		return nil, err
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(a.Sig, &sig); err != nil {
		return nil, fault(Garbage, fmt.Errorf("what reaches the card sent no signature: %w", err))
	}
	if err := key.Public.Verify(data, &sig); err != nil {
		return nil, fault(Garbage, fmt.Errorf("the card's signature does not match its key: %w", err))
	}
	return &sig, nil
}

// Close ends the process, and with it every hold on the card. The process closes the card itself: where it is killed, pcscd resets the
// card, and takes its time.
func (p *process) Close() error {
	p.closed.Do(func() {
		p.in.Close()
		late := time.AfterFunc(limitClose, p.end)
		p.cmd.Wait() // it was told to end: how it did says nothing
		late.Stop()
		p.end()
	})
	return nil
}
