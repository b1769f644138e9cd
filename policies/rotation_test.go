package policies

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
	"mayfly/inventory"
)

// allRules are every rule at once; the good policy with them is good.
const allRules = `
[[rotation.floor]]
region = "se"
role = "vpn"
floor = "50%"

[[rotation.floor]]
floor = 500

[[rotation.cap]]
domain = "switch"
max = 2

[[rotation.cap]]
domain = "rack"
name = "se-a"
max = 1

[[rotation.window]]
regions = ["se"]
days = ["mon", "tue"]
from = "02:00"
to = "05:00"
zone = "Europe/Stockholm"

[[rotation.window]]
days = ["sat"]
from = "22:30"
to = "24:00"

[[rotation.blackout]]
name = "year-end"
regions = ["nl"]
from = 2026-12-24T00:00:00+01:00
to = 2027-01-02T00:00:00+01:00

[rotation.train]
canaries = 2
steps = [1, 10, 100]
bake = "10m"
max_errors = 0.05
confidence = 0.9

[rotation.schedule]
every = "5m"
alert = "2h"
`

// withRules is the good policy with every rule, and the fleet in which it is good.
func withRules(t testing.TB) (string, inventory.Fleet) {
	fleet := lab(t)
	fleet.Servers[0].Switch = "sw-1"
	text := strings.Replace(read(t), "retries = 1\n", "retries = 1\nmax_per_hour = 10\nmax_spares = 1\n"+allRules, 1)
	return text, fleet
}

func TestRotationRules(t *testing.T) {
	text, fleet := withRules(t)
	p, err := Parse("policy.toml", []byte(text), fleet)
	if err != nil {
		t.Fatal(err)
	}
	r := p.Rotation
	if from, to := r.Windows[0].Minutes(); from != 120 || to != 300 {
		t.Errorf("window: got %d to %d", from, to)
	}
	if _, to := r.Windows[1].Minutes(); to != 1440 {
		t.Errorf("a window to the day's end: got %d", to)
	}
	if got := r.Windows[0].Weekdays(); !slices.Equal(got, []time.Weekday{time.Monday, time.Tuesday}) {
		t.Errorf("days: got %v", got)
	}
	if got, want := r.Blackouts[0].From, time.Date(2026, 12, 23, 23, 0, 0, 0, time.UTC); got != want {
		t.Errorf("blackout: got %v, want %v", got, want)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var again Policy
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if second, err := json.Marshal(again); err != nil || string(second) != string(data) {
		t.Errorf("JSON does not round-trip: %s, then %s, %v", data, second, err)
	}
	if err := Check(again, fleet); err != nil {
		t.Errorf("good in TOML and not in JSON: %v", err)
	}
}

// TestRotationRefuses: one mistake in a rule is one line, with file and place.
func TestRotationRefuses(t *testing.T) {
	good, fleet := withRules(t)
	for _, tt := range []struct{ name, old, new, line, want string }{
		{"rate negative", "max_per_hour = 10", "max_per_hour = -1", "max_per_hour", "max_per_hour is -1"},
		{"rate too high", "max_per_hour = 10", "max_per_hour = 1000000", "max_per_hour", "0 to 100000"},
		{"spares", "max_spares = 1", "max_spares = 1001", "max_spares", "max_spares is 1001"},
		{"floor's region", `region = "se"`, `region = "dk"`, "region", `region "dk" does not exist`},
		{"floor's role", `role = "vpn"`, `role = "web"`, "role", `role "web" has no capacity`},
		{"floor of bastions", `role = "vpn"`, `role = "bastion"`, "role", "has no capacity"},
		{"floor out of range", `floor = "50%"`, `floor = "150%"`, "floor", "1% to 100%"},
		{"floor of nothing", "floor = 500", "floor = 0", "[[rotation.floor]]", "the floor is 0"},
		{"no floor", "floor = 500", "", "[[rotation.floor]]", "the floor is 0"},
		{"floor twice", "floor = 500", "region = \"se\"\nrole = \"vpn\"\nfloor = 5", "[[rotation.floor]]", "there twice"},
		{"floor above capacity", `floor = "50%"`, "floor = 2001", "floor", "have 2000 Mbit/s, the floor is 2001"},
		{"domain", `domain = "switch"`, `domain = "room"`, "domain", `domain "room" does not exist`},
		{"domain that nobody has", `domain = "switch"`, `domain = "bmc"`, "domain", "no server has a bmc"},
		{"rack that is not there", `name = "se-a"`, `name = "se-z"`, "name", `no server has the rack "se-z"`},
		{"cap of none", "max = 2", "max = 0", "max", "max is 0"},
		{"no max", "max = 2", "", "[[rotation.cap]]", "max is 0"},
		{"cap too high", "max = 2", "max = 1001", "max", "1 to 1000"},
		{"cap twice", "domain = \"switch\"\n", "domain = \"rack\"\nname = \"se-a\"\n", "[[rotation.cap]]", "there twice"},
		{"window's region", `regions = ["se"]`, `regions = ["se", "dk"]`, "regions", `region "dk" does not exist`},
		{"window's region twice", `regions = ["se"]`, `regions = ["se", "se"]`, "regions", "there twice"},
		{"no days", `days = ["sat"]`, "", "[[rotation.window]]", "has no days"},
		{"day", `days = ["sat"]`, `days = ["caturday"]`, "days", `day "caturday" does not exist`},
		{"day twice", `days = ["sat"]`, `days = ["sat", "sat"]`, "days", "there twice"},
		{"from", `from = "02:00"`, `from = "2:00"`, "from", "no time of day"},
		{"from at the end of the day", `from = "22:30"`, `from = "24:00"`, "from", "no time of day"},
		{"to", `to = "05:00"`, `to = "25:00"`, "to", "no time of day"},
		{"over midnight", `to = "05:00"`, `to = "01:00"`, "to", "not after it begins"},
		{"zone of the machine", "Europe/Stockholm", "Local", "zone", "no name of a time zone"},
		{"zone that is a path", "Europe/Stockholm", "../../etc/passwd", "zone", "no name of a time zone"},
		{"zone that is an offset", "Europe/Stockholm", "+02:00", "zone", "no name of a time zone"},
		{"window twice", "days = [\"sat\"]\nfrom = \"22:30\"\nto = \"24:00\"\n", "regions = [\"se\"]\ndays = [\"mon\", \"tue\"]\nfrom = \"02:00\"\nto = \"05:00\"\nzone = \"Europe/Stockholm\"\n", "[[rotation.window]]", "there twice"},
		{"blackout's name", `"year-end"`, `"Year end"`, "name", "no lower-case word"},
		{"no name", "name = \"year-end\"\n", "", "[[rotation.blackout]]", "no lower-case word"},
		{"blackout twice", "[rotation.train]", "[[rotation.blackout]]\nname = \"year-end\"\nfrom = 2027-12-24T00:00:00Z\nto = 2027-12-25T00:00:00Z\n[rotation.train]", "name", "there twice"},
		{"blackout's region", `regions = ["nl"]`, `regions = ["dk"]`, "regions", `region "dk" does not exist`},
		{"blackout without an end", "to = 2027-01-02T00:00:00+01:00\n", "", "[[rotation.blackout]]", "has no to"},
		{"blackout backwards", "to = 2027-01-02T00:00:00+01:00", "to = 2026-12-24T00:00:00+01:00", "to", "not after it begins"},
		{"blackout for ever", "to = 2027-01-02", "to = 2028-01-02", "to", "at most 744h"},
		{"blackout without an offset", "2027-01-02T00:00:00+01:00", "2027-01-02T00:00:00", "to", "no offset from UTC"},
		{"canaries", "canaries = 2", "canaries = -1", "canaries", "canaries is -1"},
		{"canaries of more regions than there are", "canaries = 2", "canaries = 3", "canaries", "2 regions have servers"},
		{"no steps", "steps = [1, 10, 100]\n", "", "[rotation.train]", "has 0 steps"},
		{"a step of nothing", "[1, 10, 100]", "[0, 10, 100]", "steps", "a step of 0 percent"},
		{"steps that fall", "[1, 10, 100]", "[10, 1, 100]", "steps", "they rise"},
		{"a step twice", "[1, 10, 100]", "[1, 1, 100]", "steps", "they rise"},
		{"steps that end early", "[1, 10, 100]", "[1, 10]", "steps", "the last step is 10 percent"},
		{"bake", `bake = "10m"`, `bake = "25h"`, "bake", "train.bake is 25h"},
		{"bake as a number", `bake = "10m"`, `bake = 600`, "bake", "must be a string"},
		{"errors", "max_errors = 0.05", "max_errors = 0.6", "max_errors", "max_errors is 0.6"},
		{"errors negative", "max_errors = 0.05", "max_errors = -0.1", "max_errors", "max_errors is -0.1"},
		{"errors of no number", "max_errors = 0.05", "max_errors = nan", "max_errors", "max_errors is NaN"},
		{"confidence", "confidence = 0.9", "confidence = 0.5", "confidence", "confidence is 0.5"},
		{"certainty", "confidence = 0.9", "confidence = 1.0", "confidence", "confidence is 1"},
		{"every second", `every = "5m"`, `every = "1s"`, "every", "schedule.every is 1s"},
		{"no every", "every = \"5m\"\n", "", "[rotation.schedule]", "schedule.every is 0s"},
		{"schedule slower than lives", `every = "5m"`, `every = "24h"`, "every", "would end themselves between two runs"},
		{"alert for ever", `alert = "2h"`, `alert = "24h"`, "alert", "in danger all its life"},
		{"unknown key", "max_errors =", "max_error =", "max_error", "unknown key"},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("%s: the good policy does not hold %q", tt.name, tt.old)
		}
		// The last occurrence: the rules come last.
		at := strings.LastIndex(good, tt.old)
		text := good[:at] + tt.new + good[at+len(tt.old):]
		_, err := Parse("policy.toml", []byte(text), fleet)
		if err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v (hint %q), want %q", tt.name, err, hint.Of(err), tt.want)
			continue
		}
		var line int
		if n, serr := fmt.Sscanf(err.Error(), "policy.toml:%d: ", &line); n != 1 || serr != nil {
			t.Errorf("%s: got %q, want it to begin with file and line", tt.name, err)
			continue
		}
		if got := strings.Split(text, "\n")[line-1]; !strings.HasPrefix(got, tt.line) {
			t.Errorf("%s: %v: line %d is %q, want one that begins with %q", tt.name, err, line, got, tt.line)
		}
	}
}

// TestRotationListsAreBounded: no list of rules grows without a bound.
func TestRotationListsAreBounded(t *testing.T) {
	text, fleet := withRules(t)
	for _, tt := range []struct {
		want string
		grow func(r *Rotation)
	}{
		{"1001 floors", func(r *Rotation) { r.Floors = make([]Floor, 1001) }},
		{"1001 caps", func(r *Rotation) { r.Caps = make([]Cap, 1001) }},
		{"65 windows", func(r *Rotation) { r.Windows = make([]RotationWindow, 65) }},
		{"257 blackouts", func(r *Rotation) { r.Blackouts = make([]Blackout, 257) }},
		{"11 steps", func(r *Rotation) { r.Train.Steps = make([]int, 11) }},
	} {
		p, err := Parse("policy.toml", []byte(text), fleet)
		if err != nil {
			t.Fatal(err)
		}
		tt.grow(&p.Rotation)
		if err := Check(p, fleet); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

// TestOlderForm: a policy without any of the newer rules is what it was, to the byte that is signed.
func TestOlderForm(t *testing.T) {
	data, err := json.Marshal(parsed(t).Rotation)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"max_age":"24h","max_parallel":1,"drain_limit":"10m","boot_limit":"5m","bake":"1m","retries":1}`; string(data) != want {
		t.Errorf("got %s, want %s", data, want)
	}
}
