//go:build pcsc

package main

import (
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

// TestGuarded: a panic of the library, and what takes too long, become errors.
func TestGuarded(t *testing.T) {
	err := guarded("asking", limitAsk, func() {}, func(*time.Timer) error { panic("index out of range") })
	if card.FaultOf(err) != card.Garbage || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("a panic: got %v", err)
	}
	ended := make(chan struct{})
	err = guarded("asking", time.Nanosecond, func() { close(ended) }, func(*time.Timer) error {
		<-ended
		return errors.New("the handle is gone")
	})
	if card.FaultOf(err) != card.TooLong {
		t.Errorf("no end: got %v", err)
	}
	if err := guarded("asking", limitAsk, func() { t.Error("ended") }, func(timer *time.Timer) error { return nil }); err != nil {
		t.Errorf("all is well: got %v", err)
	}
	err = guarded("asking", limitAsk, func() {}, func(*time.Timer) error { return errors.New("oh") })
	if card.FaultOf(err) != card.Garbage {
		t.Errorf("what nobody knows: got %v", err)
	}
}
