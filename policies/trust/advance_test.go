package trust

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/canonical"
)

// next copies a trust policy and makes of it the one that follows.
func (p people) next(t testing.TB, change func(*Trust)) *Trust {
	t.Helper()
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	n, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	n.Version, n.Previous = p.Version+1, Sum(data)
	if change != nil {
		change(n)
	}
	return n
}

// signed are a trust policy's bytes, whether anybody may use it or not, and signatures over them.
func signed(t testing.TB, next *Trust, by ...ssh.Signer) (data, sigs []byte) {
	t.Helper()
	data, err := canonical.Marshal(next)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range by {
		sigs = append(sigs, sign(t, key, Namespace, data)...)
	}
	return data, sigs
}

// replaced puts somebody in an approver's place.
func replaced(name string, by Person) func(*Trust) {
	return func(t *Trust) {
		i := slices.IndexFunc(t.Approvers, func(p Person) bool { return p.Name == name })
		t.Approvers[i] = by
	}
}

func TestAdvance(t *testing.T) {
	p := newPeople(t)
	dora, emil, ruth := newKey(t), newKey(t), newKey(t)
	doraIn := Person{Name: "dora", Keys: []string{line(dora)}}
	emilIn := Person{Name: "emil", Keys: []string{line(emil)}}
	bertLost := replaced("bert", doraIn)
	thresholdLost := func(t *Trust) { // anna is all that is left
		replaced("bert", doraIn)(t)
		replaced("cleo", emilIn)(t)
	}
	ruthIn := func(t *Trust) { t.Recovery.People[0] = Person{Name: "ruth", Keys: []string{line(ruth)}} }
	none := func(*Trust) {}
	keys := func(k ...ssh.Signer) []ssh.Signer { return k }
	both := func(f ...func(*Trust)) func(*Trust) {
		return func(t *Trust) {
			for _, g := range f {
				g(t)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Trust)
		by     []ssh.Signer
		how    string // "": refused
		reason string // of the refusal
	}{
		{"an approver's key is lost: the others replace it", bertLost, keys(p.anna, p.cleo), ByApprovers, ""},
		{"the new one signs as well", bertLost, keys(p.anna, p.cleo, dora), ByApprovers, ""},
		{"the threshold is lost: recovery quorum and new approvers", thresholdLost, keys(p.rosa, p.rita, dora, emil), ByRecovery, ""},
		{"the one that is left helps", thresholdLost, keys(p.rosa, p.rolf, p.anna, dora), ByRecovery, ""},
		{"recovery raises the threshold", both(thresholdLost, func(t *Trust) { t.Threshold = 3 }), keys(p.rosa, p.rita, p.anna, dora, emil), ByRecovery, ""},
		{"a recovery key is lost: approvers replace it", ruthIn, keys(p.bert, p.cleo), ByApprovers, ""},
		{"the recovery quorum and an approver are lost at once", both(bertLost, func(t *Trust) {
			t.Recovery = Recovery{Threshold: 1, People: []Person{{Name: "ruth", Keys: []string{line(ruth)}}}}
		}), keys(p.anna, p.cleo), ByApprovers, ""},
		{"approvers lower the threshold", func(t *Trust) { t.Threshold = 1 }, keys(p.anna, p.bert), ByApprovers, ""},
		{"approvers let recovery be", func(t *Trust) { t.Recovery = Recovery{} }, keys(p.anna, p.bert), ByApprovers, ""},
		{"approvers change the signer's keys", func(t *Trust) { t.TicketKeys = []string{line(ruth)} }, keys(p.anna, p.bert), ByApprovers, ""},
		{"a key is lost and its owner has another", func(t *Trust) { t.Approvers[0].Keys = t.Approvers[0].Keys[:1] }, keys(p.anna, p.bert), ByApprovers, ""},

		{"nobody", bertLost, nil, "", OldThreshold},
		{"old threshold only", thresholdLost, keys(p.bert, p.cleo), "", NewThreshold},
		{"old threshold and one of the new", both(thresholdLost, func(t *Trust) { t.Approvers = t.Approvers[1:] }), keys(p.bert, p.cleo, dora), "", NewThreshold},
		{"new threshold only", thresholdLost, keys(dora, emil), "", OldThreshold},
		{"new threshold and one old", thresholdLost, keys(p.bert, dora, emil), "", OldThreshold},
		{"recovery alone", thresholdLost, keys(p.rosa, p.rolf, p.rita), "", NewThreshold},
		{"recovery with one of the new", thresholdLost, keys(p.rosa, p.rolf, dora), "", NewThreshold},
		{"one of recovery with the new", thresholdLost, keys(p.rosa, dora, emil), "", OldThreshold},
		{"an approver and one of recovery are no quorum", bertLost, keys(p.anna, p.rosa), "", OldThreshold},
		{"one person twice", bertLost, keys(p.anna, p.anna), "", OldThreshold},
		{"one person with two keys", bertLost, keys(p.anna, p.anna2), "", OldThreshold},
		{"recovery: one person twice", thresholdLost, keys(p.rosa, p.rosa, dora, emil), "", OldThreshold},
		{"new approvers: one person twice", thresholdLost, keys(p.rosa, p.rita, dora, dora), "", NewThreshold},
		{"new approvers: one person with two keys", thresholdLost, keys(p.rosa, p.rita, p.anna, p.anna2), "", NewThreshold},
		{"strangers", thresholdLost, keys(p.stranger, p.ticket, p.watcher), "", OldThreshold},
		{"recovery lowers the threshold", both(thresholdLost, func(t *Trust) { t.Threshold = 1 }), keys(p.rosa, p.rita, dora), "", RecoveryLimits},
		{"recovery lowers its own threshold", both(thresholdLost, func(t *Trust) { t.Recovery.Threshold = 1 }), keys(p.rosa, p.rita, dora, emil), "", RecoveryLimits},
		{"recovery replaces itself", both(thresholdLost, ruthIn), keys(p.rosa, p.rita, dora, emil), "", RecoveryLimits},
		{"recovery changes the signer's keys", both(thresholdLost, func(t *Trust) { t.TicketKeys = []string{line(ruth)} }), keys(p.rosa, p.rita, dora, emil), "", RecoveryLimits},
		{"recovery changes the rules for hardware", both(thresholdLost, func(t *Trust) { t.Hardware.MinFirmware = "5.4.0" }), keys(p.rosa, p.rita, dora, emil), "", RecoveryLimits},
		{"recovery asks fewer witnesses", both(thresholdLost, func(t *Trust) { t.WitnessThreshold = 0 }), keys(p.rosa, p.rita, dora, emil), "", RecoveryLimits},
		{"another fleet", func(t *Trust) { t.Fleet = "lab2" }, keys(p.anna, p.bert), "", OtherFleet},
		{"a test fleet becomes none", func(t *Trust) { t.Test = false }, keys(p.anna, p.bert), "", Malformed}, // nothing was shown for its keys
		{"version jump", func(t *Trust) { t.Version++ }, keys(p.anna, p.bert), "", Jump},
		{"same version", func(t *Trust) { t.Version, t.Previous, t.Threshold = 1, "", 3 }, keys(p.anna, p.bert, p.cleo), "", Forked},
		{"follows another", func(t *Trust) { t.Previous = Sum(nil) }, keys(p.anna, p.bert), "", Forked},
		{"follows none", func(t *Trust) { t.Previous = "" }, keys(p.anna, p.bert), "", Malformed},
		{"no approvers", func(t *Trust) { t.Approvers = nil }, keys(p.anna, p.bert), "", Malformed},
		{"evidence that proves nothing", replaced("bert", Person{Name: "dora", Keys: []string{line(dora)}, Shown: []hardkey.Shown{{Kind: hardkey.KindPIV}}}),
			keys(p.anna, p.cleo), "", Malformed},
		{"an older release boots again", func(t *Trust) { t.MinRelease = 6 }, keys(p.anna, p.bert), "", MinReleaseLess},
		{"nothing changes but the version", none, keys(p.anna, p.bert), ByApprovers, ""},
	} {
		old := *p.Trust
		old.MinRelease = 7
		q := p
		q.Trust = &old
		data, sigs := signed(t, q.next(t, tt.change), tt.by...)
		c, err := Advance(&old, data, sigs)
		if tt.how != "" {
			if err != nil {
				t.Errorf("%s: got %v", tt.name, err)
			} else if got, merr := c.Trust.Marshal(); c.How != tt.how || merr != nil || !bytes.Equal(got, data) || len(c.Old) < 2 || len(c.New) < c.Trust.Threshold {
				t.Errorf("%s: got %s by %v, new %v, and %s, %v", tt.name, c.How, c.Old, c.New, got, merr)
			}
			continue
		}
		var r *Refusal
		if !errors.As(err, &r) || r.Reason != tt.reason || !r.Refused() || c != nil {
			t.Errorf("%s: got %v, %v, want %s", tt.name, c, err, tt.reason)
		}
	}
}

// Another namespace is another purpose: who signed these bytes as something else has changed nobody.
func TestAdvanceNamespace(t *testing.T) {
	p := newPeople(t)
	data, _ := signed(t, p.next(t, nil))
	for _, other := range []string{"mayfly-policy", "mayfly-release", "mayfly-statement", "mayfly-trust/2"} {
		sigs := append(sign(t, p.anna, other, data), sign(t, p.bert, other, data)...)
		var r *Refusal
		if _, err := Advance(p.Trust, data, sigs); !errors.As(err, &r) || r.Reason != OldThreshold {
			t.Errorf("%s: got %v, want %s", other, err, OldThreshold)
		}
	}
	data, sigs := signed(t, p.next(t, nil), p.anna, p.bert)
	if _, err := p.Approved("mayfly-policy", data, sigs); err == nil {
		t.Error("signatures over a trust policy are signatures over a bundle")
	}
}

// No trust policy is the beginning of nothing.
func TestAdvanceZero(t *testing.T) {
	p := newPeople(t)
	data, sigs := signed(t, p.next(t, nil), p.anna, p.bert, p.rosa, p.rolf)
	for _, old := range []*Trust{nil, {}, {Fleet: "lab", Test: true, Version: 1}} {
		var r *Refusal
		if c, err := Advance(old, data, sigs); !errors.As(err, &r) || r.Reason != OldThreshold || c != nil {
			t.Errorf("%v: got %v, %v, want %s", old, c, err, OldThreshold)
		}
	}
}

func TestFollow(t *testing.T) {
	p := newPeople(t)
	root, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dora := newKey(t)
	type file struct{ data, sigs []byte }
	chain := map[uint64]file{}
	add := func(next *Trust, by ...ssh.Signer) *Trust {
		data, sigs := signed(t, next, by...)
		chain[next.Version] = file{data, sigs}
		return next
	}
	second := people{Trust: add(p.next(t, replaced("bert", Person{Name: "dora", Keys: []string{line(dora)}})), p.anna, p.cleo)}
	third := people{Trust: add(second.next(t, func(t *Trust) { t.Threshold = 3 }), p.anna, p.cleo, dora)}
	fourth := third.next(t, replaced("cleo", Person{Name: "bert", Keys: []string{line(p.bert)}}))
	read := func(files map[uint64]file) func(uint64) ([]byte, []byte, error) {
		return func(v uint64) ([]byte, []byte, error) { return files[v].data, files[v].sigs, nil }
	}
	newest, steps, err := Follow(p.Trust, read(chain))
	if err != nil || newest.Version != 3 || len(steps) != 2 || steps[0].How != ByApprovers || newest.Threshold != 3 {
		t.Fatalf("got %+v, %v, %v, want version 3 after 2 steps", newest, steps, err)
	}
	if from2, steps, err := Follow(steps[0].Trust, read(chain)); err != nil || from2.Version != 3 || len(steps) != 1 {
		t.Errorf("from version 2: got %+v, %v, %v", from2, steps, err)
	}
	for name, tt := range map[string]struct {
		change func(map[uint64]file)
		want   string
	}{
		"an old trust policy again": {func(m map[uint64]file) { m[4] = m[2] }, OldThreshold}, // who signed that are too few by now
		"the root again":            {func(m map[uint64]file) { m[2] = file{root, nil} }, Older},
		"a fork": {func(m map[uint64]file) {
			data, sigs := signed(t, p.next(t, func(t *Trust) { t.Threshold = 1 }), p.anna, p.bert)
			m[2] = file{data, sigs}
		}, Forked}, // the third follows another second
		"too few of three": {func(m map[uint64]file) {
			data, sigs := signed(t, fourth, p.anna, p.bert)
			m[4] = file{data, sigs}
		}, OldThreshold},
		"one that is gone": {func(m map[uint64]file) {
			data, sigs := signed(t, fourth, p.anna, p.bert, p.stranger)
			m[4] = file{data, sigs}
		}, OldThreshold},
		"no signatures":   {func(m map[uint64]file) { m[3] = file{m[3].data, nil} }, OldThreshold},
		"junk":            {func(m map[uint64]file) { m[4] = file{[]byte("{}"), nil} }, OldThreshold},
		"an empty file":   {func(m map[uint64]file) { m[4] = file{[]byte{}, nil} }, OldThreshold},
		"a changed byte":  {func(m map[uint64]file) { m[3] = file{append(bytes.Clone(m[3].data), ' '), m[3].sigs} }, OldThreshold},
		"one left out":    {func(m map[uint64]file) { m[2] = m[3]; delete(m, 3) }, Jump},
		"the third twice": {func(m map[uint64]file) { m[4] = m[3] }, Older},
	} {
		files := maps.Clone(chain)
		tt.change(files)
		newest, _, err := Follow(p.Trust, read(files))
		var r *Refusal
		if !errors.As(err, &r) || r.Reason != tt.want || newest != nil {
			t.Errorf("%s: got %v, %v, want %s", name, newest, err, tt.want)
		}
	}
	broken := errors.New("disk")
	if _, _, err := Follow(p.Trust, func(uint64) ([]byte, []byte, error) { return nil, nil, broken }); !errors.Is(err, broken) {
		t.Errorf("a file that cannot be read: got %v", err)
	}
	if _, _, err := Follow(nil, read(chain)); err == nil {
		t.Error("no root: got nil")
	}
}

// Follows tells who proposes what Advance would refuse, whoever signs.
func TestFollows(t *testing.T) {
	p := newPeople(t)
	for _, tt := range []struct{ how, want string }{{ByApprovers, ""}, {ByRecovery, RecoveryLimits}} {
		err := Follows(p.Trust, p.next(t, func(t *Trust) { t.Threshold = 1 }), tt.how)
		if r := (*Refusal)(nil); tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &r) || r.Reason != tt.want) {
			t.Errorf("%s: got %v, want %q", tt.how, err, tt.want)
		}
	}
	if err := Follows(p.Trust, p.next(t, func(t *Trust) { t.Version = 9 }), ByApprovers); !strings.Contains(fmt.Sprint(err), Jump) {
		t.Errorf("got %v, want %s", err, Jump)
	}
}

// Each reason has a row in docs/formats/trust.md, and no other is there.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| reason | when |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var got []string
	for row := range strings.Lines(table) {
		got = append(got, strings.Trim(strings.Split(row, "|")[1], " `"))
	}
	want := []string{OldThreshold, NewThreshold, Malformed, OtherFleet, Older, Forked, Jump, RecoveryLimits, LostEvidence, MinReleaseLess}
	if !slices.Equal(got, want) {
		t.Errorf("the page has %q, the code %q", got, want)
	}
}

func FuzzAdvance(f *testing.F) {
	p := newPeople(f)
	dora := newKey(f)
	for _, by := range [][]ssh.Signer{{p.anna, p.bert}, {p.rosa, p.rita, dora}, {p.anna}, nil} {
		data, sigs := signed(f, p.next(f, replaced("cleo", Person{Name: "dora", Keys: []string{line(dora)}})), by...)
		f.Add(data, sigs)
		f.Add(bytes.Replace(data, []byte(`"version": 2`), []byte(`"version": 3`), 1), sigs)
		f.Add(sigs, data)
	}
	good := map[string]bool{}
	data, _ := signed(f, p.next(f, replaced("cleo", Person{Name: "dora", Keys: []string{line(dora)}})))
	good[string(data)] = true
	f.Fuzz(func(t *testing.T, data, sigs []byte) {
		c, err := Advance(p.Trust, data, sigs)
		if err != nil {
			if c != nil {
				t.Errorf("both a change and %v", err)
			}
			return
		}
		if !good[string(data)] { // nobody else's key is here to sign with
			t.Errorf("accepted %q", data)
		}
		if c.Trust.Version != p.Version+1 || c.Trust.Previous != p.Sum() || len(c.Old) < 2 || len(c.New) < 2 {
			t.Errorf("accepted %+v", c)
		}
	})
}
