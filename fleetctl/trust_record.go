package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/durable"
	"mayfly/policies"
	"mayfly/policies/trust"
)

// recordsDir holds a text for paper for each trust policy.
func (d state) recordsDir() string { return d.path("records") }

func (d state) recordFile(version uint64) string {
	return d.path("records", fmt.Sprintf("trust-%d.txt", version))
}

// writeRecord keeps the text that is printed, read aloud, signed and put into the safes.
func (d state) writeRecord(t *trust.Trust, data []byte, how string, now time.Time) (string, error) {
	if err := os.MkdirAll(d.recordsDir(), 0o755); err != nil {
		return "", fmt.Errorf("making the directory of records: %w", err)
	}
	path := d.recordFile(t.Version)
	return path, durable.WriteFile(path, []byte(trustRecord(t, data, how, now)), 0o644)
}

// trustRecord is a trust policy for paper: public facts only, in the order in which they are read aloud.
func trustRecord(t *trust.Trust, data []byte, how string, now time.Time) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("MAYFLY: RECORD OF A TRUST POLICY")
	line("")
	line("fleet      %s", t.Fleet)
	line("version    %d", t.Version)
	line("made       %s", now.UTC().Format(time.RFC3339))
	line("by         %s", how)
	if t.Previous != "" {
		line("follows    %s", strings.Join(aloud(t.Previous), "\n           "))
	}
	if t.Test {
		line("")
		line("TEST FLEET: software keys and virtual cards count. Nothing here is worth trusting.")
	}
	line("")
	line("APPROVERS: %d of %d people sign releases, policies and the next trust policy", t.Threshold, len(t.Approvers))
	recordPeople(line, t, t.Approvers)
	line("")
	if t.Recovery.Threshold > 0 {
		line("RECOVERY: %d of %d people name other approvers, if fewer than %d are left", t.Recovery.Threshold, len(t.Recovery.People), t.Threshold)
		recordPeople(line, t, t.Recovery.People)
	} else {
		line("RECOVERY: nobody. If fewer than %d approvers are left, the fleet's trust ends.", t.Threshold)
	}
	line("")
	if t.BuilderThreshold > 0 {
		line("BUILDERS: %d of %d made a release again themselves, bit for bit, before it runs", t.BuilderThreshold, len(t.Builders))
		recordPeople(line, t, t.Builders)
	} else {
		line("BUILDERS: nobody. What a release was made from is the approvers' word alone.")
	}
	line("")
	line("WITNESSES: %d of %d confirm which policy and release are the newest, and cosign the ledger", t.WitnessThreshold, len(t.Witnesses))
	for _, w := range t.Witnesses {
		for _, key := range w.Keys {
			line("  %-16s %s", w.Name, policies.Fingerprint(key))
		}
	}
	line("")
	line("RULES FOR HARDWARE, beside the makers that mayfly knows")
	for _, rule := range hardwareRules(t.Hardware) {
		line("  %s", rule)
	}
	line("")
	line("KEYS OF THE SIGNER")
	for _, key := range t.TicketKeys {
		line("  %-16s %s", "tickets", policies.Fingerprint(key))
	}
	for _, key := range t.ListKeys {
		line("  %-16s %s", "server lists", policies.Fingerprint(key))
	}
	for _, key := range t.LedgerKeys {
		line("  %-16s %s", "public ledger", policies.Fingerprint(key))
	}
	if len(t.LedgerKeys) == 0 {
		line("  %-16s %s", "public ledger", "none: no release has to be logged")
	}
	if len(t.SecureBoot) > 0 {
		line("")
		line("CERTIFICATES IN SERVERS' FIRMWARE (SECURE BOOT), sha256")
		for _, sum := range t.SecureBoot {
			for i, row := range aloud(sum) {
				line("  %s %s", map[bool]string{true: "-", false: " "}[i == 0], row)
			}
		}
	}
	line("")
	line("SHA-256 OF trust.json, to be read aloud by one person and compared by all others:")
	line("")
	for _, row := range aloud(trust.Sum(data)) {
		line("  %s", row)
	}
	line("")
	line("Read aloud and compared, and the keys put where they belong:")
	for _, who := range []struct {
		role   string
		people []trust.Person
	}{{"approver", t.Approvers}, {"recovery", t.Recovery.People}, {"builder", t.Builders}} {
		for _, p := range who.people {
			line("")
			line("  %-10s %-20s date ______________  signature ____________________", who.role, p.Name)
		}
	}
	return b.String()
}

// hardwareRules are the rules for evidence, a line each, as they differ from what holds without any.
func hardwareRules(h trust.Hardware) (lines []string) {
	for _, r := range []struct {
		name  string
		value any
		set   bool
	}{{"slots", h.Slots, len(h.Slots) > 0}, {"PIN policies", h.PINPolicies, len(h.PINPolicies) > 0}, {"least firmware", h.MinFirmware, h.MinFirmware != ""},
		{"serial numbers, no others", h.SerialsAllow, len(h.SerialsAllow) > 0}, {"serial numbers refused", h.SerialsDeny, len(h.SerialsDeny) > 0},
		{"models of FIDO2 (AAGUID)", h.AAGUIDs, len(h.AAGUIDs) > 0}, {"PIN or biometry always", h.VerifyRequired, h.VerifyRequired}} {
		if r.set {
			lines = append(lines, visible(fmt.Sprintf("%s: %v", r.name, r.value)))
		}
	}
	for _, i := range h.FIDO2Issuers {
		lines = append(lines, issuerRecord("another maker of FIDO2 keys", i)...)
	}
	for _, i := range h.TestIssuers {
		lines = append(lines, issuerRecord("a maker of TEST cards ("+i.Applet+")", i)...)
	}
	if len(lines) == 0 {
		lines = []string{"none but those that hold without any"}
	}
	return lines
}

// issuerRecord names an issuer by its certificate, whose name anybody can choose.
func issuerRecord(what string, i hardkey.Issuer) []string {
	lines := []string{fmt.Sprintf("%s: %s, certificate sha256", visible(what), visible(i.Name))}
	der, err := base64.StdEncoding.DecodeString(i.Certificate)
	if err != nil {
		return append(lines, "  (not readable)")
	}
	for _, row := range aloud(trust.Sum(der)) {
		lines = append(lines, "  "+row)
	}
	return lines
}

func recordPeople(line func(string, ...any), t *trust.Trust, people []trust.Person) {
	for n, p := range people {
		line("  %d. %s", n+1, p.Name)
		for i, key := range p.Keys {
			kind, _, _ := strings.Cut(key, " ")
			line("     %s %s", policies.Fingerprint(key), kind)
			line("       %s", proves(t, p, i))
		}
	}
}

// aloud groups hex digits so that one person can read them to another: four rows of four groups of four.
func aloud(sum string) []string {
	var rows []string
	var groups []string
	for len(sum) > 0 {
		n := min(4, len(sum))
		groups, sum = append(groups, sum[:n]), sum[n:]
		if len(groups) == 4 || sum == "" {
			rows, groups = append(rows, strings.Join(groups, " ")), nil
		}
	}
	return rows
}
