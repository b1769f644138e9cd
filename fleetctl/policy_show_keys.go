package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

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

// showRobot shows every command: they are what a robot may do.
func showRobot(r policies.Robot) string {
	return fmt.Sprintf("robot %s, from %s alone, without a touch: %s, ports %s; key %s; commands: %s", r.Name, r.Source.Addr(), shown(r.Servers, "no server"),
		shown(texts(r.Ports), "none"), shown(fingerprints([]string{r.Public}), "none"), strings.Join(r.Commands, " | "))
}
