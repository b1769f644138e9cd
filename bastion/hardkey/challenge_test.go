package hardkey

import (
	"strings"
	"testing"
	"time"
)

func TestChallenge(t *testing.T) {
	c := NewChallenge("lab", "anna", [NonceBytes]byte{0: 0xab, 15: 1}, time.Date(2026, 11, 20, 16, 0, 0, 5e8, time.FixedZone("CET", 3600)))
	const want = "mayfly-challenge/1 lab anna ab000000000000000000000000000001 2026-11-20T15:00:00Z"
	if c.String() != want || string(c.Signed()) != want+"\n" {
		t.Errorf("got %q and %q", c, c.Signed())
	}
	got, err := ParseChallenge(want)
	if err != nil || got != c {
		t.Errorf("got %+v, %v, want %+v", got, err, c)
	}
	longest := NewChallenge(strings.Repeat("a", 63), strings.Repeat("b", 63), [NonceBytes]byte{}, now)
	if _, err := ParseChallenge(longest.String()); err != nil || len(longest.String()) > MaxChallenge {
		t.Errorf("the longest, of %d bytes: %v", len(longest.String()), err)
	}
}

func TestChallengeRefuses(t *testing.T) {
	const good = "mayfly-challenge/1 lab anna ab000000000000000000000000000001 2026-11-20T15:00:00Z"
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, tt := range map[string]struct{ line, want string }{
		"empty":               {"", "not of the form"},
		"newline":             {good + "\n", "time"},
		"more":                {good + " x", "not of the form"},
		"two spaces":          {with(" lab", "  lab"), "not of the form"},
		"a tab":               {with(" lab", "\tlab"), "not of the form"},
		"another version":     {with("/1", "/2"), "not of the form"},
		"another's":           {with("mayfly-challenge", "challenge"), "not of the form"},
		"fleet in capitals":   {with("lab", "Lab"), `fleet "Lab"`},
		"no fleet":            {with("lab", ""), `fleet ""`},
		"long fleet":          {with("lab", strings.Repeat("a", 64)), "is not a name"},
		"fleet that is two":   {with("lab", "lab\nx"), "is not a name"},
		"name with a dot":     {with("anna", "an.na"), `name "an.na"`},
		"name of a digit":     {with("anna", "1anna"), `name "1anna"`},
		"name with a line":    {with("anna", "ana_b"), `name "ana_b"`},
		"name in capitals":    {with("anna", "Ana"), `name "Ana"`},
		"name as an address":  {with("anna", "ana@x"), `name "ana@x"`},
		"long name":           {with("anna", strings.Repeat("a", 64)), "is not a name"},
		"of 257 bytes":        {good + strings.Repeat(" ", 257-len(good)), "longer than 256 bytes"},
		"short nonce":         {with("ab00", "ab0"), "nonce"},
		"long nonce":          {with("ab00", "ab000"), "nonce"},
		"nonce in capitals":   {with("ab00", "AB00"), "nonce"},
		"time with an offset": {with("15:00:00Z", "15:00:00+00:00"), "time"},
		"another offset":      {with("15:00:00Z", "15:00:00+01:00"), "time"},
		"fraction":            {with("15:00:00Z", "15:00:00.5Z"), "time"},
		"no such day":         {with("11-20", "11-31"), "time"},
		"no time":             {with("2026-11-20T15:00:00Z", ""), "time"},
		"too long":            {good + strings.Repeat(" ", MaxChallenge), "longer than"},
	} {
		if c, err := ParseChallenge(tt.line); err == nil || !strings.Contains(err.Error(), tt.want) || c != (Challenge{}) {
			t.Errorf("%s: got %+v, %v, want %q", name, c, err, tt.want)
		}
	}
}

// What can be called in a challenge can be called so elsewhere, and nothing else.
func TestIsName(t *testing.T) {
	for name, want := range map[string]bool{"a": true, "ana-2": true, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
		"": false, "-a": false, "1ana": false, "Ana": false, "ana_b": false, "ana.b": false, "ana@x": false, "ana b": false, "ana\n": false, "änna": false} {
		if IsName(name) != want {
			t.Errorf("%q: got %v", name, !want)
		}
		line := "mayfly-challenge/1 " + name + " " + name + " ab000000000000000000000000000001 2026-11-20T15:00:00Z"
		if _, err := ParseChallenge(line); (err == nil) != want && len(line) <= MaxChallenge {
			t.Errorf("%q: in a challenge: %v", name, err)
		}
	}
}
