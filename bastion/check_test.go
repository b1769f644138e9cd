package bastion

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"
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
