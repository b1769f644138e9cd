package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"mayfly/testenv/cgobuild"
	"mayfly/testenv/netlab"
	"mayfly/testenv/pcscd"
	"mayfly/testenv/pivcard"
)

// cardNeeds are what virtual cards in the real pcscd take. Without them people hold software keys.
var cardNeeds = slices.Concat(pcscd.Needs, cgobuild.Needs(cgobuild.PCSC))

// cardHolders are those who hold cards, one each. The colleague keeps a FIDO2 authenticator in software.
var cardHolders = append([]string{engineer}, approvers...)

// keyTypes of the cards: every type that bastion-agent makes.
var keyTypes = map[string]string{engineer: "p256", "ana": "p384", "bo": "ed25519", "cy": "p256"}

// serveCards is what bastion-agent is told for the demo: only logins that ssh binds to a session, which is named by known_hosts.
var serveCards = []string{"serve", "--pin", "askpass", "--notify", "none", "--require-binding", "--refuse-forwarded"}

// cardSocket is where bastion-agent serves the cards of all, ownSocket the one that the user of `up` has of his own.
func (e *environment) cardSocket() string { return e.path("ssh", "cards.sock") }
func (e *environment) ownSocket() string  { return e.path("own", "agent.sock") }

// approverKey is what an approver signs with: a public key whose card an agent reaches, or a software key's file.
func (e *environment) approverKey(name string) string {
	if e.hasCards() {
		return e.path("keys", name+".pub")
	}
	return e.path("keys", name)
}

// request is an approver's enrolment, as fleetctl init takes it.
func (e *environment) request(name string) string {
	if e.hasCards() {
		return e.path("cards", name+".request")
	}
	return e.path("keys", name) + ".pub"
}

// identity tells fleetctl ssh-config which of the agent's keys is the engineer's.
func (d *demo) identity() []string {
	if !d.e.hasCards() {
		return nil
	}
	return []string{"--identity", d.e.path("keys", engineer+".pub")}
}

// layCards makes the cards' maker and their holders' secrets, and returns the makers that the policy and the trust policy believe. With
// them the environment has cards.
func (d *demo) layCards() ([]pivcard.DeviceIssuer, error) {
	e := d.e
	if err := os.MkdirAll(e.path("cards"), 0o700); err != nil {
		return nil, fmt.Errorf("making the cards' directory: %w", err)
	}
	for _, name := range []string{"pin", "puk"} {
		n, err := rand.Int(rand.Reader, big.NewInt(90_000_000))
		if err != nil {
			return nil, fmt.Errorf("making a secret for the cards: %w", err)
		}
		if err := d.write(e.path("cards", name), fmt.Appendf(nil, "%d\n", n.Int64()+10_000_000), 0o600); err != nil {
			return nil, err
		}
	}
	if err := d.askpass("cards"); err != nil {
		return nil, err
	}
	issuer, err := pivcard.LoadOrNewIssuer(e.issuerFile())
	if err != nil {
		return nil, err
	}
	var rules strings.Builder
	rules.WriteString("verify_required = true\n\n")
	for _, i := range issuer.DeviceIssuers() {
		fmt.Fprintf(&rules, "[[test_issuer]]\nname = %q\napplet = %q\ncertificate = %q\n\n", i.Name, i.Applet, i.Certificate)
	}
	for name, data := range map[string][]byte{"rules.toml": []byte(rules.String()), "root.pem": issuer.PIVRoot.PEM(), "attestation.pem": issuer.PIV.PEM()} {
		if err := d.write(e.path("cards", name), data, 0o644); err != nil {
			return nil, err
		}
	}
	return issuer.DeviceIssuers(), nil
}

// askpass writes the program that types the PIN for a person, from the file beside it that only they can read.
func (d *demo) askpass(dir string) error {
	pin := strings.ReplaceAll(d.e.path(dir, "pin"), "'", `'\''`)
	return d.write(d.e.path(dir, "askpass"), []byte("#!/bin/sh\nexec cat '"+pin+"'\n"), 0o700)
}

// makeCards builds bastion-agent, plugs the cards in, and has each holder make the card ready and answer the fleet's challenge.
func (d *demo) makeCards(ctx context.Context) (string, error) {
	e := d.e
	if err := e.buildWithCards(ctx, d.c.Stderr); err != nil {
		return "", err
	}
	began := time.Now()
	c, err := e.startCards(ctx, cardHolders...)
	if err != nil {
		return "", err
	}
	var said []string
	for _, name := range cardHolders {
		serial, err := d.enrol(ctx, c, name)
		if err != nil {
			return "", fmt.Errorf("%s's card: %w", name, err)
		}
		said = append(said, fmt.Sprintf("%s has card %d (%s)", name, serial, keyTypes[name]))
	}
	cmd := d.background(e.bin("bastion-agent"), append(serveCards, "--socket", e.cardSocket(), "--known-hosts", e.fleet("public", "known_hosts"))...)
	cmd.Env = append(c.Environ(cmd.Env), "SSH_ASKPASS="+e.path("cards", "askpass"))
	if _, err := d.daemon(ctx, "agent-cards", netlab.Namespace{}, "SSH_AUTH_SOCK=", cmd); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: made ready, attested, enrolled in %s", strings.Join(said, ", "), took(began)), nil
}

// enrol makes one card ready and writes its holder's enrolment request, and the public key where ssh and fleetctl look for it.
func (d *demo) enrol(ctx context.Context, c *cards, name string) (serial uint32, err error) {
	e := d.e
	card, err := d.show(ctx, name)
	if err != nil {
		return 0, err
	}
	run := func(args ...string) error {
		cmd := e.command(ctx, e.bin("bastion-agent"), append(args, "--serial", fmt.Sprint(card.Serial), "--pin-file", e.path("cards", "pin"),
			"--test-issuer", e.path("cards", "attestation.pem"), "--test-issuer", e.path("cards", "root.pem"))...)
		cmd.Env = c.Environ(cmd.Env)
		_, err := outputOf(cmd, nil)
		return err
	}
	if err := run("setup", "--yes", "--type", keyTypes[name], "--puk-file", e.path("cards", "puk")); err != nil {
		return 0, err
	}
	challenge := e.path("cards", name+".challenge")
	if _, err := d.fleetctl(ctx, "key", "challenge", name, "-o", challenge); err != nil {
		return 0, err
	}
	file := e.path("cards", name+".request")
	if err := run("enroll", "--challenge", challenge, "--out", file); err != nil {
		return 0, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading the request: %w", err)
	}
	var request struct{ Public string }
	if err := json.Unmarshal(data, &request); err != nil || request.Public == "" {
		return 0, fmt.Errorf("reading the request: no public key, %v", err)
	}
	return card.Serial, d.write(e.path("keys", name+".pub"), []byte(request.Public+" "+name+"\n"), 0o644)
}

// show looks at a person's card from outside.
func (d *demo) show(ctx context.Context, name string) (*pivcard.Shown, error) {
	return d.hold(ctx, name, pivcard.Request{Do: "show"})
}

// hold does with a person's card what a hand can do.
func (d *demo) hold(ctx context.Context, name string, r pivcard.Request) (*pivcard.Shown, error) {
	reply, err := pivcard.Ask(ctx, d.e.cardsOf(len(cardHolders)).control(name), r)
	if err == nil && reply.Card == nil {
		err = errors.New("the card shows nothing of itself")
	}
	return reply.Card, err
}

// ownAgent is bastion-agent for the user of `up`: one that root runs serves root only.
func (d *demo) ownAgent(ctx context.Context) (socket string, err error) {
	e := d.e
	if err := os.MkdirAll(e.path("own"), 0o700); err != nil {
		return "", fmt.Errorf("making the agent's directory: %w", err)
	}
	pin, err := os.ReadFile(e.path("cards", "pin"))
	if err != nil {
		return "", fmt.Errorf("reading the PIN: %w", err)
	}
	if err := errors.Join(d.write(e.path("own", "pin"), pin, 0o600), d.askpass("own"), e.owner.give(e.path("own"))); err != nil {
		return "", err
	}
	cmd := d.background(e.bin("bastion-agent"), append(serveCards, "--socket", e.ownSocket(), "--known-hosts", e.fleet("public", "known_hosts"))...)
	cmd.Env = append(e.cardsOf(len(cardHolders)).Environ(cmd.Env), "SSH_ASKPASS="+e.path("own", "askpass"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uint32(e.owner.uid), Gid: uint32(e.owner.gid)}}
	_, err = d.daemon(ctx, "agent-own", netlab.Namespace{}, "SSH_AUTH_SOCK=", cmd)
	return e.ownSocket(), err
}

// cardLogin logs in at a server, and wants one touch of the engineer's card for each hop and a record that says with what.
func (d *demo) cardLogin(ctx context.Context, server string) (string, error) {
	if err := d.markAudit(); err != nil {
		return "", err
	}
	logged, err := os.ReadFile(d.e.log("agent-cards"))
	if err != nil {
		return "", fmt.Errorf("reading the agent's log: %w", err)
	}
	before, err := d.show(ctx, engineer)
	if err != nil {
		return "", err
	}
	if _, err := d.ssh(ctx, server, "", "true"); err != nil {
		return "", err
	}
	after, err := d.show(ctx, engineer)
	if err != nil {
		return "", err
	}
	asked, given, signed := after.Touch.Asked-before.Touch.Asked, after.Touch.Given-before.Touch.Given, after.Signatures-before.Signatures
	if asked != 2 || given != 2 || signed != 2 {
		return "", fmt.Errorf("the card asked for %d touches, got %d and signed %d times, want 2 of each", asked, given, signed)
	}
	now, err := os.ReadFile(d.e.log("agent-cards"))
	if err != nil {
		return "", fmt.Errorf("reading the agent's log: %w", err)
	}
	for _, hop := range []string{bastionName, server} {
		if want := fmt.Sprintf("log in as %s at %s ", engineer, hop); strings.Count(string(now[len(logged):]), want) != 1 {
			return "", fmt.Errorf("the agent did not say %q once:\n%s", want, now[len(logged):])
		}
	}
	return fmt.Sprintf("2 touches, 2 signatures; shown for them: %s at %s, %s at %s", engineer, bastionName, engineer, server),
		d.awaitRecord(ctx, func(r closing) error {
			want := fmt.Sprintf("piv, serial %d, ", after.Serial)
			if r.User != engineer || r.Outcome != "accepted" || !strings.HasPrefix(r.Evidence, want) || !strings.Contains(r.Evidence, ", touch always, ") {
				return fmt.Errorf("want %s accepted with evidence %q and touch always", engineer, want)
			}
			return nil
		})
}

// closing is what the bastion writes down when a connection has ended.
type closing struct{ User, Outcome, Evidence, Reason string }

// awaitRecord waits, after the mark, for a closing record that holds.
func (d *demo) awaitRecord(ctx context.Context, holds func(closing) error) error {
	return d.awaitFresh(ctx, func(fresh []byte) error {
		err := errors.New("no connection was closed")
		for line := range strings.Lines(string(fresh)) {
			var entry struct {
				Event  string
				Record closing
			}
			if json.Unmarshal([]byte(line), &entry) != nil || entry.Event != "connection" {
				continue
			}
			if err = holds(entry.Record); err == nil {
				return nil
			}
		}
		return err
	})
}

// untouched tries to log in at the bastion while nobody touches the card.
func (d *demo) untouched(ctx context.Context) (said string, err error) {
	if _, err := d.hold(ctx, engineer, pivcard.Request{Do: "mode", Mode: string(pivcard.TouchRefused)}); err != nil {
		return "", err
	}
	defer func() {
		_, again := d.hold(context.WithoutCancel(ctx), engineer, pivcard.Request{Do: "mode", Mode: string(pivcard.TouchAuto)})
		err = errors.Join(err, again)
	}()
	logged, err := os.ReadFile(d.e.log("agent-cards"))
	if err != nil {
		return "", fmt.Errorf("reading the agent's log: %w", err)
	}
	if _, err = d.refusedLogin(ctx, engineer, bastionName, "-W", netip.AddrPortFrom(netlab.Controller, 22).String()); err != nil {
		return "", err
	}
	now, err := os.ReadFile(d.e.log("agent-cards"))
	if err != nil {
		return "", fmt.Errorf("reading the agent's log: %w", err)
	}
	const reason = "touch_timeout"
	if !strings.Contains(string(now[len(logged):]), "reason="+reason) {
		return "", fmt.Errorf("the agent does not say %s:\n%s", reason, now[len(logged):])
	}
	return "the agent: " + reason, nil
}

// keyShown sees that fleetctl tells what is known of the engineer's key.
func (d *demo) keyShown(ctx context.Context) (string, error) {
	card, err := d.show(ctx, engineer)
	if err != nil {
		return "", err
	}
	out, err := d.fleetctl(ctx, "key", "show", engineer, "--audit", d.auditDir(), "-o", "json")
	if err != nil {
		return "", err
	}
	var shown struct {
		Keys []struct {
			Accepted bool
			Evidence string
			Proof    struct {
				Issuer, Firmware string
				Serial           uint32
				Touch, Test      bool
				Made             time.Time
			}
			Logins int
			Last   time.Time `json:"last_login"`
			Source string    `json:"last_source"`
		}
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Keys) != 1 {
		return "", fmt.Errorf("fleetctl key show says %q: %v", out, err)
	}
	k := shown.Keys[0]
	if p := k.Proof; !k.Accepted || k.Evidence != "piv" || p.Serial != card.Serial || !p.Touch || !p.Test || p.Made.IsZero() || k.Logins == 0 || k.Last.Before(p.Made) || !strings.HasPrefix(k.Source, netlab.Engineer.String()+":") {
		return "", fmt.Errorf("it says of card %d: %+v", card.Serial, k)
	}
	return fmt.Sprintf("card %d, firmware %s, attested by %s (a test issuer), touch always; %d logins, the last from %s", k.Proof.Serial, k.Proof.Firmware, k.Proof.Issuer, k.Logins, k.Source), nil
}
