package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

const mirrorsLine = "mirrors = [\"http://10.77.0.5:8080/\", \"http://10.77.0.6:8080/\"]\n"

// withDomains is the good fleet with mirrors at its top.
func withDomains(t testing.TB) string {
	text := read(t)
	if !strings.Contains(text, "test = true\n") {
		t.Fatal("the test fleet has changed")
	}
	return strings.Replace(text, "test = true\n", "test = true\n"+mirrorsLine, 1)
}

// put adds lines to the server se-2.
func put(t testing.TB, text, lines string) string {
	t.Helper()
	const at = "name = \"se-2\"\n"
	if !strings.Contains(text, at) {
		t.Fatal("the test fleet has changed")
	}
	return strings.Replace(text, at, at+lines+"\n", 1)
}

func TestDomains(t *testing.T) {
	text := put(t, withDomains(t), "switch = \"sw-1\"\nbmc_network = \"oob-1\"\nmirror = \"http://10.77.0.6:8080/\"")
	f, err := Parse("fleet.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	one, _ := f.Server("se-1")
	two, _ := f.Server("se-2")
	for _, tt := range []struct {
		s            Server
		domain, want string
	}{
		{two, "rack", "se-a"}, {two, "switch", "sw-1"}, {two, "bmc", "oob-1"}, {two, "mirror", "http://10.77.0.6:8080/"}, {two, "room", ""},
		{one, "switch", ""}, {one, "bmc", ""}, {one, "mirror", "http://10.77.0.5:8080/"},
	} {
		if got := f.DomainOf(tt.s, tt.domain); got != tt.want {
			t.Errorf("%s of %s: got %q, want %q", tt.domain, tt.s.Name, got, tt.want)
		}
	}
	if got, want := f.MirrorsOf(two), []string{"http://10.77.0.6:8080/", "http://10.77.0.5:8080/"}; !slices.Equal(got, want) {
		t.Errorf("mirrors of se-2: got %v, want %v", got, want)
	}
	if got := f.MirrorsOf(one); !slices.Equal(got, f.Mirrors) {
		t.Errorf("mirrors of se-1: got %v, want %v", got, f.Mirrors)
	}
	bare := parsed(t)
	if got := bare.MirrorsOf(one); got != nil {
		t.Errorf("without mirrors: got %v", got)
	}
}

// TestDomainsRefused: one mistake in a server's new keys is one line, with its place.
func TestDomainsRefused(t *testing.T) {
	const bastion = "[[server]]\nname = \"gate-2\"\nrack = \"nl-a\"\nrole = \"bastion\"\naddress = \"10.77.0.14/24\"\npower = { driver = \"qemu\", tap = \"mf-g\", mac = \"52:54:00:00:00:14\" }\n"
	const controller = "[[server]]\nname = \"ctl\"\nrack = \"nl-a\"\nrole = \"controller\"\naddress = \"10.77.0.15/24\"\npower = { driver = \"qemu\", tap = \"mf-c\", mac = \"52:54:00:00:00:15\" }\n"
	for _, tt := range []struct {
		name, text, line, want string
	}{
		{"switch", put(t, withDomains(t), `switch = "SW 1"`), "switch", "not a lower-case DNS label"},
		{"BMC network", put(t, withDomains(t), `bmc_network = "-"`), "bmc_network", "not a lower-case DNS label"},
		{"mirror", put(t, withDomains(t), `mirror = "http://10.77.0.7:8080/"`), "mirror = ", "none of the fleet's"},
		{"mirror by another spelling", put(t, withDomains(t), `mirror = "http://10.77.0.6:8080"`), "mirror = ", "none of the fleet's"},
		{"mirror of a fleet without", put(t, read(t), `mirror = "http://10.77.0.6:8080/"`), "mirror = ", "none of the fleet's"},
		{"ring", put(t, withDomains(t), `ring = "inner"`), "ring", "does not exist"},
		{"internal and spare", strings.Replace(put(t, withDomains(t), "ring = \"internal\"\nspare = true"), "floor = 1000", "", 1), "spare", "internal and a spare"},
		{"spare as text", put(t, withDomains(t), `spare = "yes"`), "spare", ""},
		{"a bastion's ring", withDomains(t) + bastion + "ring = \"internal\"\n", "ring", "is a bastion, which has no ring"},
		{"a spare bastion", withDomains(t) + bastion + "spare = true\n", "spare", "is a bastion, which has no spare"},
		{"a controller's capacity", withDomains(t) + controller + "capacity = 5\n", "capacity = 5", "is a controller, which has no capacity"},
		{"a controller's tunnel", withDomains(t) + controller + "tunnel = \"10.64.9.0/24\"\n", `tunnel = "10.64.9.0/24"`, "is a controller, which has no tunnel"},
		{"a server at the controller's address", strings.Replace(withDomains(t), "10.77.0.12/24", "10.77.0.1/24", 1), `address = "10.77.0.1/24"`, "the gateway has too"},
		{"two controllers at one address", withDomains(t) + strings.Replace(controller, "10.77.0.15/24", "10.77.0.1/24", 1) + strings.NewReplacer("10.77.0.15/24", "10.77.0.1/24", "ctl", "ctl-2", "mf-c", "mf-d", ":15", ":16").Replace(controller), `address = "10.77.0.1/24"`, "server ctl has too"},
		{"a controller's ring", withDomains(t) + controller + "ring = \"internal\"\n", "ring", "is a controller, which has no ring"},
		{"the floor without the internal ring", put(t, withDomains(t), `ring = "internal"`), "floor", `can never rebuild server "se-1": 1000 - 1000 = 0 Mbit/s would be left`},
		{"a floor that spares would have to keep", strings.Replace(put(t, withDomains(t), `spare = true`), "floor = 1000", "floor = 1001", 1), "floor", "its servers have 1000 Mbit/s, the floor is 1001"},
	} {
		_, err := Parse("fleet.toml", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v (hint %q), want %q", tt.name, err, hint.Of(err), tt.want)
			continue
		}
		var line int
		if n, serr := fmt.Sscanf(err.Error(), "fleet.toml:%d: ", &line); n != 1 || serr != nil {
			t.Errorf("%s: got %q, want it to begin with file and line", tt.name, err)
			continue
		}
		if got := strings.Split(tt.text, "\n")[line-1]; !strings.HasPrefix(got, tt.line) {
			t.Errorf("%s: %v: line %d is %q, want one that begins with %q", tt.name, err, line, got, tt.line)
		}
	}
	for name, text := range map[string]string{"bastion": withDomains(t) + bastion, "controller": withDomains(t) + controller,
		"controller at the controller's address": withDomains(t) + strings.Replace(controller, "10.77.0.15/24", "10.77.0.1/24", 1)} {
		if _, err := Parse("fleet.toml", []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A host is nobody's to rebuild: it has none of it.
	const host = "[[server]]\nname = \"web\"\nrole = \"host\"\naddress = \"10.77.0.16/24\"\n"
	for key, value := range map[string]string{"switch": `"a"`, "bmc_network": `"a"`, "mirror": `"a"`, "ring": `"internal"`, "spare": "true"} {
		if _, err := Parse("fleet.toml", []byte(read(t)+host+key+" = "+value+"\n")); err == nil || !strings.Contains(err.Error(), "is a host, which has no "+key) {
			t.Errorf("host with %s: got %v", key, err)
		}
	}
}

// TestCapacityLeavesOut: a floor's share is of the servers that are meant to serve users all the time.
func TestCapacityLeavesOut(t *testing.T) {
	for lines, want := range map[string]int{"": 2000, `ring = "internal"`: 1000, "spare = true": 1000} {
		f, err := Parse("fleet.toml", []byte(strings.Replace(put(t, read(t), lines), "floor = 1000", "", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Capacity("se"); got != want {
			t.Errorf("with %q: got %d, want %d", lines, got, want)
		}
	}
	// One server beside its spare: the spare stands in while it is rebuilt.
	if _, err := Parse("fleet.toml", []byte(put(t, read(t), "spare = true"))); err != nil {
		t.Errorf("one server and a spare: %v", err)
	}
}
