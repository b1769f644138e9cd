package main

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"mayfly/bastion/hardkey"
	"mayfly/policies/trust"
)

// TestChangesOfRules: of what is new nothing is hidden behind what was there, however much that is.
func TestChangesOfRules(t *testing.T) {
	long := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("certificate", 100)))
	first := hardkey.Issuer{Name: "good", Applet: hardkey.KindFIDO2, Certificate: long}
	old := &trust.Trust{Hardware: trust.Hardware{FIDO2Issuers: []hardkey.Issuer{first}, Slots: []string{"9a"}}, TicketKeys: []string{"a"}}
	for i := range 40 {
		old.Hardware.SerialsAllow = append(old.Hardware.SerialsAllow, uint32(1000+i))
	}
	next := *old
	next.Hardware.FIDO2Issuers = []hardkey.Issuer{first, {Name: "EVIL", Applet: hardkey.KindFIDO2, Certificate: base64.StdEncoding.EncodeToString([]byte("x"))}}
	next.Hardware.SerialsAllow = append(old.Hardware.SerialsAllow[1:len(old.Hardware.SerialsAllow):len(old.Hardware.SerialsAllow)], 9999)
	next.Hardware.Slots = nil
	got := strings.Join(changes(old, &next), "\n")
	want := strings.Join([]string{
		"- rule for hardware: slot 9a",
		"- rule for hardware: serial number, no others 1000",
		"+ rule for hardware: the slots that hold without any rule",
		"+ rule for hardware: serial number, no others 9999",
		"+ rule for hardware: another maker of FIDO2 keys: EVIL, certificate sha256 " + trust.Sum([]byte("x")),
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestChangesOfEachField: there is no field that a trust policy changes unseen.
func TestChangesOfEachField(t *testing.T) {
	issuer := hardkey.Issuer{Name: "a", Applet: hardkey.KindFIDO2, Certificate: "eA=="}
	person := func(name, key string) []trust.Person { return []trust.Person{{Name: name, Keys: []string{key}}} }
	fields := map[string]func(*trust.Trust){
		"Approvers": func(x *trust.Trust) { x.Approvers = person("bo", "key bo") }, "Threshold": func(x *trust.Trust) { x.Threshold++ },
		"Recovery": func(x *trust.Trust) { x.Recovery = trust.Recovery{People: person("safe", "key safe"), Threshold: 1} },
		"Builders": func(x *trust.Trust) { x.Builders = person("workshop", "key workshop") }, "BuilderThreshold": func(x *trust.Trust) { x.BuilderThreshold++ },
		"LedgerKeys": func(x *trust.Trust) { x.LedgerKeys = []string{"unreadable too"} }, "SecureBoot": func(x *trust.Trust) { x.SecureBoot = []string{"ab"} },
		"TicketKeys": func(x *trust.Trust) {
			x.TicketKeys = []string{"sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAAAABHNzaDo="}
		},
		"ListKeys": func(x *trust.Trust) { x.ListKeys = []string{"unreadable"} }, "MinRelease": func(x *trust.Trust) { x.MinRelease++ },
		"Witnesses": func(x *trust.Trust) { x.Witnesses = person("ida", "key ida") }, "WitnessThreshold": func(x *trust.Trust) { x.WitnessThreshold++ },
		"Hardware.Slots": func(x *trust.Trust) { x.Hardware.Slots = []string{"82"} }, "Hardware.PINPolicies": func(x *trust.Trust) { x.Hardware.PINPolicies = []string{"never"} },
		"Hardware.MinFirmware": func(x *trust.Trust) { x.Hardware.MinFirmware = "0.0.1" }, "Hardware.SerialsAllow": func(x *trust.Trust) { x.Hardware.SerialsAllow = []uint32{1} },
		"Hardware.SerialsDeny": func(x *trust.Trust) { x.Hardware.SerialsDeny = []uint32{1} }, "Hardware.AAGUIDs": func(x *trust.Trust) { x.Hardware.AAGUIDs = []string{"m"} },
		"Hardware.VerifyRequired": func(x *trust.Trust) { x.Hardware.VerifyRequired = true }, "Hardware.FIDO2Issuers": func(x *trust.Trust) { x.Hardware.FIDO2Issuers = []hardkey.Issuer{issuer} },
		"Hardware.TestIssuers": func(x *trust.Trust) { x.Hardware.TestIssuers = []hardkey.Issuer{issuer} },
	}
	same := map[string]bool{"Kind": true, "Fleet": true, "Test": true, "Version": true, "Previous": true, "Hardware": true} // never change, or are said above
	check := func(prefix string, of reflect.Type) {
		for i := range of.NumField() {
			name := prefix + of.Field(i).Name
			change := fields[name]
			if change == nil {
				if !same[name] {
					t.Errorf("%s: a change of it has no test", name)
				}
				continue
			}
			old, next := &trust.Trust{}, &trust.Trust{}
			change(next)
			if got, back := changes(old, next), changes(next, old); len(got) == 0 || len(back) == 0 || fmt.Sprint(got) == fmt.Sprint(back) {
				t.Errorf("%s: changed %q, and back %q", name, got, back)
			}
		}
	}
	check("", reflect.TypeFor[trust.Trust]())
	check("Hardware.", reflect.TypeFor[trust.Hardware]())
	old, next := &trust.Trust{Approvers: person("bo", "k")}, &trust.Trust{Approvers: person("bo", "k")}
	next.Approvers[0].Shown = []hardkey.Shown{{Kind: hardkey.KindPIV}}
	if got := changes(old, next); len(got) != 1 || !strings.HasPrefix(got[0], "! approver bo shows something else for ") {
		t.Errorf("other evidence of the same key: %q", got)
	}
}
