package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// patience is for what should happen.
const patience = time.Minute

// fakeCards are cards in memory. Each test sets what they do.
type fakeCards struct {
	mu    sync.Mutex
	list  []*fakeCard
	err   error // of Cards
	inUse int   // open cards, by all readers
	most  int   // of them at once, of one reader
}

// fakeCard is one of them.
type fakeCard struct {
	cards  *fakeCards
	info   CardInfo
	serial uint32 // as the card itself says
	keys   []Key
	signs  map[string]ssh.Signer // by slot

	// guarded by cards.mu
	pin    string // "": it wants none
	tries  int
	busy   int       // so many times it is kept by another program
	until  time.Time // it is kept until then
	gone   bool      // it was pulled, and is listed still
	open   int
	opened int
	wrong  ssh.Signer // signs in place of the key
	asked  []int      // tries that were told with each question for the PIN
	heard  []string   // PINs as the card got them
	held   [][]byte   // the same, as the slices that were handed over

	touch   chan error    // what the person does about a touch; nil: no touch is asked for
	waiting chan struct{} // told when a touch is waited for
}

var (
	_ Cards = (*fakeCards)(nil)
	_ Card  = (*openCard)(nil)
)

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newHostKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// plug adds a card with one key in slot 9a, that wants no PIN and no touch.
func (c *fakeCards) plug(t testing.TB, serial uint32) *fakeCard {
	t.Helper()
	signer := newSigner(t)
	card := &fakeCard{
		cards: c, tries: 3, serial: serial,
		info:  CardInfo{Reader: fmt.Sprintf("reader %d", serial), Serial: serial, Name: "TEST card", State: "1"},
		keys:  []Key{{Public: signer.PublicKey(), Slot: "9a", Comment: fmt.Sprintf("test %d", serial)}},
		signs: map[string]ssh.Signer{"9a": signer},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, card)
	return card
}

// withTouch has the card wait for a touch.
func (f *fakeCard) withTouch() *fakeCard {
	f.cards.mu.Lock()
	defer f.cards.mu.Unlock()
	f.touch, f.waiting = make(chan error), make(chan struct{}, 64)
	f.keys[0].Touch = true
	return f
}

func (f *fakeCard) public() ssh.PublicKey { return f.keys[0].Public }

// set changes the card.
func (f *fakeCard) set(change func()) {
	f.cards.mu.Lock()
	defer f.cards.mu.Unlock()
	change()
}

func (c *fakeCards) Cards(context.Context) (all []CardInfo, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.list {
		all = append(all, f.info)
	}
	return all, c.err
}

func (c *fakeCards) Open(_ context.Context, info CardInfo) (Card, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.list, func(f *fakeCard) bool { return f.info.Reader == info.Reader })
	if i < 0 || info.Serial != 0 && c.list[i].serial != info.Serial || c.list[i].gone {
		return nil, fmt.Errorf("opening: %w", ErrGone)
	}
	f := c.list[i]
	if time.Now().Before(f.until) {
		return nil, fmt.Errorf("opening: %w", ErrBusy)
	}
	if f.busy > 0 {
		f.busy--
		return nil, fmt.Errorf("opening: %w", ErrBusy)
	}
	f.open++
	f.opened++
	c.inUse++
	c.most = max(c.most, f.open)
	return &openCard{f}, nil
}

type openCard struct{ *fakeCard }

func (o *openCard) Serial() uint32 { return o.serial }

func (o *openCard) Close() error {
	o.cards.mu.Lock()
	defer o.cards.mu.Unlock()
	o.open--
	o.cards.inUse--
	return nil
}

func (o *openCard) Keys() ([]Key, error) {
	o.cards.mu.Lock()
	defer o.cards.mu.Unlock()
	return o.keys, nil
}

func (o *openCard) Sign(ctx context.Context, key Key, data []byte, pin func(int) ([]byte, error)) (*ssh.Signature, error) {
	if err := o.verify(pin); err != nil {
		return nil, err
	}
	if o.touch != nil {
		o.waiting <- struct{}{}
		select {
		case err := <-o.touch:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	o.cards.mu.Lock()
	signer := o.signs[key.Slot]
	if o.wrong != nil {
		signer = o.wrong
	}
	o.cards.mu.Unlock()
	return signer.Sign(rand.Reader, data)
}

// verify asks for the PIN until it is right, as the contract of Card has it.
func (o *openCard) verify(pin func(int) ([]byte, error)) error {
	for o.pin != "" {
		o.cards.mu.Lock()
		tries := o.tries
		o.asked = append(o.asked, tries)
		o.cards.mu.Unlock()
		if tries == 0 {
			return ErrPINBlocked
		}
		given, err := pin(tries)
		if err != nil {
			return fmt.Errorf("a library that forgets causes: %v", err)
		}
		o.cards.mu.Lock()
		o.heard = append(o.heard, string(given))
		o.held = append(o.held, given)
		right := string(given) == o.pin
		if right {
			o.tries = 3
		} else {
			o.tries--
		}
		o.cards.mu.Unlock()
		if right {
			return nil
		}
	}
	return nil
}

// person answers questions for PINs.
type person struct {
	mu      sync.Mutex
	answers []string // "" is no
	asked   []PINRequest
	block   chan struct{} // not nil: waits until ctx ends
}

func (*person) Name() string { return "person" }

func (p *person) askPIN(ctx context.Context, q PINRequest) ([]byte, error) {
	p.mu.Lock()
	p.asked = append(p.asked, q)
	block := p.block
	var answer string
	if len(p.answers) > 0 {
		answer, p.answers = p.answers[0], p.answers[1:]
	}
	p.mu.Unlock()
	if block != nil {
		block <- struct{}{}
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if answer == "" {
		return nil, errPINCancelled
	}
	return []byte(answer), nil
}

// screen keeps what was shown.
type screen struct {
	mu      sync.Mutex
	shown   []Notice
	over    []string
	changed chan struct{}
}

func newScreen() *screen { return &screen{changed: make(chan struct{}, 1024)} }

func (*screen) Name() string { return "screen" }

func (s *screen) Show(_ context.Context, n Notice) (func(context.Context, string) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = append(s.shown, n)
	s.changed <- struct{}{}
	return func(_ context.Context, outcome string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n.Stays {
			s.over = append(s.over, outcome)
			s.changed <- struct{}{}
		}
		return nil
	}, nil
}

// wait waits until what was shown satisfies ok.
func (s *screen) wait(t testing.TB, ok func(shown []Notice, over []string) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		done := ok(s.shown, s.over)
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("got %+v, over %q", s.shown, s.over)
		}
	}
}

// logged is what the agent logs.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// wait waits for a line with all of these.
func (l *logged) wait(t testing.TB, parts ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(l.String()) {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
				return
			}
		}
	}
	t.Fatalf("no line with %q in the log:\n%s", parts, l)
}

// fixture is an agent that serves.
type fixture struct {
	t      testing.TB
	cards  *fakeCards
	person *person
	screen *screen
	log    *logged
	agent  *Agent
	socket string
	stop   func()
}

// socketDir is short: a socket's path has a bound.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start serves with a configuration that the test changes.
func start(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, cards: &fakeCards{}, person: &person{}, screen: newScreen(), log: &logged{}}
	config := Config{
		Cards: f.cards, Log: slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		PINs: []PINWay{f.person}, Displays: []Display{f.screen},
	}
	if change != nil {
		change(&config)
	}
	if cards, ok := config.Cards.(*fakeCards); ok {
		f.cards = cards
	}
	f.agent = New(config)
	f.socket = filepath.Join(socketDir(t), "s", "agent.sock")
	l, err := Listen(f.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.agent.Serve(ctx, l) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serving: %v", err)
			}
		case <-time.After(patience):
			t.Error("the agent does not end")
		}
	})
	t.Cleanup(f.stop)
	return f
}

// dial opens a connection.
func (f *fixture) dial() net.Conn {
	f.t.Helper()
	conn, err := net.Dial("unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return conn
}

func (f *fixture) client() (sshagent.ExtendedAgent, net.Conn) {
	conn := f.dial()
	return sshagent.NewClient(conn), conn
}

// why asks why the last request of this client was refused.
func why(t testing.TB, a sshagent.ExtendedAgent) (Reason, string) {
	t.Helper()
	answer, err := a.Extension(extensionWhy, nil)
	if err != nil {
		t.Fatalf("asking why: %v", err)
	}
	reason, text, _, err := ParseWhy(answer)
	if err != nil {
		t.Fatal(err)
	}
	return reason, text
}

// sessionID is a session's identifier.
func sessionID(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

// bindContents are those of a session-bind that a host signed.
func bindContents(t testing.TB, key ssh.PublicKey, signer ssh.Signer, id []byte, forwarded bool) []byte {
	t.Helper()
	sig, err := signer.Sign(rand.Reader, id)
	if err != nil {
		t.Fatal(err)
	}
	b := appendString(appendString(appendString(nil, key.Marshal()), id), ssh.Marshal(sig))
	if forwarded {
		return append(b, 1)
	}
	return append(b, 0)
}

// loginData is what a client asks to have signed to log in.
func loginData(id []byte, user string, key ssh.PublicKey, host ssh.PublicKey) []byte {
	method := methodPublicKey
	if host != nil {
		method = methodHostBound
	}
	b := append(appendString(nil, id), msgUserauthRequest)
	b = appendString(appendString(appendString(b, user), serviceConnection), method)
	b = append(b, 1)
	b = appendString(appendString(b, key.Type()), key.Marshal())
	if host != nil {
		b = appendString(b, host.Marshal())
	}
	return b
}

// fileData is what ssh-keygen -Y sign asks to have signed.
func fileData(namespace string) []byte {
	b := appendString([]byte(sshsigMagic), namespace)
	return appendString(appendString(appendString(b, ""), "sha512"), bytes.Repeat([]byte{7}, 64))
}

// certify makes a host certificate.
func certify(t testing.TB, host ssh.PublicKey, ca ssh.Signer, names ...string) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{Key: host, CertType: ssh.HostCert, ValidPrincipals: names, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return c
}

// writeKnownHosts writes a known_hosts.
func writeKnownHosts(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

// eventually tries until it works.
func eventually(t testing.TB, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// serveOn serves an agent on a socket of its own.
func serveOn(t testing.TB, a *Agent, socket string) {
	t.Helper()
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func mustKey(t testing.TB) *ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
