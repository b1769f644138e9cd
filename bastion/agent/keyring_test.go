package agent

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestTwoCardsAtOnce: a card that waits for its touch keeps nobody from another.
func TestTwoCardsAtOnce(t *testing.T) {
	f := start(t, nil)
	one, two := f.cards.plug(t, 1).withTouch(), f.cards.plug(t, 2).withTouch()
	first, _ := signing(t, f, one.public())
	<-one.waiting
	second, _ := signing(t, f, two.public())
	<-two.waiting
	two.touch <- nil
	if got := <-second; got != "" {
		t.Errorf("got %q", got)
	}
	one.touch <- nil
	if got := <-first; got != "" {
		t.Errorf("got %q", got)
	}
}

// TestHotPlug: cards that come and go are seen at the next question; keys of one that did not change are not read again, those of one that
// cannot say are.
func TestHotPlug(t *testing.T) {
	f := start(t, nil)
	a, _ := f.client()
	list := func() (comments []string) {
		t.Helper()
		keys, err := a.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			comments = append(comments, k.Comment)
		}
		return comments
	}
	want := func(step string, want ...string) {
		t.Helper()
		if got := list(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", step, got, want)
		}
	}
	want("none")
	one := f.cards.plug(t, 1)
	want("one", "test 1")
	two := f.cards.plug(t, 2)
	want("two", "test 1", "test 2")
	want("again", "test 1", "test 2")
	if one.opened != 1 || two.opened != 1 {
		t.Errorf("opened %d and %d times", one.opened, two.opened)
	}
	one.set(func() { f.cards.list = f.cards.list[1:] })
	want("one pulled", "test 2")
	if n := len(f.agent.keyring.readers); n != 1 {
		t.Errorf("%d readers are remembered", n)
	}
	// The same reader, another card.
	two.set(func() {
		two.info.State = "2"
		two.keys = []Key{{Public: newSigner(t).PublicKey(), Slot: "9a", Comment: "other"}, {Slot: "9c"}}
	})
	want("swapped", "other")
	two.set(func() { two.info.State = "" })
	want("cannot say", "other")
	opened := two.opened
	want("cannot say", "other")
	if two.opened != opened+1 {
		t.Error("keys of a card that cannot say whether it changed are remembered")
	}
	two.set(func() { two.gone = true })
	want("does not answer")
	f.log.wait(t, "card left out", string(ReasonCardGone))
	two.set(func() { f.cards.err = errors.New("no pcscd") })
	if _, err := a.List(); err == nil {
		t.Error("listed without pcscd")
	}
	if reason, text := why(t, a); reason != ReasonCardsUnavailable || !strings.Contains(text, "no pcscd") {
		t.Errorf("got %s: %s", reason, text)
	}
}

// TestListDuringTouch: keys are listed while a card waits for its touch.
func TestListDuringTouch(t *testing.T) {
	f := start(t, nil)
	card := f.cards.plug(t, 1).withTouch()
	card.set(func() { card.info.State = "" })
	done, _ := signing(t, f, card.public())
	<-card.waiting
	a, _ := f.client()
	if keys, err := a.List(); err != nil || len(keys) != 1 {
		t.Errorf("got %v, %v", keys, err)
	}
	card.touch <- nil
	if got := <-done; got != "" {
		t.Error(got)
	}
}

// TestBusyCard: a card that another program keeps is tried again for a while, and no longer.
func TestBusyCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cards, _, _ := inBubble(t)
		card := cards.plug(t, 1)
		if _, refusal := a.keyring.list(t.Context()); refusal != nil {
			t.Fatal(refusal)
		}
		card.set(func() { card.busy = 5 })
		if refusal := a.signFile(t.Context(), card.public()); refusal != nil {
			t.Errorf("busy for a moment: %v", refusal)
		}
		card.set(func() { card.busy = 1 << 30 })
		began := time.Now()
		refusal := a.signFile(t.Context(), card.public())
		if refusal == nil || refusal.Reason != ReasonCardBusy {
			t.Errorf("got %v", refusal)
		}
		if took := time.Since(began); took > busyTime || took < busyTime-2*busyLast {
			t.Errorf("tried for %v", took)
		}
	})
}

// TestBusyCardKeepsItsKeys: a card that another program keeps when its keys are to be read again has those that it had, and is waited for
// when one of them is to sign; one whose keys were never read is card_busy, and not unknown.
func TestBusyCardKeepsItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cards, _, _ := inBubble(t)
		card := cards.plug(t, 1)
		if _, refusal := a.keyring.list(t.Context()); refusal != nil {
			t.Fatal(refusal)
		}
		time.Sleep(rememberFor)
		card.set(func() { card.busy = 5 })
		if all, refusal := a.keyring.list(t.Context()); refusal != nil || len(all) != 1 {
			t.Errorf("got %v, %v, want the key that it had", all, refusal)
		}
		if card.busy != 4 {
			t.Errorf("the card was tried %d times for a list", 5-card.busy)
		}
		if refusal := a.signFile(t.Context(), card.public()); refusal != nil {
			t.Errorf("busy for a moment: %v", refusal)
		}
		time.Sleep(rememberFor)
		card.set(func() { card.busy = 1 << 30 })
		began := time.Now()
		if refusal := a.signFile(t.Context(), card.public()); refusal == nil || refusal.Reason != ReasonCardBusy {
			t.Errorf("got %v, want %s", refusal, ReasonCardBusy)
		}
		if took := time.Since(began); took > busyTime || took < busyTime-2*busyLast {
			t.Errorf("tried for %v", took)
		}

		card.set(func() { card.info.State = "2" }) // another, perhaps: what is remembered is nothing
		if all, refusal := a.keyring.list(t.Context()); refusal != nil || len(all) != 0 {
			t.Errorf("a changed card: got %v, %v", all, refusal)
		}
		if refusal := a.signFile(t.Context(), card.public()); refusal == nil || refusal.Reason != ReasonCardBusy {
			t.Errorf("a changed card: got %v, want %s", refusal, ReasonCardBusy)
		}
		card.set(func() { card.busy = 5 })
		if all, refusal := a.keyring.list(t.Context()); refusal != nil || len(all) != 1 {
			t.Errorf("a changed card that is busy for a moment: got %v, %v", all, refusal)
		}
	})
}

// stuckCards hang.
type stuckCards struct {
	*fakeCards
	free  chan struct{}
	which CardInfo
}

func (s *stuckCards) Open(ctx context.Context, info CardInfo) (Card, error) {
	if s.free != nil && info.Reader == s.which.Reader {
		<-s.free // a call that takes no context
	}
	return s.fakeCards.Open(ctx, info)
}

// TestStuckCard: a call that does not return costs its request, after a bounded time, and keeps its card; it keeps no other card, and lists go on.
func TestStuckCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cards := &stuckCards{fakeCards: &fakeCards{}}
		one, two := cards.plug(t, 1), cards.plug(t, 2)
		a := New(Config{Cards: cards, Log: discard()})
		if _, refusal := a.keyring.list(t.Context()); refusal != nil {
			t.Fatal(refusal)
		}
		cards.free, cards.which = make(chan struct{}), one.info
		refusal := a.signFile(t.Context(), one.public())
		if refusal == nil || refusal.Reason != ReasonCardTimeout {
			t.Errorf("got %v", refusal)
		}
		one.set(func() { one.info.State = "2" })
		began := time.Now()
		all, refusal := a.keyring.list(t.Context())
		if refusal != nil || len(all) != 1 || all[0].card != two.info || time.Since(began) != listWait {
			t.Errorf("got %v, %v after %v", all, refusal, time.Since(began))
		}
		close(cards.free)
		synctest.Wait()
		cards.free = nil
		if all, refusal := a.keyring.list(t.Context()); refusal != nil || len(all) != 2 {
			t.Errorf("got %v, %v", all, refusal)
		}
		if one.open != 0 {
			t.Errorf("%d open", one.open)
		}
	})
}

// TestNewKeyIsSeen: a key that another program made on a card that was never pulled is listed after a moment, and until then the card is left alone.
func TestNewKeyIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cards := &fakeCards{}
		card := cards.plug(t, 1)
		a := New(Config{Cards: cards, Log: discard()})
		listed := func() ssh.PublicKey {
			t.Helper()
			all, refusal := a.keyring.list(t.Context())
			if refusal != nil || len(all) != 1 {
				t.Fatalf("got %v, %v", all, refusal)
			}
			return all[0].Public
		}
		old := listed()
		other := new(fakeCards).plug(t, 2)
		card.set(func() { card.keys = other.keys })
		time.Sleep(rememberFor - time.Nanosecond)
		if got := listed(); !bytes.Equal(got.Marshal(), old.Marshal()) {
			t.Error("the card was read again")
		}
		time.Sleep(time.Nanosecond)
		if got := listed(); bytes.Equal(got.Marshal(), old.Marshal()) {
			t.Error("the new key is not there")
		}
	})
}

// TestOtherCard: a card whose serial number shows only when it is open is signed with under that number: another one in its reader is asked for no
// PIN, and the prompt says which card wants which.
func TestOtherCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cards, p, _ := inBubble(t)
		card := cards.plug(t, 4711)
		card.set(func() { card.info.Serial, card.pin = 0, "123456" })
		p.answers = []string{"123456", "123456"}
		if refusal := a.signFile(t.Context(), card.public()); refusal != nil {
			t.Fatal(refusal)
		}
		if len(p.asked) != 1 || p.asked[0].Card != "TEST card 4711" {
			t.Errorf("asked %+v", p.asked)
		}
		found, ok, refusal := a.keyring.find(t.Context(), card.public().Marshal(), busyTime)
		if !ok {
			t.Fatal(refusal)
		}
		card.set(func() { card.serial = 4712 })
		if _, refusal := a.sign(t.Context(), found, fileData("git"), "sign"); refusal == nil || refusal.Reason != ReasonCardGone {
			t.Errorf("got %v, want %s", refusal, ReasonCardGone)
		}
		if len(p.asked) != 1 {
			t.Errorf("another card's PIN was asked for: %+v", p.asked)
		}
	})
}
