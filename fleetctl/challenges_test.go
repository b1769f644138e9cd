package main

import (
	"strings"
	"testing"
	"time"

	"mayfly/bastion/hardkey"
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
		{"too late", d, c.String(), now.Add(challengeLife + time.Second), "within 7 days"},
	} {
		_, err := tt.at.outstanding(tt.line, tt.now)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), hardkey.ChallengeDiffers) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, want %q and a hint", tt.name, err, tt.want)
		}
	}
	if err := d.answered(c); err != nil {
		t.Fatal(err)
	}
	if _, err := d.outstanding(c.String(), now); err == nil || !strings.Contains(err.Error(), "answered already") {
		t.Errorf("a second answer: got %v", err)
	}
	if _, err := d.makeChallenge("lab", "Anna Smith", now); err == nil || hint.Of(err) == "" {
		t.Errorf("got %v, want an error with a hint", err)
	}
}
