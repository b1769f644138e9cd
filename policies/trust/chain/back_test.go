package chain

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"mayfly/policies/trust"
)

// TestBack: an older trust policy is believed by the hashes that lead back to it, and not because it lies there.
func TestBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(l lab) error
		want   uint64
		reason string // "": an error without one
		good   bool
	}{
		{name: "one step", want: 2, good: true},
		{name: "two steps", want: 1, good: true},
		{name: "signatures of it do not matter", want: 2, good: true, spoil: func(l lab) error { return os.Remove(SignatureFile(l.dir, 2)) }},
		{name: "the one in force is not before itself", want: 3},
		{name: "none", want: 0},
		{name: "a later one", want: 4},
		{name: "a stranger's in its place", want: 1, reason: trust.Forked, spoil: func(l lab) error { return os.WriteFile(File(l.dir, 1), stranger(t), 0o644) }},
		{name: "a stranger's on the way", want: 1, reason: trust.Forked, spoil: func(l lab) error { return os.WriteFile(File(l.dir, 2), stranger(t), 0o644) }},
		{name: "one of ours in another's place", want: 2, reason: trust.Forked, spoil: func(l lab) error { return os.WriteFile(File(l.dir, 2), l.data[1], 0o644) }},
		{name: "not there", want: 1, spoil: func(l lab) error { return os.Remove(File(l.dir, 1)) }},
		{name: "a step on the way is not there", want: 1, spoil: func(l lab) error { return os.Remove(File(l.dir, 2)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			if tt.spoil != nil {
				if err := tt.spoil(l); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Back(l.versions[3], tt.want, l.dir)
			if tt.good {
				if err != nil || !bytes.Equal(got, l.data[tt.want]) {
					t.Fatalf("got %q, %v", got, err)
				}
				return
			}
			r, refused := errors.AsType[*trust.Refusal](err)
			if err == nil || refused != (tt.reason != "") || (refused && r.Reason != tt.reason) {
				t.Fatalf("got %v, want %q", err, tt.reason)
			}
		})
	}
	l := newLab(t)
	if _, _, err := Before(l.versions[1], l.dir); !errors.Is(err, errFirst) {
		t.Errorf("before the first: got %v", err)
	}
}

// stranger is a version 1 of this fleet by somebody else.
func stranger(t *testing.T) []byte {
	t.Helper()
	mal := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 1, Approvers: []trust.Person{person("mal", signer(t, 'm'))},
		TicketKeys: []string{trust.FormatKey(signer(t, 'n').PublicKey())}, ListKeys: []string{trust.FormatKey(signer(t, 'o').PublicKey())}}
	data, err := mal.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
