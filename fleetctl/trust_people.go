package main

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/enrolment"
	"mayfly/policies/trust"
)

// named is one NAME=FILE argument: a person's key, and what was shown for it.
type named struct {
	name, file string
	key        ssh.PublicKey
	shown      hardkey.Shown // zero for a bare public key
}

// people are NAME=FILE arguments of one role, in the order in which they were given.
type people []named

// answered are the challenges that requests of all roles have answered so far.
type answered struct {
	list     []hardkey.Challenge // to be used up
	proposed []hardkey.Shown     // what the proposal that waits shows: its challenges are used up already, for these very keys
}

// take refuses a second answer to a challenge, whatever the role, and one to a challenge that is not outstanding.
func (a *answered) take(d state, s hardkey.Shown, now time.Time) error {
	c, err := d.outstanding(s.Challenge, now)
	if slices.Contains(a.list, c) {
		return command.Refuse(hint.New(fmt.Errorf("%s: two keys answer one challenge", hardkey.ChallengeDiffers), challengeHint, c.Name))
	}
	again := func(o hardkey.Shown) bool { return reflect.DeepEqual(o, s) }
	if err != nil && slices.ContainsFunc(a.proposed, again) {
		a.proposed = slices.DeleteFunc(a.proposed, again)
		return nil
	}
	a.list = append(a.list, c)
	return err
}

// readPeople reads NAME=FILE arguments: enrolment requests, each of which answers a challenge that is outstanding, and where test is true public keys as well.
func (d state) readPeople(role string, args []string, fleet string, test bool, met *answered, now time.Time) (people, error) {
	var all people
	var bare []string
	for _, arg := range args {
		name, file, ok := strings.Cut(arg, "=")
		if !ok || name == "" || file == "" {
			return nil, command.Usagef("--%s %q: it is NAME=REQUEST, or NAME=PUBFILE in a fleet for tests", role, arg)
		}
		data, err := readBounded(file, role+": an enrolment request is what `bastion-agent enroll` writes", enrolment.MaxFile)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", role, name, err)
		}
		p := named{name: name, file: file}
		if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
			p, err = d.readRequest(p, data, fleet, met, now)
		} else {
			p.key, err = readBare(role, p, data)
			bare = append(bare, fmt.Sprintf("%s (%s)", file, keyType(p.key)))
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", role, name, err)
		}
		all = append(all, p)
	}
	if len(bare) > 0 && !test {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: keys that nothing was shown for: %s", hardkey.Missing, strings.Join(bare, ", ")),
			"make each in hardware, answer a challenge of `fleetctl key challenge` with `bastion-agent enroll`, and give the request; a fleet for tests says test = true in fleet.toml"))
	}
	return all, nil
}

func keyType(key ssh.PublicKey) string {
	if key == nil {
		return "no key"
	}
	return key.Type()
}

// readRequest takes an enrolment request of this person for this fleet. What it proves is verified with all the rest of the trust policy.
func (d state) readRequest(p named, data []byte, fleet string, met *answered, now time.Time) (named, error) {
	r, err := enrolment.Parse(data)
	if err != nil {
		return p, command.Refuse(hint.New(fmt.Errorf("%s: %s: %s", enrolmentMalformed, p.file, shortened(err)), "take back the file that `bastion-agent enroll` wrote"))
	}
	if r.Fleet != fleet || r.Name != p.name {
		return p, command.Refuse(hint.New(fmt.Errorf("%s: %s is a request of %s for fleet %s", hardkey.ChallengeDiffers, p.file, r.Name, r.Fleet), "give each person's own request, made for fleet %s", fleet))
	}
	if err := met.take(d, r.Shown, now); err != nil {
		return p, fmt.Errorf("%s: %w", p.file, err)
	}
	p.shown = r.Shown
	p.key, err = trust.ParseKey(r.Public)
	return p, err
}

// readBare reads a public key for which nothing is shown.
func readBare(role string, p named, data []byte) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, hint.New(fmt.Errorf("%s is not one public key", p.file), "give an enrolment request, or the file that ends in .pub")
	}
	return key, nil
}

// join gives people more keys. Who is not there yet comes last.
func (ps people) join(all []trust.Person) []trust.Person {
	for _, p := range ps {
		i := slices.IndexFunc(all, func(q trust.Person) bool { return q.Name == p.name })
		if i < 0 {
			all, i = append(all, trust.Person{Name: p.name}), len(all)
		}
		q := &all[i]
		q.Keys = append(slices.Clone(q.Keys), trust.FormatKey(p.key))
		if len(q.Shown) > 0 || p.shown.Kind != "" {
			shown := slices.Clone(q.Shown)
			for len(shown) < len(q.Keys)-1 {
				shown = append(shown, hardkey.Shown{})
			}
			q.Shown = append(shown, p.shown)
		}
	}
	return all
}

// proves says in one line what was shown for a person's i-th key.
func proves(t *trust.Trust, p trust.Person, i int) string {
	if p.ShownFor(i).Kind == "" {
		return "nothing was shown for it: software may hold it"
	}
	proof, rejected := t.Prove(p, i)
	if rejected != nil {
		return visible(rejected.Reason + ": " + rejected.Text)
	}
	var words []string
	switch proof.Kind {
	case hardkey.KindPIV:
		words = append(words, fmt.Sprintf("PIV card, serial %d, slot %s, firmware %s", proof.Serial, proof.Slot, proof.Firmware))
		if proof.FormFactor != "" {
			words = append(words, proof.FormFactor)
		}
		words = append(words, "touch always, PIN "+proof.PINPolicy)
	default:
		words = append(words, fmt.Sprintf("FIDO2 authenticator, model %s, application %+q, touch always", proof.AAGUID, proof.Application))
		if proof.UserVerification {
			words = append(words, "PIN always")
		}
	}
	words = append(words, "by "+proof.Issuer, "shown "+proof.Made.UTC().Format(time.DateOnly))
	text := strings.Join(words, ", ")
	if proof.Test {
		text += "; SOFTWARE of a test"
	}
	return visible(text)
}
