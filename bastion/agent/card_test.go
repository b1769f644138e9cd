package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"mayfly/internal/hint"
)

// signing asks for a signature of a file and returns its refusal.
func signing(t *testing.T, f *fixture, key ssh.PublicKey) (done chan Reason, leave func()) {
	t.Helper()
	a, conn := f.client()
	done = make(chan Reason, 1)
	go func() {
		if _, err := a.Sign(key, fileData("git")); err == nil {
			done <- ""
			return
		}
		answer, err := a.Extension(extensionWhy, nil)
		if err != nil {
			done <- "no answer"
			return
		}
		reason, _, _, _ := ParseWhy(answer)
		done <- reason
	}()
	return done, func() { conn.Close() }
}

// TestPIN: the PIN is asked for with the tries that are left, again after a wrong one, and is wiped when the card has it.
func TestPIN(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []string
		tries   int // before
		reason  Reason
		asked   []string // the warnings, joined
		left    int
	}{
		{"right", []string{"123456"}, 3, "", []string{"3 tries left."}, 3},
		{"wrong, then right", []string{"1", "123456"}, 3, "", []string{"3 tries left.", "That PIN was wrong. 2 tries left."}, 3},
		{"last try", []string{"123456"}, 1, "", []string{"This is the LAST try: a wrong PIN now blocks the card."}, 3},
		{"wrong until blocked", []string{"1", "2", "3", "123456"}, 3, ReasonPINBlocked,
			[]string{"3 tries left.", "That PIN was wrong. 2 tries left.", "That PIN was wrong. This is the LAST try: a wrong PIN now blocks the card."}, 0},
		{"wrong too often", []string{"1", "2", "3", "123456"}, 8, ReasonPINWrong, []string{"8 tries left.", "That PIN was wrong. 7 tries left.", "That PIN was wrong. 6 tries left."}, 5},
		{"blocked", []string{"123456"}, 0, ReasonPINBlocked, nil, 0},
		{"no", nil, 3, ReasonPINCancelled, []string{"3 tries left."}, 3},
		{"wrong, then no", []string{"1"}, 3, ReasonPINCancelled, []string{"3 tries left.", "That PIN was wrong. 2 tries left."}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			f.person.answers = tt.answers
			card := f.cards.plug(t, 1)
			card.set(func() { card.pin, card.tries = "123456", tt.tries })
			done, _ := signing(t, f, card.public())
			if got := <-done; got != tt.reason {
				t.Errorf("got %q, want %q", got, tt.reason)
			}
			f.person.mu.Lock()
			defer f.person.mu.Unlock()
			var asked []string
			for _, q := range f.person.asked {
				asked = append(asked, strings.Join(q.warning(), " "))
				if q.Card != "TEST card 1" || q.Purpose != "sign a git commit or tag" {
					t.Errorf("asked %+v", q)
				}
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked %q, want %q", asked, tt.asked)
			}
			f.stop()
			if card.tries != tt.left || card.open != 0 {
				t.Errorf("%d tries left, %d open; want %d, 0", card.tries, card.open, tt.left)
			}
			for i, held := range card.held {
				if strings.Trim(string(held), "\x00") != "" {
					t.Errorf("PIN %d was not wiped", i)
				}
			}
			for _, pin := range card.heard {
				if len(pin) > 1 && strings.Contains(f.log.String(), pin) {
					t.Error("the log has a PIN")
				}
			}
		})
	}
}

// TestPINUnavailable: nobody to ask is a reason of its own, with what failed.
func TestPINUnavailable(t *testing.T) {
	f := start(t, func(c *Config) {
		c.PINs = []PINWay{Askpass{}, Terminal{Path: "/dev/null"}, Pinentry{Program: "/nonexistent/pinentry"}}
	})
	card := f.cards.plug(t, 1)
	card.set(func() { card.pin = "123456" })
	done, _ := signing(t, f, card.public())
	if got := <-done; got != ReasonPINUnavailable {
		t.Errorf("got %s", got)
	}
	f.log.wait(t, "refused", "askpass: ", "terminal: ", "pinentry: ", "/nonexistent/pinentry")
}

// TestPINIsAskedOneAtATime: two cards want a PIN at once; the second question comes when the first is answered.
func TestPINIsAskedOneAtATime(t *testing.T) {
	f := start(t, nil)
	f.person.block = make(chan struct{})
	one, two := f.cards.plug(t, 1), f.cards.plug(t, 2)
	one.set(func() { one.pin, two.pin = "123456", "123456" })
	first, leave := signing(t, f, one.public())
	<-f.person.block
	_, leaveSecond := signing(t, f, two.public())
	eventually(t, func() error {
		f.cards.mu.Lock()
		defer f.cards.mu.Unlock()
		if len(two.asked) == 0 {
			return errors.New("the second card does not ask")
		}
		return nil
	})
	f.person.mu.Lock()
	if n := len(f.person.asked); n != 1 {
		t.Errorf("%d questions at once", n)
	}
	f.person.mu.Unlock()
	leave()
	<-f.person.block // the second is asked now
	leaveSecond()
	<-first
}

// TestClientLeaves: who goes away while the PIN is asked, the touch is waited for, or another is served, is given up; the next is served.
func TestClientLeaves(t *testing.T) {
	f := start(t, nil)
	card := f.cards.plug(t, 1).withTouch()
	_, leave := signing(t, f, card.public())
	<-card.waiting
	_, leaveQueue := signing(t, f, card.public())
	eventually(t, func() error { return waiting(f, 2) })
	leaveQueue()
	f.log.wait(t, "refused", string(ReasonClientGone))
	eventually(t, func() error { return waiting(f, 1) })
	leave()
	eventually(t, func() error { return waiting(f, 0) })

	card.set(func() { card.pin = "123456" })
	f.person.block = make(chan struct{})
	_, leave = signing(t, f, card.public())
	<-f.person.block
	leave()
	eventually(t, func() error { return waiting(f, 0) })

	card.set(func() { card.pin = "" })
	next, _ := signing(t, f, card.public())
	<-card.waiting
	card.touch <- nil
	if got := <-next; got != "" {
		t.Errorf("the next: got %s", got)
	}
	if f.cards.inUse != 0 || f.cards.most > 1 {
		t.Errorf("%d open, %d at once", f.cards.inUse, f.cards.most)
	}
}

// waiting is an error unless so many requests have or wait for the first card.
func waiting(f *fixture, want int) error {
	k := f.agent.keyring
	k.mu.Lock()
	defer k.mu.Unlock()
	got := 0
	for _, s := range k.readers {
		got += s.waiting
	}
	if got != want {
		return fmt.Errorf("%d requests wait, want %d", got, want)
	}
	return nil
}

// TestOneAtATime: of many requests at once each gets its touch, one after the other; more than the most that may wait are refused.
func TestOneAtATime(t *testing.T) {
	f := start(t, nil)
	card := f.cards.plug(t, 1).withTouch()
	var all []chan Reason
	for i := range maxWaiting + 1 {
		done, _ := signing(t, f, card.public())
		all = append(all, done)
		eventually(t, func() error { return waiting(f, i+1) })
	}
	more, _ := signing(t, f, card.public())
	if got := <-more; got != ReasonCardBusy {
		t.Errorf("one more: got %q", got)
	}
	for range all {
		<-card.waiting
		card.touch <- nil
	}
	for i, done := range all {
		if got := <-done; got != "" {
			t.Errorf("%d: got %q", i, got)
		}
	}
	if f.cards.most != 1 {
		t.Errorf("%d at once", f.cards.most)
	}
}

// TestCardFaults: what goes wrong with a card has its reason, and the card is used again after it.
func TestCardFaults(t *testing.T) {
	stranger := newSigner(t)
	for _, tt := range []struct {
		name   string
		fault  func(*fakeCard)
		touch  error
		reason Reason
		mend   func(*fakeCard)
	}{
		{"pulled while it waits", nil, fmt.Errorf("transmit: %w", ErrGone), ReasonCardGone, nil},
		{"pulled before", func(c *fakeCard) { c.gone = true }, nil, ReasonCardGone, func(c *fakeCard) { c.gone = false }},
		{"not touched", nil, fmt.Errorf("sign: %w", ErrNoTouch), ReasonTouchTimeout, nil},
		{"broken", nil, errors.New("6f00"), ReasonCardFailed, nil},
		{"another key", func(c *fakeCard) { c.wrong = stranger }, nil, ReasonCardSignature, func(c *fakeCard) { c.wrong = nil }},
		{"a bug", func(c *fakeCard) { c.signs = nil }, nil, ReasonCardFailed, func(c *fakeCard) {
			c.signs = map[string]ssh.Signer{"9a": stranger}
			c.keys[0].Public = stranger.PublicKey()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			card := f.cards.plug(t, 1).withTouch()
			a, _ := f.client()
			if _, err := a.List(); err != nil {
				t.Fatal(err)
			}
			if tt.fault != nil {
				card.set(func() { tt.fault(card) })
			}
			done, _ := signing(t, f, card.public())
			if !card.gone {
				<-card.waiting
				card.touch <- tt.touch
			}
			if got := <-done; got != tt.reason {
				t.Errorf("got %q, want %q", got, tt.reason)
			}
			f.log.wait(t, "refused", "reason="+string(tt.reason), "TEST card 1")
			if tt.mend != nil {
				card.set(func() { tt.mend(card) })
			}
			done, _ = signing(t, f, card.public())
			<-card.waiting
			card.touch <- nil
			if got := <-done; got != "" {
				t.Errorf("after it: got %q", got)
			}
			f.stop()
			if card.open != 0 {
				t.Errorf("%d open", card.open)
			}
		})
	}
}

// inBubble makes an agent without a socket, for time in a bubble.
func inBubble(t *testing.T) (*Agent, *fakeCards, *person, *screen) {
	cards, p, s := &fakeCards{}, &person{}, newScreen()
	return New(Config{Cards: cards, Log: discard(), PINs: []PINWay{p}, Displays: []Display{s}}), cards, p, s
}

func (a *Agent) signFile(ctx context.Context, key ssh.PublicKey) *Refusal {
	found, ok, refusal := a.keyring.find(ctx, key.Marshal(), a.keyring.busy)
	if !ok {
		return refusal
	}
	_, refusal = a.sign(ctx, found, fileData("git"), "sign a file")
	return refusal
}

// TestTouchTime: a touch is waited for as long as is configured, from when the card waits; the notice comes after the grace, goes when it is
// over, and the next request gets the card when the card has given up.
func TestTouchTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cards, _, s := inBubble(t)
		card := cards.plug(t, 1).withTouch()
		began := time.Now()
		refusal := a.signFile(t.Context(), card.public())
		if refusal == nil || refusal.Reason != ReasonTouchTimeout {
			t.Fatalf("got %v", refusal)
		}
		if took := time.Since(began); took != DefaultTouchTime {
			t.Errorf("took %v", took)
		}
		a.done.Wait()
		if len(s.shown) != 1 || !slices.Equal(s.over, []string{"not done: " + errTouchTime.Error()}) {
			t.Errorf("shown %v, over %q", s.shown, s.over)
		}

		// Touched before the grace is over: no notice that comes and goes.
		go func() { <-card.waiting; <-card.waiting; card.touch <- nil }()
		if refusal := a.signFile(t.Context(), card.public()); refusal != nil {
			t.Fatal(refusal)
		}
		a.done.Wait()
		if len(s.shown) != 1 {
			t.Errorf("shown %v", s.shown)
		}
	})
}

// TestPINTime: who does not answer is given up; the time for the PIN is none of the touch's.
func TestPINTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cards, p, s := inBubble(t)
		card := cards.plug(t, 1).withTouch()
		card.set(func() { card.pin = "123456" })
		p.block = make(chan struct{}, 1)
		began := time.Now()
		refusal := a.signFile(t.Context(), card.public())
		if refusal == nil || refusal.Reason != ReasonPINTimeout || time.Since(began) != DefaultPINTime {
			t.Errorf("got %v after %v", refusal, time.Since(began))
		}
		a.done.Wait()
		if len(s.shown) != 0 {
			t.Errorf("shown %v", s.shown)
		}

		// A PIN that takes long, then a touch that takes long.
		a.pins.ways = []PINWay{slowWay{}}
		began = time.Now()
		go func() {
			<-card.waiting
			time.Sleep(DefaultTouchTime - time.Second)
			card.touch <- nil
		}()
		if refusal := a.signFile(t.Context(), card.public()); refusal != nil {
			t.Error(refusal)
		}
		if took := time.Since(began); took != slowPIN+DefaultTouchTime-time.Second {
			t.Errorf("took %v", took)
		}
		a.done.Wait()
		if len(s.shown) != 1 || len(s.over) != 1 || s.over[0] != "done" {
			t.Errorf("shown %v, over %q", s.shown, s.over)
		}
	})
}

const slowPIN = DefaultPINTime - time.Second

type slowWay struct{}

func (slowWay) Name() string { return "slow" }

func (slowWay) askPIN(context.Context, PINRequest) ([]byte, error) {
	time.Sleep(slowPIN)
	return []byte("123456"), nil
}

// TestRefusalsAreShown: the person sees why, and not hundreds of times.
func TestRefusalsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, s := inBubble(t)
		for range 100 {
			a.tell(refuse(ReasonUnbound, "x"), "log in")
		}
		time.Sleep(refusalsEach)
		a.tell(refuse(ReasonUnbound, "x"), "log in")
		a.done.Wait()
		if len(s.shown) != 2 || s.shown[0].Title != "Not signed (agent_unbound)" || s.shown[0].Stays {
			t.Errorf("shown %+v", s.shown)
		}
	})
}

// TestGivenUp: a card that waits for the touch of a login that was cancelled is there for the next one when it has stopped; where it does not
// stop, nobody else is blamed for it.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cards, _, _ := inBubble(t)
		card := cards.plug(t, 1).withTouch()
		cancelled := func(keeps time.Duration) {
			t.Helper()
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-card.waiting
				card.set(func() { card.until = time.Now().Add(keeps) })
				cancel(errClientGone)
			}()
			if refusal := a.signFile(ctx, card.public()); refusal == nil || refusal.Reason != ReasonClientGone {
				t.Fatalf("cancelled: got %v", refusal)
			}
		}
		cancelled(touchWindow)
		go func() { <-card.waiting; card.touch <- nil }()
		if refusal := a.signFile(t.Context(), card.public()); refusal != nil {
			t.Errorf("after it was cancelled: %v", refusal)
		}
		for _, late := range []time.Duration{0, touchWindow} {
			cancelled(time.Hour)
			time.Sleep(late)
			refusal := a.signFile(t.Context(), card.public())
			if refusal == nil || refusal.Reason != ReasonCardBusy || strings.Contains(refusal.Error(), "given up") != (late == 0) || strings.Contains(hint.Of(refusal), "gpg") != (late > 0) {
				t.Errorf("%v after it was cancelled: got %v (%s)", late, refusal, hint.Of(refusal))
			}
			card.set(func() { card.until = time.Time{} })
		}
	})
}

// TestMuteChain: a chained agent that takes a question and answers nothing is left out, after a time, and keeps no other waiting.
func TestMuteChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, _ := inBubble(t)
		c := &client{agent: a}
		for range 3 {
			near, far := net.Pipe()
			c.chain = append(c.chain, &chained{conn: near, agent: sshagent.NewClient(near)})
			if len(c.chain) == 2 {
				go sshagent.ServeAgent(sshagent.NewKeyring(), far)
				if err := c.chain[1].agent.Add(sshagent.AddedKey{PrivateKey: mustKey(t)}); err != nil {
					t.Fatal(err)
				}
				continue
			}
			go io.Copy(io.Discard, far)
		}
		began := time.Now()
		all := c.chained(t.Context())
		if took := time.Since(began); len(all[0]) != 0 || len(all[1]) != 1 || len(all[2]) != 0 || took != chainWait {
			t.Errorf("got %v after %v", all, took)
		}
		c.chain[1].close()
	})
}

// TestChainRound: agents that chain each other list all their keys, each once, with a connection each, and end there.
func TestChainRound(t *testing.T) {
	dir := socketDir(t)
	var sockets []string
	for i := range 3 {
		sockets = append(sockets, filepath.Join(dir, fmt.Sprint(i)))
	}
	cards := &fakeCards{}
	last := cards.plug(t, 2)
	for i := range sockets {
		own := &fakeCards{}
		if i == len(sockets)-1 {
			own = cards
		} else {
			own.plug(t, uint32(i))
		}
		serveOn(t, New(Config{Cards: own, Log: discard(), Chain: []string{sockets[(i+1)%len(sockets)]}}), sockets[i])
	}
	f := &fixture{t: t, socket: sockets[0]}
	a, _ := f.client()
	if keys, err := a.List(); err != nil || len(keys) != len(sockets) {
		t.Errorf("got %v, %v, want %d keys", keys, err, len(sockets))
	}
	if last.opened != 1 {
		t.Errorf("the last agent read its card %d times", last.opened)
	}
	if _, err := a.Sign(last.public(), fileData("git")); err != nil {
		t.Error(err)
	}
	if _, err := a.Sign(newSigner(t).PublicKey(), fileData("git")); err == nil {
		t.Error("signed by a key that nobody has")
	}
	if reason, _ := why(t, a); reason != ReasonUnknownKey {
		t.Errorf("got %s, want %s", reason, ReasonUnknownKey)
	}
	for _, via := range [][]byte{nil, make([]byte, agentID-1), make([]byte, (maxChainLength+1)*agentID)} {
		if _, err := a.Extension(extensionChain, via); err == nil {
			t.Errorf("took %d bytes of agents", len(via))
		}
	}
}
