package main

import (
	"slices"
	"strings"
	"testing"

	"mayfly/policies"
	"mayfly/policies/bundle"
)

// TestShowHistory: whoever signs a policy sees which history it believes, and what of that is new.
func TestShowHistory(t *testing.T) {
	a, b := strings.Repeat("a", 40), strings.Repeat("b", 40)
	asked := policies.History{From: a, Deep: []string{"policies/", "go.mod"}}
	believed := "history: commit " + a + ", and all before it, is believed; every later one has to be signed and approved"
	for _, tt := range []struct {
		name     string
		was      *policies.History // nil: no policy
		now      policies.History
		has, not []string
	}{
		{"none, the first", nil, policies.History{}, []string{"no [history]: images are built from sources that nobody has to sign or approve"}, nil},
		{"none as before", &policies.History{}, policies.History{}, []string{"no [history]: images are built from sources that nobody has to sign or approve"}, nil},
		{"the first", nil, asked, []string{believed, `history: "policies/" takes two others`, `history: "go.mod" takes two others`}, nil},
		{"as before", &asked, asked, []string{believed, `history: "policies/" takes two others`, `history: "go.mod" takes two others`}, nil},
		{"begins", &policies.History{}, asked, []string{believed, `history: "policies/" takes two others, new`}, nil},
		{"ends", &asked, policies.History{}, []string{"HISTORY IS NOT CHECKED ANY MORE: policy 3 believed commit " + a + ", and asked for signed and approved commits from there on"}, []string{believed}},
		{"moves", &asked, policies.History{From: b, Deep: asked.Deep}, []string{"history: commit " + b + ", and ALL BEFORE IT, is believed; policy 3 believed " + a +
			": verify-history has to pass to it first, under that policy"}, []string{believed}},
		{"less deep", &asked, policies.History{From: a, Deep: asked.Deep[1:]}, []string{`history: "policies/" TAKES TWO OTHERS NO MORE`, `history: "go.mod" takes two others`},
			[]string{`history: "policies/" takes two others`}},
		{"nothing deep", &asked, policies.History{From: a}, []string{`history: "policies/" TAKES TWO OTHERS NO MORE`, `history: "go.mod" TAKES TWO OTHERS NO MORE`, "history: no path takes two others"}, nil},
	} {
		var was *bundle.Bundle
		if tt.was != nil {
			was = &bundle.Bundle{Version: 3, Policy: policies.Policy{History: *tt.was}}
		}
		got := showHistory(policies.Policy{History: tt.now}, was)
		for _, want := range tt.has {
			if !slices.Contains(got, want) {
				t.Errorf("%s: no %q in %q", tt.name, want, got)
			}
		}
		for _, not := range tt.not {
			if slices.Contains(got, not) {
				t.Errorf("%s: %q in %q", tt.name, not, got)
			}
		}
	}
}
