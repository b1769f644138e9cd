package bastion

import (
	"crypto/rand"
	"encoding/json"
	"regexp"
	"slices"
	"testing"
	"time"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// TestReportJSON holds the report to the form of all our JSON: keys in snake case, and an empty list is a list.
func TestReportJSON(t *testing.T) {
	f := newFixture(t)
	f.policy.Engineers, f.policy.Grants = f.policy.Engineers[:1], nil
	f.writeBundle(2)
	full, err := Check(f.config, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(full.Engineers) != 1 || full.Engineers[0].Allow == nil || len(full.Hosts) != 3 || full.Hosts[0].Grants == nil {
		t.Errorf("got %+v, want empty lists", full)
	}
	data, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	var report any
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatal(err)
	}
	snake := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch value := value.(type) {
		case nil:
			t.Errorf("%s is null", path)
		case []any:
			for _, v := range value {
				walk(path+"[]", v)
			}
		case map[string]any:
			for key, v := range value {
				if !snake.MatchString(key) {
					t.Errorf("key %s.%s is not in snake case", path, key)
				}
				walk(path+"."+key, v)
			}
		}
	}
	walk("report", report)
}

// TestReportConditions: what a grant asks for besides is said where it leads.
func TestReportConditions(t *testing.T) {
	f := newFixture(t)
	f.policy.Grants[0].Approval, f.policy.Grants[0].Drained = true, true
	f.policy.Grants[0].Windows = []policies.Window{{Days: []string{"mon"}, From: "08:00", To: "09:00"}}
	key, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.policy.BreakGlass = []policies.BreakGlass{{Name: "glass", Keys: []policies.Key{{Public: key.Authorized(), Evidence: "test:softkey"}}, Servers: []string{"nl-1"}, Ports: []uint16{22}}}
	f.writeBundle(2)
	report, err := Check(f.config, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]string{{"anna:22 (approval, drained, windows)"}, {"anna:22 (approval, drained, windows)"}, {"bert:22", "glass:22 (break-glass)"}} {
		if got := report.Hosts[i].Grants; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", report.Hosts[i].Name, got, want)
		}
	}
}
