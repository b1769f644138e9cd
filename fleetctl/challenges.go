package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// challengeLife is how long after it was made a challenge may be answered. Implementation.
const challengeLife = 7 * 24 * time.Hour

// challengeAhead is how far ahead of this clock a challenge's time may be. Implementation.
const challengeAhead = 5 * time.Minute

// maxChallenges may wait to be answered at once. Implementation.
const maxChallenges = 1000

// challengesDir holds the challenges that nobody has answered yet, one file each, named by its nonce.
func (d state) challengesDir() string { return d.path("challenges") }

func (d state) challengeFile(c hardkey.Challenge) string {
	return filepath.Join(d.challengesDir(), c.Nonce)
}

// challengesFull is the reason of a refusal to make another challenge.
const challengesFull = "challenges_full"

// makeChallenge makes a challenge for a person and keeps it until it is answered, or too old. Whoever else makes or answers one by a verb waits.
func (d state) makeChallenge(fleet, name string, now time.Time) (c hardkey.Challenge, err error) {
	var nonce [hardkey.NonceBytes]byte
	rand.Read(nonce[:]) // never fails
	c = hardkey.NewChallenge(fleet, name, nonce, now)
	if _, err := hardkey.ParseChallenge(c.String()); err != nil {
		return hardkey.Challenge{}, hint.New(fmt.Errorf("making a challenge: %w", err), hardkey.NameRule)
	}
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return hardkey.Challenge{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := os.MkdirAll(d.challengesDir(), 0o700); err != nil {
		return hardkey.Challenge{}, fmt.Errorf("making the directory of challenges: %w", err)
	}
	if err := d.makeRoom(now); err != nil {
		return hardkey.Challenge{}, err
	}
	return c, durable.WriteFile(d.challengeFile(c), c.Signed(), 0o600)
}

// makeRoom forgets the challenges that are out of their time and what a write that was cut short left, and refuses another challenge where too
// many wait. The caller holds the directory.
func (d state) makeRoom(now time.Time) error {
	list, err := os.ReadDir(d.challengesDir())
	if err != nil {
		return fmt.Errorf("reading the directory of challenges: %w", err)
	}
	waiting := 0
	for _, entry := range list {
		path := filepath.Join(d.challengesDir(), entry.Name())
		if unfinished, _ := filepath.Match(".*.tmp", entry.Name()); unfinished {
			if err := remove(path); err != nil {
				return err
			}
			continue
		}
		line, err := readBounded(path, "", hardkey.MaxChallenge+1)
		if err != nil {
			return err
		}
		c, err := hardkey.ParseChallenge(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return hint.New(fmt.Errorf("%s is no challenge: %w", path, err), "see what lies there, and move it away")
		}
		if inTime(c, now) {
			waiting++
		} else if err := remove(path); err != nil {
			return err
		}
	}
	if waiting >= maxChallenges {
		return command.Refuse(hint.New(fmt.Errorf("%s: %d challenges wait to be answered: at most %d", challengesFull, waiting, maxChallenges), "remove those in %s that nobody will answer", d.challengesDir()))
	}
	return nil
}

// outstanding refuses a challenge that was not made here, was answered already, or is too old: what was shown for it may be anybody's.
func (d state) outstanding(line string, now time.Time) (hardkey.Challenge, error) {
	c, err := hardkey.ParseChallenge(line)
	if err != nil {
		return c, command.Refuse(hint.New(fmt.Errorf("%s: the challenge is %w", hardkey.ChallengeDiffers, err), challengeHint, "NAME"))
	}
	kept, err := readBounded(d.challengeFile(c), "", hardkey.MaxChallenge+1)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !bytes.Equal(kept, c.Signed()):
		return c, command.Refuse(hint.New(fmt.Errorf("%s: the challenge was not made here, or was answered already", hardkey.ChallengeDiffers), challengeHint, c.Name))
	case err != nil:
		return c, err
	case c.Made.After(now.Add(challengeAhead)):
		return c, command.Refuse(hint.New(fmt.Errorf("%s: the challenge is of %s, which is to come", hardkey.ChallengeDiffers, c.Made.Format(time.RFC3339)), "set this machine's clock; "+challengeHint, c.Name))
	case !inTime(c, now):
		return c, command.Refuse(hint.New(fmt.Errorf("%s: the challenge is of %s, and was to be answered within %d days", hardkey.ChallengeDiffers, c.Made.Format(time.RFC3339), challengeLife/(24*time.Hour)), challengeHint, c.Name))
	}
	return c, nil
}

// withdraw forgets a challenge that nobody was given.
func (d state) withdraw(c hardkey.Challenge) error {
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return err
	}
	_, err = d.answered(c)
	return errors.Join(err, unlock())
}

// inTime reports whether a challenge may be answered as far as its time goes: it is neither too old nor of a clock that was ahead.
func inTime(c hardkey.Challenge, now time.Time) bool {
	return now.Sub(c.Made) <= challengeLife && !c.Made.After(now.Add(challengeAhead))
}

const challengeHint = "`fleetctl key challenge %s` makes one, for one answer"

// answered forgets challenges, so that they are not answered again, not even after a power cut. The undo is for answers that could not be kept.
// The caller holds the directory.
func (d state) answered(list ...hardkey.Challenge) (undo func() error, err error) {
	var forgotten []hardkey.Challenge
	undo = func() error {
		var errs []error
		for _, c := range forgotten {
			errs = append(errs, durable.WriteFile(d.challengeFile(c), c.Signed(), 0o600))
		}
		return errors.Join(errs...)
	}
	for _, c := range list {
		if err := remove(d.challengeFile(c)); err != nil {
			return undo, errors.Join(err, undo())
		}
		forgotten = append(forgotten, c)
	}
	if len(list) > 0 {
		if err := durable.SyncDir(d.challengesDir()); err != nil {
			return undo, errors.Join(err, undo())
		}
	}
	return undo, nil
}
