package issue

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/rebuild/ticket"
)

func TestNew(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 5, time.FixedZone("", 3600))
	ca, _, err := pki.NewCA("lab.test", now)
	if err != nil {
		t.Fatal(err)
	}
	fleet := inventory.Fleet{
		Name: "lab", Domain: "lab.test",
		Network:    inventory.Network{Gateway: netip.MustParseAddr("10.77.0.1")},
		Controller: inventory.Controller{Address: netip.MustParseAddr("10.77.0.1"), BootPort: 8080, JoinPort: 8443},
		Mirrors:    []string{"https://192.0.2.7:443/m/"},
		Witnesses:  []string{"http://192.0.2.8:9000"},
		Servers: []inventory.Server{{Name: "se-1", Address: netip.MustParsePrefix("10.77.0.11/24"),
			Network: inventory.Link{Mode: "dhcp4", MACs: []string{"52:54:00:00:00:01"}, VLAN: 7}}},
	}
	life := Life{Epoch: 3, Release: [32]byte{0xab}, Path: "/releases/7/", CA: ca, NotAfter: now, MaxAge: time.Hour, Made: now, TPM: ticket.TPMRequired, Disks: ticket.DisksUnbind}
	got, err := New(fleet, "se-1", life)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ what, got, want string }{
		{"server", got.ServerName(), "se-1.lab.test"},
		{"address", got.Address.String(), "10.77.0.11/24"},
		{"release", got.Release[:4], "ab00"},
		{"release URL", strings.Join(got.Mirrors, " "), "https://192.0.2.7:443/m/releases/7/ http://10.77.0.1:8080/releases/7/"},
		{"network", fmt.Sprint(got.Network), "{dhcp4 [52:54:00:00:00:01]  7}"},
		{"witnesses", strings.Join(got.Witnesses, " "), "http://192.0.2.8:9000"},
		{"tpm and disks", got.TPM + " " + got.Disks, "required unbind"},
		{"deadline", got.Deadline.Format(time.RFC3339Nano), "2030-01-01T12:00:00Z"},
		{"controller", got.Controller, "10.77.0.1:8443"},
		{"controller's name", got.Name, "controller.lab.test"},
		{"end", got.NotAfter.Format(time.RFC3339Nano), "2030-01-01T11:00:00Z"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	if got.Epoch != 3 || got.MaxAge != 3600 {
		t.Errorf("got life %d of %d s, want 3 of 3600", got.Epoch, got.MaxAge)
	}
	for _, name := range []string{"se-9", ""} {
		if _, err := New(fleet, name, life); err == nil {
			t.Errorf("%q: got a ticket for a server that is not in the inventory", name)
		}
	}
	life.Epoch = 0
	if _, err := New(fleet, "se-1", life); err == nil {
		t.Error("life 0: got nil, want an error")
	}
}

// The stub links no inventory, so package ticket has its own word for the controller.
func TestControllerLabel(t *testing.T) {
	if ticket.ControllerLabel != inventory.NameController {
		t.Errorf("a ticket calls the controller %q, the inventory %q", ticket.ControllerLabel, inventory.NameController)
	}
}
