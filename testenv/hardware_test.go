package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"mayfly/testenv/pivcard"
)

// logged reports what the agent has logged since it was this long.
func (h *hardware) logged(since int) string { return h.signed.String()[since:] }

// refusedLogin logs in, and wants it refused: by the agent for one reason, which the bastion then never lets in.
func (h *hardware) refusedLogin(reason string) {
	h.t.Helper()
	since := len(h.signed.String())
	if out, err := h.ssh(); err == nil {
		h.t.Errorf("%s: logged in: %s", reason, out)
	}
	h.until("the agent says "+reason, &h.signed, func() bool { return strings.Contains(h.logged(since), "reason="+reason) })
}

// closed waits for a closing record with a reason, after so many others: those of earlier logins may come late.
func (h *hardware) closed(before int, reason string) (record map[string]any) {
	h.t.Helper()
	h.until("a closing record with "+reason, &h.log, func() bool {
		for _, r := range h.records()[before:] {
			if record, _ = r["record"].(map[string]any); record["reason"] == reason {
				return true
			}
		}
		return false
	})
	return record
}

// loggedIn logs in, and wants the card touched once for each of the two hops.
func (h *hardware) loggedIn() {
	h.t.Helper()
	card, records, since := h.cards["anna"], len(h.records()), len(h.signed.String())
	before := card.Show()
	if out, err := h.ssh(); err != nil || out != "one day\n" {
		h.t.Fatalf("%v\n%s\nagent:\n%s\nbastion:\n%s\nsshd:\n%s", err, out, h.signed.String(), h.log.String(), h.sshd.String())
	}
	after := card.Show()
	if asked, given, signed := after.Touch.Asked-before.Touch.Asked, after.Touch.Given-before.Touch.Given, after.Signatures-before.Signatures; asked != 2 || given != 2 || signed != 2 {
		h.t.Errorf("the card asked for %d touches, got %d and signed %d times, want 2 of each", asked, given, signed)
	}
	for _, hop := range []string{"log in as anna at gate (certificate of gate/", "log in as anna at web-1 (host key SHA256:"} {
		if !strings.Contains(h.logged(since), hop) {
			h.t.Errorf("the agent did not say %q:\n%s", hop, h.logged(since))
		}
	}
	record := h.closed(records, "allowed")
	want := fmt.Sprintf("piv, serial %d, firmware 5.7.4, slot 9a, touch always, pin once, by mayfly TEST software PIV Attestation B 1", card.Serial())
	if record["outcome"] != "accepted" || record["evidence"] != want || record["test"] != true || record["user"] != "anna" {
		h.t.Errorf("record %v, want evidence %q", record, want)
	}
}

// TestHardwareKeys goes the whole way with real programs: cards are made ready, enrolled, approved by other cards, and log in through the bastion
// with one touch for each hop; and whatever is not a touched, attested card does not.
func TestHardwareKeys(t *testing.T) {
	h := newHardware(t)
	h.fleet()
	t.Run("enrolment", h.enrolments)
	h.serve()
	h.loggedIn()
	anna := h.cards["anna"]

	// No touch, no signature.
	if err := anna.Touch.SetMode(pivcard.TouchRefused); err != nil {
		t.Fatal(err)
	}
	h.refusedLogin("touch_timeout")
	if err := anna.Touch.SetMode(pivcard.TouchManual); err != nil {
		t.Fatal(err)
	}

	// The card is pulled while it waits for a touch, and works again when it is back.
	before := h.reader(anna)
	pulled := make(chan error, 1)
	go func() {
		err := anna.Touch.Asked(h.ctx)
		if err == nil {
			anna.pull()
		}
		pulled <- err
	}()
	h.refusedLogin("card_gone")
	if err := <-pulled; err != nil {
		t.Fatal(err)
	}
	if err := anna.Touch.SetMode(pivcard.TouchAuto); err != nil {
		t.Fatal(err)
	}
	h.removed(anna, before)
	h.insert(anna)
	h.loggedIn()

	// Evidence is verified again with each policy: rules that a card no longer keeps lock it out.
	policy := h.read("office/policy.toml")
	h.write("office/policy.toml", strings.Replace(strings.Replace(policy, "version = 1", "version = 2", 1), "[hardware]", fmt.Sprintf("[hardware]\nserials_deny = [%d]", anna.Serial()), 1), 0o644)
	h.want(3, "attestation_serial_denied: ", "fleetctl", "policy", "bundle", "--dir", "office")
	h.want(0, "", "fleetctl", "policy", "bundle", "--dir", "office", "--keep-rejected")
	h.approve()
	h.says(&h.log, `msg="policy in force" version=2 `)
	records := len(h.records())
	if out, err := h.ssh(); err == nil {
		t.Errorf("a denied serial number logged in: %s", out)
	}
	if r := h.closed(records, "attestation_serial_denied"); r["outcome"] != "refused" || r["user"] != "anna" {
		t.Errorf("record %v", r)
	}
	h.write("office/policy.toml", strings.Replace(policy, "version = 1", "version = 3", 1), 0o644)
	h.want(0, "", "fleetctl", "policy", "bundle", "--dir", "office")
	h.approve()
	h.says(&h.log, `msg="policy in force" version=3 `)
	h.loggedIn()

	// Wrong PINs: each is one try, until the card is blocked for good.
	h.write("typed", "111111\n", 0o600)
	for anna.Show().PINLeft > 0 {
		left := anna.Show().PINLeft
		h.refusedLogin("pin_")
		if now := anna.Show().PINLeft; now >= left {
			t.Fatalf("%d tries are left after a wrong PIN, as before", now)
		}
	}
	h.write("typed", hardwarePIN+"\n", 0o600)
	h.refusedLogin("pin_blocked")

	// Another key in the slot of the attested one: the policy has the old one.
	h.want(0, "", "bastion-agent", "setup", "--yes", "--type", "p256", "--serial", fmt.Sprint(anna.Serial()), "--pin-file", "pin", "--puk-file", "puk",
		"--test-issuer", "issuer-0.pem", "--test-issuer", "issuer-1.pem", "--reset-and-destroy-all-piv-keys")
	enrolled := h.public("anna-anna.json", "anna")
	now := h.public(h.enroll("anna", "anna"), "anna")
	if now == enrolled {
		t.Fatal("the card has its old key")
	}
	h.until("the agent has the new key", &h.signed, func() bool {
		held, err := h.list()
		return err == nil && strings.Contains(held, now)
	})
	records = len(h.records())
	if out, err := h.ssh(); err == nil {
		t.Errorf("a key that nobody approved logged in: %s", out)
	}
	if r := h.closed(records, "key_not_hardware"); r["outcome"] != "refused" || r["user"] != "anna" {
		t.Errorf("record %v", r)
	}
}

// in has what follows fail in a subtest.
func (h *hardware) in(t *testing.T) {
	outer := h.t
	h.t = t
	t.Cleanup(func() { h.t = outer })
}

// enrolments shows "fleetctl key add" requests of cards that are not as they should be.
func (h *hardware) enrolments(t *testing.T) {
	foreign, err := pivcard.NewIssuer()
	if err != nil {
		t.Fatal(err)
	}
	policy := h.read("office/policy.toml")
	for i, tt := range []struct {
		reason string
		config pivcard.Config
		change func(c *heldCard) error // after setup
		slot   string
	}{
		{"attestation_touch_cached", pivcard.Config{}, func(c *heldCard) error {
			_, err := c.Generate(pivcard.KeyPlan{Slot: "82", Algorithm: "p256", PIN: "once", Touch: "cached"})
			return err
		}, "82"},
		{"attestation_touch_never", pivcard.Config{}, func(c *heldCard) error {
			_, err := c.Generate(pivcard.KeyPlan{Slot: "83", Algorithm: "p256", PIN: "once", Touch: "never"})
			return err
		}, "83"},
		{"attestation_pin_policy", pivcard.Config{}, func(c *heldCard) error {
			_, err := c.Generate(pivcard.KeyPlan{Slot: "84", Algorithm: "p256", PIN: "never", Touch: "always"})
			return err
		}, "84"},
		{"attestation_chain", pivcard.Config{}, func(c *heldCard) error { return c.Replace(foreign, pivcard.ChainPIV) }, "9a"},
		{"attestation_other_applet", pivcard.Config{}, func(c *heldCard) error { return c.Replace(h.issuer, pivcard.ChainFIDO) }, "9a"},
		{"attestation_firmware", pivcard.Config{Firmware: pivcard.Firmware{Major: 5, Minor: 4, Patch: 3}}, nil, "9a"},
		{"attestation_extension_missing", pivcard.Config{}, func(c *heldCard) error { return c.SetFaults(pivcard.Faults{Without: []string{"policy"}}) }, "9a"},
		{"attestation_slot", pivcard.Config{}, func(c *heldCard) error { return c.SetFaults(pivcard.Faults{Slot: "9c"}) }, "9a"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			h.in(t)
			name := fmt.Sprintf("other%d", i)
			c := h.card(name, 3, tt.config)
			defer h.remove(c)
			h.setup(name, "p256", "--min-firmware", "5.0.0")
			if tt.change != nil {
				if err := tt.change(c); err != nil {
					t.Fatal(err)
				}
			}
			request := h.enroll("anna", name, "--slot", tt.slot)
			h.want(3, tt.reason+": ", "fleetctl", "key", "add", request, "--dir", "office")
		})
	}
	t.Run("imported", func(t *testing.T) {
		h.in(t)
		c := h.card("imported", 3, pivcard.Config{})
		defer h.remove(c)
		h.setup("imported", "p256")
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Import(pivcard.KeyPlan{Slot: "85", PIN: "once", Touch: "always"}, key); err != nil {
			t.Fatal(err)
		}
		h.want(0, "", "fleetctl", "key", "challenge", "anna", "--dir", "office", "-o", "imported.challenge")
		h.want(3, "(attestation_imported)", "bastion-agent", "enroll", "--challenge", "imported.challenge", "--serial", fmt.Sprint(c.Serial()), "--slot", "85", "--pin-file", "pin", "--out", "imported.json",
			"--test-issuer", "issuer-0.pem", "--test-issuer", "issuer-1.pem")
	})
	t.Run("attestation_key_differs", func(t *testing.T) {
		h.in(t)
		request := h.enroll("anna", "anna")
		other := h.read("bo.pub")
		var r struct{ Public string }
		if err := json.Unmarshal([]byte(h.read(request)), &r); err != nil {
			t.Fatal(err)
		}
		h.write(request, strings.Replace(h.read(request), r.Public, strings.TrimSpace(other), 1), 0o644)
		h.want(3, "attestation_key_differs: ", "fleetctl", "key", "add", request, "--dir", "office")
	})
	if h.read("office/policy.toml") != policy {
		t.Error("a refused request changed the policy")
	}
}
