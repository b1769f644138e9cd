package order

import (
	"bytes"
	"crypto/ed25519"
	"errors"
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

func reason(err error) string {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*Refusal](err); ok && r.Refused() && errors.Unwrap(r) != nil {
		return r.Reason
	}
	return "no refusal: " + err.Error()
}

func TestOpen(t *testing.T) {
	policy := &trust.Trust{Fleet: "demo", TicketKeys: []string{trust.FormatKey(key(t, 1).PublicKey())}, ListKeys: []string{trust.FormatKey(key(t, 2).PublicKey())}}
	tests := []struct {
		name   string
		change func(*Order)
		by     byte
		space  string
		later  time.Duration
		want   string
	}{
		{name: "good"},
		{name: "a stranger's", by: 9, want: Unsigned},
		{name: "by the key of lists", by: 2, want: Unsigned},
		{name: "signed as a ticket", space: "mayfly-ticket", want: Unsigned},
		{name: "another fleet", change: func(o *Order) { o.Fleet = "else" }, want: OtherFleet},
		{name: "another server", change: func(o *Order) { o.Server = "nl-2" }, want: OtherLife},
		{name: "an earlier life", change: func(o *Order) { o.Epoch = 6 }, want: OtherLife},
		{name: "from the future", change: func(o *Order) { o.Made, o.NotAfter = now.Add(2*time.Minute), now.Add(3*time.Minute) }, want: Early},
		{name: "expired", later: 5 * time.Minute, want: Expired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := New("demo", "nl-1", 7, now, 5*time.Minute)
			if tt.change != nil {
				tt.change(&o)
			}
			data, err := o.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			space := Namespace
			if tt.space != "" {
				space = tt.space
			}
			sig, err := sshsig.Sign(key(t, max(tt.by, 1)), space, data)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Open(policy, data, sig, "nl-1", 7, now.Add(tt.later))
			if reason(err) != tt.want {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if tt.want == "" && *got != o {
				t.Errorf("got %+v, want %+v", got, o)
			}
		})
	}
	data := []byte("{}\n")
	sig, err := sshsig.Sign(key(t, 1), Namespace, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(policy, data, sig, "nl-1", 7, now); reason(err) != Malformed {
		t.Errorf("signed nonsense: got %v", err)
	}
	if _, err := Open(policy, make([]byte, MaxBytes+1), sig, "nl-1", 7, now); reason(err) != Malformed {
		t.Errorf("too long: got %v", err)
	}
}

func TestCheck(t *testing.T) {
	for name, change := range map[string]func(*Order){
		"kind":     func(o *Order) { o.Kind = "x" },
		"fleet":    func(o *Order) { o.Fleet = "" },
		"server":   func(o *Order) { o.Server = "NL" },
		"epoch":    func(o *Order) { o.Epoch = 0 },
		"do":       func(o *Order) { o.Do = "shell" },
		"nonce":    func(o *Order) { o.Nonce = "1" },
		"no time":  func(o *Order) { o.Made = time.Time{} },
		"too long": func(o *Order) { o.NotAfter = o.Made.Add(MaxLife + time.Second) },
		"backward": func(o *Order) { o.NotAfter = o.Made },
	} {
		o := New("demo", "nl-1", 7, now, time.Minute)
		change(&o)
		if _, err := o.Marshal(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	first, second := New("demo", "nl-1", 7, now, time.Minute), New("demo", "nl-1", 7, now, time.Minute)
	if first.Nonce == second.Nonce {
		t.Error("two orders have one nonce")
	}
}

// Whatever is read is what was signed.
func FuzzParse(f *testing.F) {
	o := New("demo", "nl-1", 7, now, time.Minute)
	data, err := o.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(bytes.Replace(data, []byte("restart"), []byte("off"), 1))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := o.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q is read and written as %q, %v", data, again, err)
		}
	})
}
