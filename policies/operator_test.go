package policies

import (
	"strings"
	"testing"
)

// TestOperators: who may have what done, and tables that mean nothing or too much.
func TestOperators(t *testing.T) {
	for _, tt := range []struct {
		name, table string
		want        string // of the error; "" for none
	}{
		{"one", `engineers = ["anna"]` + "\n" + `actions = ["drain", "certify"]`, ""},
		{"two for an override", `engineers = ["anna", "bert"]` + "\n" + `actions = ["ca-override"]`, ""},
		{"two of two", `engineers = ["anna", "bert"]` + "\n" + `actions = ["drain"]` + "\npeople = 2", ""},
		{"no engineers", `actions = ["drain"]`, "operator 1 has 0 engineers"},
		{"no actions", `engineers = ["anna"]`, "operator 1 may do nothing"},
		{"nobody", `engineers = ["eve"]` + "\n" + `actions = ["drain"]`, `names "eve", who is no engineer`},
		{"twice", `engineers = ["anna", "anna"]` + "\n" + `actions = ["drain"]`, `names "anna" twice`},
		{"no such action", `engineers = ["anna"]` + "\n" + `actions = ["reboot"]`, `there is no action "reboot"`},
		{"an action twice", `engineers = ["anna"]` + "\n" + `actions = ["drain", "drain"]`, `names "drain" twice`},
		{"an override by one", `engineers = ["anna", "bert"]` + "\n" + `actions = ["ca-override"]` + "\npeople = 1", "overrides a promise, and takes 2 people"},
		{"an override by one, of one", `engineers = ["anna"]` + "\n" + `actions = ["ca-override"]`, "takes 2 people, and there are 1"},
		{"more people than engineers", `engineers = ["anna"]` + "\n" + `actions = ["drain"]` + "\npeople = 2", "takes 2 people, and there are 1"},
		{"fewer than nobody", `engineers = ["anna"]` + "\n" + `actions = ["drain"]` + "\npeople = -1", "people = -1"},
		{"another key", `engineers = ["anna"]` + "\n" + `actions = ["drain"]` + "\nservers = []", "servers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse("policy.toml", []byte(read(t)+"\n[[operator]]\n"+tt.table+"\n"), lab(t))
			if tt.want == "" && (err != nil || len(p.Operators) != 1) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := Parse("policy.toml", []byte(read(t)+strings.Repeat("\n[[operator]]\nengineers = [\"anna\"]\nactions = [\"drain\"]\n", maxOperators+1)), lab(t)); err == nil || !strings.Contains(err.Error(), "at most 64") {
		t.Errorf("too many: %v", err)
	}
	many := Policy{Operators: []Operator{{Engineers: []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}, Actions: []string{ActionDrain}, People: MaxOperatorPeople + 1}}}
	for _, name := range many.Operators[0].Engineers {
		many.Engineers = append(many.Engineers, Engineer{Name: name})
	}
	if err := many.checkOperators(); err == nil || !strings.Contains(err.Error(), "people = 9") {
		t.Errorf("too many people: %v", err)
	}
	for _, tt := range []struct {
		action string
		people int
		want   int
	}{{ActionDrain, 0, 1}, {ActionDrain, 3, 3}, {ActionCAOverride, 0, 2}, {ActionCAOverride, 1, 2}, {ActionCAOverride, 3, 3}} {
		if got := (Operator{People: tt.people}).Needs(tt.action); got != tt.want {
			t.Errorf("people = %d for %s: got %d, want %d", tt.people, tt.action, got, tt.want)
		}
	}
}
