//go:build pcsc

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/bastion/card"
)

// TestTextsOfPIVGo: the texts by which errors of PC/SC are told apart are those of the library that is linked, which says them in no other way.
func TestTextsOfPIVGo(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-piv/piv-go/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "piv", "pcsc*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(data)
	}
	for text := range pcscTexts {
		if text == "scard response too short: 0" {
			text = "scard response too short: %d"
		}
		if !strings.Contains(source.String(), `"`+text+`"`) {
			t.Errorf("piv-go does not say %q", text)
		}
	}
}

// TestBounded: a panic of the library, what takes too long and what the person ends become errors, and are not waited for.
func TestBounded(t *testing.T) {
	asking := use{doing: "asking", limit: limitAsk, grace: limitGrace}
	_, left, err := bounded(t.Context(), asking, func() (int, error) { panic("index out of range") }, nil)
	if card.FaultOf(err) != card.Garbage || !strings.Contains(err.Error(), "index out of range") || left {
		t.Errorf("a panic: got %v, left %v", err, left)
	}
	if n, left, err := bounded(t.Context(), asking, func() (int, error) { return 7, nil }, nil); n != 7 || left || err != nil {
		t.Errorf("all is well: got %d, %v, left %v", n, err, left)
	}
	_, _, err = bounded(t.Context(), asking, func() (int, error) { return 0, errors.New("oh") }, nil)
	if card.FaultOf(err) != card.Garbage {
		t.Errorf("what nobody knows: got %v", err)
	}

	hangs, came := make(chan struct{}), make(chan int, 2)
	hang := func() (int, error) { <-hangs; return 7, nil }
	late := func(n int) { came <- n }
	n, left, err := bounded(t.Context(), use{doing: "asking", limit: time.Nanosecond}, hang, late)
	if n != 0 || card.FaultOf(err) != card.TooLong || !left {
		t.Errorf("no end: got %d, %v, left %v", n, err, left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n, left, err = bounded(ctx, use{doing: "asking", limit: time.Hour}, func() (int, error) { cancel(); return hang() }, late)
	if n != 0 || !errors.Is(err, context.Canceled) || !left {
		t.Errorf("ended by the person: got %d, %v, left %v", n, err, left)
	}
	if _, left, err := bounded(ctx, asking, func() (int, error) { t.Error("asked after the end"); return 0, nil }, nil); !errors.Is(err, context.Canceled) || left {
		t.Errorf("ended before: got %v, left %v", err, left)
	}
	close(hangs)
	if a, b := <-came, <-came; a != 7 || b != 7 {
		t.Errorf("what came late: got %d and %d", a, b)
	}
}

// TestBoundedGrace: what has begun when the person ends it, and takes no touch, is done.
func TestBoundedGrace(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n, left, err := bounded(ctx, use{doing: "asking", limit: time.Hour, grace: time.Hour}, func() (int, error) { cancel(); return 7, nil }, nil)
	if n != 7 || left || err != nil {
		t.Errorf("got %d, %v, left %v", n, err, left)
	}
	ctx, cancel = context.WithCancel(t.Context())
	hangs := make(chan struct{})
	defer close(hangs)
	_, left, err = bounded(ctx, use{doing: "asking", limit: time.Hour, grace: time.Nanosecond}, func() (int, error) { cancel(); <-hangs; return 7, nil }, nil)
	if !errors.Is(err, context.Canceled) || !left {
		t.Errorf("no end: got %v, left %v", err, left)
	}
}

// TestBoundedPIN: the time that a person takes for the PIN does not count, and a question that comes after the end is answered.
func TestBoundedPIN(t *testing.T) {
	asks := make(chan pinAsk)
	library := func() (string, error) {
		ask := make(pinAsk, 1)
		asks <- ask
		a := <-ask
		return a.pin, a.err
	}
	signing := use{doing: "signing", limit: time.Hour, asks: asks, pin: func() (string, error) { return "1", nil }}
	if got, left, err := bounded(t.Context(), signing, library, nil); got != "1" || left || err != nil {
		t.Errorf("got %q, %v, left %v", got, err, left)
	}
	signing.limit = time.Nanosecond
	refused := make(chan error, 1)
	hangs := make(chan struct{})
	_, left, err := bounded(t.Context(), signing, func() (string, error) {
		<-hangs
		_, err := library()
		refused <- err
		return "", err
	}, nil)
	close(hangs)
	if again := <-refused; card.FaultOf(err) != card.TooLong || !left || again == nil {
		t.Errorf("got %v, left %v, and later %v", err, left, again)
	}
}
