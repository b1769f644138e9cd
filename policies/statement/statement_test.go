package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/testenv/softkey"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func approval() Approval {
	return Approval{Kind: KindApproval, Fleet: "lab", ID: "0123456789abcdef", Engineer: "anna", Servers: []string{"se-1", "region:nl"},
		Ports: []uint16{22}, Reason: "disk of se-1 is full", Made: now, NotBefore: now, Expires: now.Add(time.Hour)}
}

func opening() BreakGlass {
	return BreakGlass{Kind: KindBreakGlass, Fleet: "lab", ID: "0123456789abcdef", Name: "glass", Reason: "all keys are lost", Made: now, Expires: now.Add(30 * time.Minute)}
}

func drained() Drained {
	return Drained{Kind: KindDrained, Fleet: "lab", Server: "se-1", Epoch: 7, Made: now, Expires: now.Add(time.Hour)}
}

// TestCheck spoils one field at a time.
func TestCheck(t *testing.T) {
	late := func(d time.Duration) time.Time { return now.Add(d) }
	tests := []struct {
		name string
		s    Statement
		want string // "" for none
	}{
		{"approval", approval(), ""},
		{"opening", opening(), ""},
		{"drained", drained(), ""},
		{"approval of 8 hours", func() Statement { a := approval(); a.Expires = late(8 * time.Hour); return a }(), ""},
		{"approval too long", func() Statement { a := approval(); a.Expires = late(8*time.Hour + time.Second); return a }(), "at most 8h"},
		{"approval ends before it begins", func() Statement { a := approval(); a.Expires = now; return a }(), "in force for"},
		{"approval begins after its end", func() Statement { a := approval(); a.NotBefore = a.Expires; return a }(), "not_before"},
		{"approval begins before it was made", func() Statement { a := approval(); a.NotBefore = late(-time.Second); return a }(), "not_before"},
		{"no not_before", func() Statement { a := approval(); a.NotBefore = time.Time{}; return a }(), "not_before is no time"},
		{"local time", func() Statement { a := approval(); a.Made = now.In(time.FixedZone("x", 3600)); return a }(), "made is no time"},
		{"parts of a second", func() Statement { a := approval(); a.Expires = late(time.Minute + 1); return a }(), "expires is no time"},
		{"kind", func() Statement { a := approval(); a.Kind = KindDrained; return a }(), "kind is"},
		{"fleet", func() Statement { a := approval(); a.Fleet = ""; return a }(), "fleet is"},
		{"id", func() Statement { a := approval(); a.ID = "../../etc"; return a }(), "id is"},
		{"engineer root", func() Statement { a := approval(); a.Engineer = "root"; return a }(), "engineer is"},
		{"engineer empty", func() Statement { a := approval(); a.Engineer = ""; return a }(), "engineer is"},
		{"no servers", func() Statement { a := approval(); a.Servers = nil; return a }(), "0 servers"},
		{"too many servers", func() Statement { a := approval(); a.Servers = slices.Repeat([]string{"a"}, 101); return a }(), "101 servers"},
		{"server", func() Statement { a := approval(); a.Servers = []string{"se-1\n"}; return a }(), "server is"},
		{"no ports", func() Statement { a := approval(); a.Ports = nil; return a }(), "0 ports"},
		{"port 0", func() Statement { a := approval(); a.Ports = []uint16{0}; return a }(), "port is 0"},
		{"no reason", func() Statement { a := approval(); a.Reason = "  "; return a }(), "reason is missing"},
		{"reason of two lines", func() Statement { a := approval(); a.Reason = "a\nb"; return a }(), "one line"},
		{"reason with an escape", func() Statement { a := approval(); a.Reason = "\x1b[2J"; return a }(), "one line"},
		{"reason too long", func() Statement { a := approval(); a.Reason = strings.Repeat("a", 501); return a }(), "one line"},
		{"opening too long", func() Statement { b := opening(); b.Expires = late(61 * time.Minute); return b }(), "at most 1h"},
		{"opening of root", func() Statement { b := opening(); b.Name = "root"; return b }(), "name is"},
		{"opening without reason", func() Statement { b := opening(); b.Reason = ""; return b }(), "reason"},
		{"drained too long", func() Statement { d := drained(); d.Expires = late(MaxDrained + time.Second); return d }(), "at most 1h"},
		{"drained region", func() Statement { d := drained(); d.Server = "region:se"; return d }(), "server is"},
		{"everything drained", func() Statement { d := drained(); d.Server = "*"; return d }(), "server is"},
		{"drained life 0", func() Statement { d := drained(); d.Epoch = 0; return d }(), "epoch is 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := Marshal(tt.s)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				again, err := Parse(data)
				if err != nil || ID(again) != ID(tt.s) || Kind(again) != Kind(tt.s) || !Expires(again).Equal(Expires(tt.s)) {
					t.Errorf("read back: got %v, %v", again, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	anna, bert, cleo, ticket, list, stranger := newKey(t), newKey(t), newKey(t), newKey(t), newKey(t), newKey(t)
	line := func(s ssh.Signer) string { return trust.FormatKey(s.PublicKey()) }
	tr := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2,
		Approvers:  []trust.Person{{Name: "anna", Keys: []string{line(anna)}}, {Name: "bert", Keys: []string{line(bert)}}, {Name: "cleo", Keys: []string{line(cleo)}}},
		TicketKeys: []string{line(ticket)}, ListKeys: []string{line(list)}}
	hardware, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(s ssh.Signer, namespace string, data []byte) []byte {
		block, err := sshsig.Sign(s, namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		return block
	}
	bytesOf := func(s Statement) []byte {
		data, err := Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	a, b, d := bytesOf(approval()), bytesOf(opening()), bytesOf(drained())
	other := approval()
	other.Fleet = "other"
	o := bytesOf(other)
	touched := hardware.Signer(softkey.Always)
	two := slices.Concat(sign(anna, NamespaceBreakGlass, b), sign(bert, NamespaceBreakGlass, b))
	tests := []struct {
		name       string
		data, sigs []byte
		at         time.Time
		want       string // reason, "" for none
	}{
		{"approval", a, sign(touched, NamespaceApproval, a), now, ""},
		{"approval, by nobody", a, nil, now, Unsigned},
		{"approval, for something else", a, sign(touched, NamespaceBreakGlass, a), now, Unsigned},
		{"approval, changed", bytes.Replace(a, []byte("anna"), []byte("bert"), 1), sign(touched, NamespaceApproval, a), now, Unsigned},
		{"approval, no signature", a, []byte("hello"), now, Unsigned},
		{"approval, one good signature among bad", a, slices.Concat([]byte("hello\n"), sign(touched, NamespaceApproval, a)), now, ""},
		{"approval, too many signatures", a, bytes.Repeat(sign(touched, NamespaceApproval, a), 17), now, Unsigned},
		{"approval of another fleet", o, sign(touched, NamespaceApproval, o), now, OtherFleet},
		{"approval expired", a, sign(touched, NamespaceApproval, a), now.Add(time.Hour), Expired},
		{"approval from the future", a, sign(touched, NamespaceApproval, a), now.Add(-time.Minute - 1), FromFuture},
		{"approval by a clock a minute ahead", a, sign(touched, NamespaceApproval, a), now.Add(-time.Minute), ""},
		{"opening", b, two, now, ""},
		{"opening by one", b, sign(anna, NamespaceBreakGlass, b), now, Unsigned},
		{"opening by one twice", b, slices.Concat(sign(anna, NamespaceBreakGlass, b), sign(anna, NamespaceBreakGlass, b)), now, Unsigned},
		{"opening by a stranger too", b, slices.Concat(sign(anna, NamespaceBreakGlass, b), sign(stranger, NamespaceBreakGlass, b)), now, Unsigned},
		{"opening for something else", b, slices.Concat(sign(anna, NamespaceApproval, b), sign(bert, NamespaceApproval, b)), now, Unsigned},
		{"opening expired", b, two, now.Add(30 * time.Minute), Expired},
		{"drained", d, sign(ticket, NamespaceDrained, d), now, ""},
		{"drained, by the key of lists", d, sign(list, NamespaceDrained, d), now, ""},
		{"drained, by a person", d, sign(anna, NamespaceDrained, d), now, Unsigned},
		{"drained, for something else", d, sign(ticket, "mayfly-ticket", d), now, Unsigned},
		{"drained, changed", bytes.Replace(d, []byte("se-1"), []byte("se-2"), 1), sign(ticket, NamespaceDrained, d), now, Unsigned},
		{"another form", append([]byte(" "), a...), sign(touched, NamespaceApproval, a), now, Malformed},
		{"unknown field", bytes.Replace(a, []byte(`"fleet"`), []byte("\"x\": 1,\n  \"fleet\""), 1), nil, now, Malformed},
		{"unknown kind", bytes.Replace(a, []byte("approval/1"), []byte("approval/2"), 1), nil, now, Malformed},
		{"one of another kind", bytes.Replace(a, []byte("mayfly-approval/1"), []byte("mayfly-drained/1"), 1), nil, now, Malformed},
		{"nothing", nil, nil, now, Malformed},
		{"too long", bytes.Repeat([]byte(" "), MaxSize+1), nil, now, Malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Open(tr, tt.data, tt.sigs, tt.at)
			var refused *Refusal
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tt.want != "" && (!errors.As(err, &refused) || refused.Reason != tt.want || !refused.Refused()):
				t.Errorf("got %v, want %s", err, tt.want)
			case tt.want == Expired && got.Statement == nil:
				t.Error("an expired statement is not returned")
			case tt.want != "" && tt.want != Expired && got.Statement != nil:
				t.Errorf("got %v with a refusal", got)
			}
		})
	}
	one, err := Open(tr, a, sign(touched, NamespaceApproval, a), now)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{line(touched)}; !slices.Equal(one.Keys, want) {
		t.Errorf("keys: got %v, want %v", one.Keys, want)
	}
	all := Collect([]Opened{one, {Statement: opening()}, {Statement: drained()}})
	if len(all.Approvals) != 1 || len(all.Openings) != 1 || len(all.Drained) != 1 || all.Approvals[0].Keys[0] != line(touched) {
		t.Errorf("collected: got %+v", all)
	}
	if _, err := Open(&trust.Trust{}, b, two, now); err == nil {
		t.Error("the zero trust policy accepts an opening")
	}
}

// FuzzParse: whatever is accepted is written back as the same bytes.
func FuzzParse(f *testing.F) {
	for _, s := range []Statement{approval(), opening(), drained()} {
		data, err := Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"kind":"mayfly-approval/1"}`))
	f.Add([]byte(`{"Kind":"mayfly-drained/1","kind":"mayfly-approval/1"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Marshal(s)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %q, %v from %q", again, err, data)
		}
	})
}

// FuzzOpen: no signature that was not made opens anything.
func FuzzOpen(f *testing.F) {
	data, err := Marshal(drained())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, []byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"))
	f.Add(data, []byte(nil))
	tr := &trust.Trust{Fleet: "lab", Threshold: 1}
	f.Fuzz(func(t *testing.T, data, sigs []byte) {
		if o, err := Open(tr, data, sigs, now); err == nil {
			if _, approval := o.Statement.(Approval); !approval {
				t.Errorf("opened %+v", o)
			}
		}
	})
}
