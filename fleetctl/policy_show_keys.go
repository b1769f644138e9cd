package main

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/policies"
)

// showKeys says what counts beside engineers' plain keys, and what is revoked.
func showKeys(p policies.Policy) []string {
	var lines []string
	if p.SSH.VerifyRequired {
		lines = append(lines, "only keys whose evidence proves user verification")
	}
	for _, l := range []struct {
		name string
		own  []string
	}{{"key exchanges", p.SSH.KeyExchanges}, {"ciphers", p.SSH.Ciphers}, {"MACs", p.SSH.MACs}, {"host keys", p.SSH.HostKeys}, {"user keys", p.SSH.UserKeys}} {
		if len(l.own) > 0 {
			lines = append(lines, fmt.Sprintf("%s, of those of the level: %s", l.name, shown(l.own, "none")))
		}
	}
	if c := p.Certificates; len(c.Authorities) > 0 {
		lines = append(lines, fmt.Sprintf("user certificates by %s, valid for %s at most", shown(fingerprints(c.Authorities), "nobody"), c.Life()))
	}
	if list := p.Certificates.KRL.List(); list != nil {
		lines = append(lines, fmt.Sprintf("revocation list %d, made %s, SHA-256 %x", list.Version, list.Generated().Format(time.RFC3339), sha256.Sum256(p.Certificates.KRL.Bytes())))
	}
	return lines
}

// showHardware says what is asked of keys in hardware, where that is not the default, and whose word for it is taken.
func showHardware(h policies.Hardware) []string {
	var lines []string
	for _, l := range []struct {
		text string
		list []string
	}{
		{"keys of PIV cards in slots", h.Slots}, {"keys of PIV cards with PIN policies", h.PINPolicies}, {"PIV cards with serial numbers", numbers(h.SerialsAllow)},
		{"no PIV cards with serial numbers", numbers(h.SerialsDeny)}, {"FIDO2 authenticators with AAGUIDs", h.AAGUIDs}, {"keys that never come back", h.Revoked},
	} {
		if len(l.list) > 0 {
			lines = append(lines, l.text+": "+shown(l.list, "none"))
		}
	}
	if h.MinFirmware != "" {
		lines = append(lines, "PIV cards from firmware "+h.MinFirmware)
	}
	for _, i := range h.FIDO2Issuers {
		lines = append(lines, issuerLine("FIDO2 authenticators by", i))
	}
	for _, i := range h.TestIssuers {
		lines = append(lines, issuerLine("TEST: virtual "+i.Applet+" cards by", i))
	}
	return lines
}

func issuerLine(what string, i hardkey.Issuer) string {
	text := "a certificate that does not parse"
	if der, err := base64.StdEncoding.DecodeString(i.Certificate); err == nil {
		text = fmt.Sprintf("certificate SHA-256 %x", sha256.Sum256(der))
	}
	return fmt.Sprintf("%s %q, %s", what, i.Name, text)
}

func numbers(list []uint32) []string {
	var texts []string
	for _, n := range list {
		texts = append(texts, fmt.Sprint(n))
	}
	return texts
}

// showRobot shows every command: they are what a robot may do.
func showRobot(r policies.Robot) string {
	return fmt.Sprintf("robot %s, from %s alone, without a touch: %s, ports %s; key %s; commands: %s", r.Name, r.Source.Addr(), shown(r.Servers, "no server"),
		shown(texts(r.Ports), "none"), shown(fingerprints([]string{r.Public}), "none"), strings.Join(r.Commands, " | "))
}
