package plugin

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var sitePin = []Pin{{Name: "site", SHA256: strings.Repeat("0", 64), Deadline: time.Second}}

// TestHungHostDelaysNobody stops reading at the other end, as a plugin can bring about that sends its host SIGSTOP: questions are late
// within their limit, Pin returns at once, and the host is given up in the end.
func TestHungHostDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe() // holds nothing: the first line hangs
		defer there.Close()
		r := NewRelay(here)
		began := time.Now()
		for i := range 10 {
			asked := time.Now()
			if v := r.Decide(t.Context(), sitePin, Request{Kind: "target"}); v.Outcome != Late {
				t.Errorf("question %d: got %+v", i, v)
			}
			if took := time.Since(asked); took > time.Second+relayGrace {
				t.Errorf("question %d took %v", i, took)
			}
		}
		pinned := time.Now()
		for range 4 {
			if err := r.Pin(sitePin); err != nil {
				t.Errorf("pin: %v", err)
			}
		}
		if took := time.Since(pinned); took != 0 {
			t.Errorf("Pin took %v", took)
		}
		<-r.Done()
		if took := time.Since(began); took != writeLimit {
			t.Errorf("the host was given up after %v, want %v", took, writeLimit)
		}
		if v := r.Decide(t.Context(), sitePin, Request{}); v.Outcome != Failed {
			t.Errorf("afterwards: got %+v", v)
		}
		if err := r.Pin(sitePin); err == nil {
			t.Error("Pin: no error without a host")
		}
	})
}

// TestRelayBounds: no more than MaxAtOnce questions wait, and no more than maxQueued lines, whoever asks.
func TestRelayBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		r := NewRelay(here)
		asking, stop := context.WithCancel(t.Context())
		outcomes := make(chan Verdict, 2*MaxAtOnce)
		for range 2 * MaxAtOnce {
			go func() { outcomes <- r.Decide(asking, sitePin, Request{}) }()
		}
		synctest.Wait()
		if n := len(outcomes); n != MaxAtOnce {
			t.Errorf("%d questions were refused at once, want %d", n, MaxAtOnce)
		}
		for range len(outcomes) {
			if v := <-outcomes; v.Outcome != Failed {
				t.Errorf("got %+v", v)
			}
		}
		stop()
		var err error
		for n := 0; err == nil; n++ {
			if err = r.Pin(sitePin); n > maxQueued {
				t.Fatal("the queue has no end")
			}
		}
		there.Close()
		r.Close()
	})
}

// TestGivenUpQuestionsAreNotAsked: what nobody waits for any more costs a host that reads again nothing.
func TestGivenUpQuestionsAreNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		r := NewRelay(here)
		for _, user := range []string{"first", "second", "third"} {
			r.Decide(t.Context(), sitePin, Request{User: user})
		}
		if err := r.Pin(sitePin); err != nil {
			t.Error(err)
		}
		lines := bufio.NewScanner(there)
		var seen []string
		for range 2 {
			lines.Scan()
			var m message
			if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
				t.Fatal(err)
			}
			seen = append(seen, m.Request.User)
		}
		if seen[0] != "first" || seen[1] != "" { // the first was under way, the other is the pin
			t.Errorf("the host read %q", seen)
		}
		there.Close()
		r.Close()
	})
}

// TestRelayAnswerWithoutVerdict: a line of the host without a verdict is nobody's answer, and ends it.
func TestRelayAnswerWithoutVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		r := NewRelay(here)
		go func() {
			if lines := bufio.NewScanner(there); lines.Scan() {
				there.Write([]byte("{\"id\":1}\n"))
			}
		}()
		if v := r.Decide(t.Context(), sitePin, Request{User: "anna"}); v.Outcome != Failed {
			t.Errorf("got %+v", v)
		}
		<-r.Done()
		there.Close()
		r.Close()
	})
}
