package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/internal/hint"
)

// A challenge is answered once, within its days, and only where it was made.
func TestChallenges(t *testing.T) {
	d, elsewhere := state(t.TempDir()), state(t.TempDir())
	now := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	c, err := d.makeChallenge("lab", "anna", now)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.outstanding(c.String(), now.Add(challengeLife)); err != nil || got != c {
		t.Fatalf("got %v, %v, want %v", got, err, c)
	}
	other := c
	other.Name = "bert" // by the nonce of another's
	for _, tt := range []struct {
		name string
		at   state
		line string
		now  time.Time
		want string
	}{
		{"malformed", d, "x", now, "not of the form"},
		{"a path", d, strings.Replace(c.String(), c.Nonce, "../../../../../../etc/passwd0000", 1), now, "nonce"},
		{"elsewhere", elsewhere, c.String(), now, "not made here"},
		{"another person's", d, other.String(), now, "not made here"},
		{"before it was made", d, c.String(), now.Add(-challengeAhead - time.Second), "is to come"},
		{"too late", d, c.String(), now.Add(challengeLife + time.Second), "within 7 days"},
	} {
		_, err := tt.at.outstanding(tt.line, tt.now)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), hardkey.ChallengeDiffers) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, want %q and a hint", tt.name, err, tt.want)
		}
	}
	undo, err := d.answered(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.outstanding(c.String(), now); err == nil || !strings.Contains(err.Error(), "answered already") {
		t.Errorf("a second answer: got %v", err)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.outstanding(c.String(), now); err != nil {
		t.Errorf("given back: got %v", err)
	}
	if _, err := d.makeChallenge("lab", "Anna Smith", now); err == nil || hint.Of(err) == "" {
		t.Errorf("got %v, want an error with a hint", err)
	}
}

// A challenge of a clock that was ahead is of no use, today or when its time comes, and makes room.
func TestChallengeToCome(t *testing.T) {
	d, now := state(t.TempDir()), time.Now()
	c, err := d.makeChallenge("lab", "anna", now.AddDate(3, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{now, now.AddDate(2, 11, 0)} {
		if _, err := d.outstanding(c.String(), at); command.ExitCode(err) != command.Refused || !strings.Contains(err.Error(), "is to come") || hint.Of(err) == "" {
			t.Errorf("at %v: got %v", at, err)
		}
	}
	if _, err := d.outstanding(c.String(), c.Made.Add(-challengeAhead)); err != nil {
		t.Errorf("clocks that differ a little: got %v", err)
	}
	if _, err := d.makeChallenge("lab", "bo", now); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.challengeFile(c)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// Many may make challenges at once, beside one who uses them up, and what a killed one left stops nobody.
func TestChallengesAtOnce(t *testing.T) {
	d, r := challenged(t)
	if err := os.WriteFile(filepath.Join(d.challengesDir(), ".0123456789abcdef0123456789abcdef.99.tmp"), []byte("mayfly-ch"), 0o600); err != nil {
		t.Fatal(err)
	}
	const makers = 40
	results := make(chan error)
	for range makers {
		go func() {
			_, err := d.makeChallenge("lab", "anna", time.Now())
			results <- err
		}()
	}
	go func() {
		_, _, err := d.addKey(r, time.Now())
		results <- err
	}()
	for range makers + 1 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(d.challengesDir())
	if err != nil || len(left) != makers {
		t.Errorf("%d challenges and other files, %v, want %d", len(left), err, makers)
	}
}
