package extension

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func key(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func policy(t testing.TB) *trust.Trust {
	t.Helper()
	p := &trust.Trust{Kind: trust.Kind, Fleet: "demo", Test: true, Version: 1, Threshold: 2}
	for name, seed := range map[string]byte{"ana": 1, "ben": 2, "cleo": 3} {
		p.Approvers = append(p.Approvers, trust.Person{Name: name, Keys: []string{trust.FormatKey(key(t, seed).PublicKey())}})
	}
	return p
}

func good() Extension {
	return Extension{Kind: Kind, Fleet: "demo", Server: "nl-1", Epoch: 7, Until: now.Add(24 * time.Hour), Reason: "the controller's room is dark", Made: now}
}

func sign(t testing.TB, namespace string, data []byte, seeds ...byte) (sigs []byte) {
	t.Helper()
	for _, seed := range seeds {
		s, err := sshsig.Sign(key(t, seed), namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, s...)
	}
	return sigs
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*Refusal](err); ok && r.Refused() && strings.HasPrefix(r.Error(), r.Reason) && errors.Unwrap(r) != nil {
		return r.Reason
	}
	return "no refusal: " + err.Error()
}

func TestOpen(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Extension)
		by     []byte
		space  string
		later  time.Duration
		want   string
	}{
		{name: "good"},
		{name: "one person", by: []byte{1}, want: Unsigned},
		{name: "one person twice", by: []byte{1, 1}, want: Unsigned},
		{name: "a stranger", by: []byte{1, 9}, want: Unsigned},
		{name: "nobody", by: []byte{}, want: Unsigned},
		{name: "signed as a release", space: "mayfly-release", want: Unsigned},
		{name: "another fleet", change: func(e *Extension) { e.Fleet = "else" }, want: OtherFleet},
		{name: "another server", change: func(e *Extension) { e.Server = "nl-2" }, want: OtherLife},
		{name: "another life", change: func(e *Extension) { e.Epoch = 8 }, want: OtherLife},
		{name: "from the future", change: func(e *Extension) { e.Made = now.Add(time.Hour) }, want: Early},
		{name: "yesterday's", later: MaxWait + time.Second, change: func(e *Extension) { e.Until = now.Add(3 * 24 * time.Hour) }, want: Late},
		{name: "over", later: 2 * time.Hour, change: func(e *Extension) { e.Until = now.Add(time.Hour) }, want: Late},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := good()
			if tt.change != nil {
				tt.change(&e)
			}
			data, err := e.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			by, space := tt.by, tt.space
			if by == nil {
				by = []byte{1, 3}
			}
			if space == "" {
				space = Namespace
			}
			got, people, err := Open(policy(t), data, sign(t, space, data, by...), "nl-1", 7, now.Add(tt.later))
			if reason(err) != tt.want {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if tt.want == "" && (*got != e || !slices.Equal(people, []string{"ana", "cleo"})) {
				t.Errorf("got %+v by %v", got, people)
			}
		})
	}
	data := []byte(`{"kind":"x"}`)
	if _, _, err := Open(policy(t), data, sign(t, Namespace, data, 1, 2), "nl-1", 7, now); reason(err) != Malformed {
		t.Errorf("signed nonsense: got %v", err)
	}
	if _, _, err := Open(nil, data, nil, "nl-1", 7, now); reason(err) != Unsigned {
		t.Errorf("without a trust policy: got %v", err)
	}
}

func TestCheck(t *testing.T) {
	for name, change := range map[string]func(*Extension){
		"kind":         func(e *Extension) { e.Kind = "mayfly-extension/2" },
		"no fleet":     func(e *Extension) { e.Fleet = "" },
		"server":       func(e *Extension) { e.Server = "../x" },
		"epoch":        func(e *Extension) { e.Epoch = 0 },
		"no end":       func(e *Extension) { e.Until = time.Time{} },
		"end first":    func(e *Extension) { e.Until = e.Made },
		"too far":      func(e *Extension) { e.Until = e.Made.Add(MaxLife + time.Second) },
		"local time":   func(e *Extension) { e.Made = e.Made.In(time.FixedZone("x", 3600)) },
		"part seconds": func(e *Extension) { e.Until = e.Until.Add(time.Millisecond) },
		"no reason":    func(e *Extension) { e.Reason = " " },
		"two lines":    func(e *Extension) { e.Reason = "a\nb" },
	} {
		e := good()
		change(&e)
		if _, err := e.Marshal(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestExtend(t *testing.T) {
	boot := now.Add(-20 * time.Hour)
	tests := []struct {
		name string
		life Life
		till time.Duration
		want string
	}{
		{"good", Life{boot, now.Add(time.Hour), 0}, 24 * time.Hour, ""},
		{"the last time", Life{boot, now.Add(time.Hour), MaxOfALife - 1}, 24 * time.Hour, ""},
		{"to seven days", Life{boot, now.Add(time.Hour), 0}, MaxLife - 20*time.Hour, ""},
		{"beyond seven days", Life{boot, now.Add(time.Hour), 0}, MaxLife - 20*time.Hour + time.Second, TooLong},
		{"no beginning", Life{time.Time{}, now.Add(time.Hour), 0}, 24 * time.Hour, TooLong},
		{"once too often", Life{boot, now.Add(time.Hour), MaxOfALife}, 24 * time.Hour, TooMany},
		{"no later", Life{boot, now.Add(24 * time.Hour), 0}, 24 * time.Hour, Shorter},
		{"the same again, after the last time", Life{boot, now.Add(24 * time.Hour), MaxOfALife}, 24 * time.Hour, Shorter},
	}
	for _, tt := range tests {
		e := good()
		e.Until = now.Add(tt.till)
		got, err := tt.life.Extend(&e)
		if reason(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		want := tt.life
		if tt.want == "" {
			want = Life{tt.life.Began, e.Until, tt.life.Times + 1}
		}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, want)
		}
	}
}

// Whatever is read is what was signed, and nothing is read that is not an extension.
func FuzzParse(f *testing.F) {
	e := good()
	data, err := e.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(bytes.Replace(data, []byte("2026"), []byte("9999"), 1))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q is read and written as %q, %v", data, again, err)
		}
		if e.Until.Sub(e.Made) > MaxLife {
			t.Errorf("%+v", e)
		}
	})
}
