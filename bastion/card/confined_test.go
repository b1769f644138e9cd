package card

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"mayfly/bastion/agent"
)

// asProcess is the environment variable that makes this test a process that uses a card.
const asProcess = "MAYFLY_CARD_TEST"

// TestMain is the test, or what Confined starts.
func TestMain(m *testing.M) {
	switch os.Getenv(asProcess) {
	case "":
		os.Exit(m.Run())
	case "dies":
		os.Exit(3)
	case "waits": // for a touch that never comes
		answerOne(`{}`)
		answerOne("")
		select {}
	default: // each further line answers one question
		for _, line := range strings.Split(os.Getenv(asProcess), "\n") {
			if !answerOne(line) {
				break
			}
		}
	}
}

// answerOne reads a line from standard input and writes one, if it is any.
func answerOne(line string) bool {
	var b [1]byte
	for {
		if _, err := os.Stdin.Read(b[:]); err != nil {
			return false
		}
		if b[0] == '\n' {
			break
		}
	}
	if line != "" {
		os.Stdout.WriteString(line + "\n")
	}
	return true
}

// started is a Confined whose process answers with these lines.
func started(t *testing.T, lines ...string) Confined {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asProcess, strings.Join(lines, "\n"))
	return Confined{Reach: newFake(t), Command: []string{self}}
}

// connected is an agent's end whose process is a goroutine.
func connected(t *testing.T, reach Reach) *process {
	t.Helper()
	toIn, toOut := io.Pipe()
	fromIn, fromOut := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Serve(t.Context(), toIn, fromOut, reach)
		fromOut.Close()
	}()
	t.Cleanup(func() {
		toOut.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &process{end: func() { toOut.Close() }, in: toOut, lines: newLines(fromIn, toOut)}
}

func TestConfined(t *testing.T) {
	f := newFake(t)
	f.pin = goodPIN
	for slot, a := range map[Slot]Algorithm{SlotAuthentication: P256, 0x82: P384, 0x83: Ed25519, SlotSignature: P256} {
		f.put(slot, a)
	}
	p := connected(t, f)
	if _, err := p.ask(t.Context(), question{Do: "open", Reader: reader, Serial: f.serial}, nil); err != nil {
		t.Fatal(err)
	}
	keys, err := p.Keys()
	if err != nil || len(keys) != 3 {
		t.Fatalf("got %v, %v, want three keys: 9c is not the fleet's", keys, err)
	}
	asked := 0
	for _, k := range keys {
		sig, err := p.Sign(t.Context(), k, []byte("data"), func(tries int) ([]byte, error) {
			asked++
			if tries != 4-asked {
				t.Errorf("question %d: got %d tries, want %d", asked, tries, 4-asked)
			}
			if asked == 1 {
				return []byte("000111"), nil
			}
			return []byte(goodPIN), nil
		})
		if err != nil {
			t.Errorf("%s: %v", k.Slot, err)
			continue
		}
		if err := k.Public.Verify([]byte("data"), sig); err != nil {
			t.Errorf("%s: %v", k.Slot, err)
		}
		if !k.Touch || !strings.HasPrefix(k.Comment, "card-4711-slot-") {
			t.Errorf("got %+v", k)
		}
	}
	if asked != 2 {
		t.Errorf("asked for the PIN %d times, want 2: a wrong one, and the right one once", asked)
	}
}

// Each cause has the agent's name on the other side of the process as well.
func TestConfinedCauses(t *testing.T) {
	refused := errors.New("no, thank you")
	for _, tt := range []struct {
		name    string
		prepare func(*fake)
		pin     func(int) ([]byte, error)
		want    error
	}{
		{"pulled", func(f *fake) { f.fail = failing(Removed) }, nil, agent.ErrGone},
		{"busy", func(f *fake) { f.fail = failing(Busy) }, nil, agent.ErrBusy},
		{"no touch", func(f *fake) { f.touched = false }, nil, agent.ErrNoTouch},
		{"blocked", func(f *fake) { f.tries[0].Left = 0 }, nil, agent.ErrPINBlocked},
		{"wrong until blocked", func(*fake) {}, func(int) ([]byte, error) { return []byte("000111"), nil }, agent.ErrPINBlocked},
		{"refused", func(*fake) {}, func(int) ([]byte, error) { return nil, refused }, refused},
	} {
		f := newFake(t)
		f.pin = goodPIN
		key := f.put(SlotAuthentication, P256)
		public, err := SSHKey(key.info.Public)
		if err != nil {
			t.Fatal(err)
		}
		p := connected(t, f)
		if _, err := p.ask(t.Context(), question{Do: "open", Reader: reader}, nil); err != nil {
			t.Fatal(err)
		}
		tt.prepare(f)
		if tt.pin == nil {
			tt.pin = func(int) ([]byte, error) { return []byte(goodPIN), nil }
		}
		_, err = p.Sign(t.Context(), agent.Key{Public: public, Slot: "9a"}, []byte("data"), tt.pin)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A reader that holds another card by now is not opened.
func TestConfinedOtherCard(t *testing.T) {
	p := connected(t, newFake(t))
	if _, err := p.ask(t.Context(), question{Do: "open", Reader: reader, Serial: 999}, nil); !errors.Is(err, agent.ErrGone) {
		t.Errorf("got %v, want %v", err, agent.ErrGone)
	}
	if _, err := p.ask(t.Context(), question{Do: "keys"}, nil); err == nil || !strings.Contains(err.Error(), "out of turn") {
		t.Errorf("keys of no card: got %v", err)
	}
}

// A reader whose state is another than when it was listed is not opened, as long as the card's number is not known; the number counts, when it is.
func TestConfinedOtherState(t *testing.T) {
	for state, want := range map[string]error{"1": nil, "0": agent.ErrGone} {
		p := connected(t, newFake(t))
		a, err := p.ask(t.Context(), question{Do: "open", Reader: reader, State: state}, nil)
		if !errors.Is(err, want) || want == nil && a.Serial != 4711 {
			t.Errorf("state %s: got %+v, %v, want %v", state, a, err, want)
		}
		p = connected(t, newFake(t))
		if _, err := p.ask(t.Context(), question{Do: "open", Reader: reader, State: state, Serial: 4711}, nil); err != nil {
			t.Errorf("state %s, with its number: %v", state, err)
		}
	}
}

// A slot that holds another key, or none, is signed with by nobody, and no PIN is asked for.
func TestConfinedOtherKey(t *testing.T) {
	for name, change := range map[string]func(*fake){
		"another key": func(f *fake) { f.put(SlotAuthentication, P256) },
		"no key":      func(f *fake) { delete(f.keys, SlotAuthentication) },
	} {
		f := newFake(t)
		f.pin = goodPIN
		public, err := SSHKey(f.put(SlotAuthentication, P256).info.Public)
		if err != nil {
			t.Fatal(err)
		}
		p := connected(t, f)
		if _, err := p.ask(t.Context(), question{Do: "open", Reader: reader}, nil); err != nil {
			t.Fatal(err)
		}
		change(f)
		_, err = p.Sign(t.Context(), agent.Key{Public: public, Slot: "9a"}, []byte("data"), func(int) ([]byte, error) {
			t.Errorf("%s: asked for a PIN", name)
			return []byte(goodPIN), nil
		})
		if !errors.Is(err, agent.ErrGone) {
			t.Errorf("%s: got %v, want %v", name, err, agent.ErrGone)
		}
	}
}

// What the process says is not believed: whatever it is, there is an error and no more.
func TestConfinedNonsense(t *testing.T) {
	for name, lines := range map[string][]string{
		"dies":               {"dies"},
		"no JSON":            {"hello"},
		"asks out of turn":   {`{"ask":true}`},
		"closes":             {`{}`},
		"keys are none":      {`{}`, `{"keys":[{"slot":"9a","public":"AAAA"}]}`},
		"a strange slot":     {`{}`, `{"keys":[{"slot":"9a\n","public":"AAAA"}]}`},
		"an unknown fault":   {`{}`, `{"fault":"x","error":"it is odd","hint":"look"}`},
		"asks for no reason": {`{}`, `{"ask":true,"tries":3}`},
	} {
		c, err := started(t, lines...).Open(t.Context(), agent.CardInfo{Reader: reader})
		if err == nil {
			_, err = c.Keys()
			if err := c.Close(); err != nil {
				t.Errorf("%s: closing: %v", name, err)
			}
		}
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	f := newFake(t)
	public, err := SSHKey(f.put(SlotAuthentication, P256).info.Public)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`{}`, `{"signature":"AAAA"}`, `{"signature":""}`} {
		c, err := started(t, `{}`, line).Open(t.Context(), agent.CardInfo{Reader: reader})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Sign(t.Context(), agent.Key{Public: public, Slot: "9a"}, []byte("data"), nil); FaultOf(err) != Garbage {
			t.Errorf("%s: got %v, want %s", line, err, Garbage)
		}
		c.Close()
	}
}

// Whoever waits for a touch can stop waiting: the process that holds the card ends.
func TestConfinedCancel(t *testing.T) {
	f := newFake(t)
	public, err := SSHKey(f.put(SlotAuthentication, P256).info.Public)
	if err != nil {
		t.Fatal(err)
	}
	c, err := started(t, "waits").Open(t.Context(), agent.CardInfo{Reader: reader})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Sign(ctx, agent.Key{Public: public, Slot: "9a"}, []byte("data"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	exited := make(chan struct{})
	go func() {
		c.(*process).cmd.Wait()
		close(exited)
	}()
	select {
	case <-exited:
	case <-time.After(time.Minute):
		t.Error("the process goes on")
	}
}

func TestConfinedCards(t *testing.T) {
	f := newFake(t)
	f.states = []Reader{{Name: "Yubico YubiKey 00 00", Present: true, State: "4 3b"}, {Name: "empty"}, {Name: "mute", Present: true, Mute: true}}
	cards, err := Confined{Reach: f}.Cards(t.Context())
	if want := (agent.CardInfo{Reader: "Yubico YubiKey 00 00", Name: "YubiKey", State: "4 3b"}); err != nil || len(cards) != 1 || cards[0] != want {
		t.Errorf("got %+v, %v, want %+v", cards, err, want)
	}
	if len(f.calls) > 0 {
		t.Errorf("a card was asked: %q", f.calls)
	}
}

// The PIN goes to the process in a line of its own, and is not kept in the buffers of either side.
func TestLinesWipe(t *testing.T) {
	var kept []byte
	var said string
	l := newLines(strings.NewReader(""), writerFunc(func(b []byte) (int, error) {
		kept, said = b, string(b)
		return len(b), nil
	}))
	if err := l.sendPIN([]byte(goodPIN), true); err != nil {
		t.Fatal(err)
	}
	if strings.Trim(string(kept), "\x00") != "" {
		t.Errorf("the line is still there: %q", kept)
	}
	back := newLines(strings.NewReader(said), nil)
	if pin, err := back.receivePIN(); err != nil || string(pin) != goodPIN {
		t.Errorf("got %q, %v", pin, err)
	}
	if line := back.in.Bytes(); strings.Trim(string(line), "\x00") != "" {
		t.Errorf("the line is still there: %q", line)
	}
	for _, line := range []string{"-\n", "\n", "", "=0\n", "=zz\n", "{}\n"} {
		if pin, err := newLines(strings.NewReader(line), nil).receivePIN(); err == nil {
			t.Errorf("%q: got the PIN %q", line, pin)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
