package ledger

import (
	"testing"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/extension"
)

// extend logs that a life goes on, signed by the approvers of these seeds.
func (b *book) extend(epoch uint64, until time.Time, change func(*ledger.Extend), seeds ...byte) {
	b.t.Helper()
	e := extension.Extension{Kind: extension.Kind, Fleet: "demo", Server: "nl-1", Epoch: epoch, Made: b.at, Until: until, Reason: "no power"}
	data, err := e.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	var sigs []byte
	for _, seed := range seeds {
		sig, err := sshsig.Sign(signer(b.t, seed), extension.Namespace, data)
		if err != nil {
			b.t.Fatal(err)
		}
		sigs = append(sigs, sig...)
	}
	r := ledger.Extend{Kind: ledger.Kind, Server: "nl-1", Epoch: epoch, Deadline: until, Statement: string(data), Signatures: string(sigs)}
	if change != nil {
		change(&r)
	}
	b.add(ledger.EventExtend, r)
}

// TestExtended: a life that goes on is right when its approvers said so, and wrong otherwise.
func TestExtended(t *testing.T) {
	p := policy(t, 1, nil)
	day := 24 * time.Hour
	over := start.Add(-time.Minute).Add(day) // of the life below
	tests := []struct {
		name string
		with func(*book)
		want string
	}{
		{"good", func(b *book) { b.extend(1, over.Add(day), nil, 1, 2) }, ""},
		{"until its new end", func(b *book) {
			b.extend(1, over.Add(day), nil, 1, 2)
			b.at = over.Add(day)
			b.end("nl-1", 1, ledger.Passed)
		}, ""},
		{"beyond its new end", func(b *book) {
			b.extend(1, over.Add(day), nil, 1, 2)
			b.at = over.Add(day + time.Hour)
			b.end("nl-1", 1, ledger.Passed)
		}, LifeTooLong},
		{"one approver", func(b *book) { b.extend(1, over.Add(day), nil, 1) }, LifeExtended},
		{"a builder", func(b *book) { b.extend(1, over.Add(day), nil, 1, 3) }, LifeExtended},
		{"the signer", func(b *book) { b.extend(1, over.Add(day), nil, 4, 6) }, LifeExtended},
		{"another deadline than was signed", func(b *book) {
			b.extend(1, over.Add(day), func(x *ledger.Extend) { x.Deadline = x.Deadline.Add(day) }, 1, 2)
		}, LifeExtended},
		{"another life", func(b *book) { b.extend(2, over.Add(day), nil, 1, 2) }, LifeExtended},
		{"a life that is over", func(b *book) {
			b.end("nl-1", 1, ledger.Rotated)
			b.extend(1, over.Add(day), nil, 1, 2)
		}, LifeExtended},
		{"after its deadline", func(b *book) {
			b.at = over.Add(time.Hour)
			b.extend(1, over.Add(day), nil, 1, 2)
		}, LifeExtended},
		{"beyond seven days", func(b *book) {
			b.at = b.at.Add(time.Hour)
			b.extend(1, start.Add(extension.MaxLife), nil, 1, 2)
		}, LifeExtended},
		{"once too often", func(b *book) {
			for i := range extension.MaxOfALife + 1 {
				b.extend(1, over.Add(time.Duration(i+1)*time.Hour), nil, 1, 2)
			}
		}, LifeExtended},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &book{t: t, at: start}
			b.trust(p)
			b.life("nl-1", 1, 7, b.good(7), nil)
			tt.with(b)
			r := b.check(Rules{Policies: Policies{p.Sum(): p}})
			if got := reasons(r); got != tt.want {
				t.Fatalf("got %q, want %q: %+v", got, tt.want, r.Violations)
			}
			if tt.name == "good" && (r.Extended != 1 || r.Longest != int64(2*day/time.Second)) {
				t.Errorf("the report has %d extensions, the longest life of %d s", r.Extended, r.Longest)
			}
		})
	}
	var nobody *trust.Trust
	if _, err := nobody.Approved("x", nil, nil); err == nil {
		t.Error("without a trust policy somebody approves")
	}
}
