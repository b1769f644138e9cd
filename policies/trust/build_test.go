package trust

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// builders is a trust policy of the people above, with two builders of whom one must sign, and a ledger.
type builders struct {
	people
	dan, dan2, eve, ledger ssh.Signer
}

func newBuilders(t testing.TB) builders {
	t.Helper()
	b := builders{people: newPeople(t), dan: newKey(t), dan2: newKey(t), eve: newKey(t), ledger: newKey(t)}
	b.Builders = []Person{{Name: "dan", Keys: []string{line(b.dan), line(b.dan2)}}, {Name: "eve", Keys: []string{line(b.eve)}}}
	b.BuilderThreshold, b.LedgerKeys, b.SecureBoot = 1, []string{line(b.ledger)}, []string{strings.Repeat("ab", 32)}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuilt(t *testing.T) {
	b := newBuilders(t)
	by := func(keys ...ssh.Signer) (all []byte) {
		for _, k := range keys {
			all = append(all, sign(t, k, namespace, message)...)
		}
		return all
	}
	two, zero, negative, test, unnamed := *b.Trust, *b.Trust, *b.Trust, *b.Trust, Trust{Test: true}
	two.BuilderThreshold, negative.BuilderThreshold = 2, -1
	zero.BuilderThreshold, zero.Test = 0, false
	test.BuilderThreshold, test.Builders = 0, nil
	for _, tt := range []struct {
		name  string
		trust *Trust
		sigs  []byte
		want  string // "-": refused
	}{
		{"one", b.Trust, by(b.dan), "dan"},
		{"both, with approvers' and strangers' blocks between", &two, by(b.anna, b.eve, b.stranger, b.bert, b.dan), "dan eve"},
		{"nobody", b.Trust, nil, "-"},
		{"one of two", &two, by(b.dan), "-"},
		{"one twice", &two, by(b.dan, b.dan), "-"},
		{"one with two keys", &two, by(b.dan, b.dan2), "-"},
		{"approvers alone", b.Trust, by(b.anna, b.bert, b.cleo), "-"},
		{"recovery alone", b.Trust, by(b.rosa, b.rolf), "-"},
		{"the ledger's key", b.Trust, by(b.ledger), "-"},
		{"for another namespace", b.Trust, sign(t, b.dan, "mayfly-release", message), "-"},
		{"threshold 0 in earnest", &zero, by(b.dan), "-"},
		{"threshold -1", &negative, by(b.dan), "-"},
		{"a test fleet without builders", &test, nil, ""},
		{"no trust policy", nil, by(b.dan), "-"},
		{"the zero value", new(Trust), by(b.dan), "-"},
		{"a zero value that says test", &unnamed, nil, "-"},
		{"too many bytes", b.Trust, make([]byte, MaxSignatureBytes+1), "-"},
	} {
		got, err := tt.trust.Built(namespace, message, tt.sigs)
		if tt.want == "-" {
			if short, ok := errors.AsType[*NotApproved](err); !ok || !short.Refused() || got != nil {
				t.Errorf("%s: got %v, %v", tt.name, got, err)
			}
		} else if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, %v, want %s", tt.name, got, err, tt.want)
		}
	}
	// A builder approves nothing.
	if _, err := b.Approved(namespace, message, by(b.dan, b.eve)); err == nil {
		t.Error("builders count as approvers")
	}
}

func TestBuildersChecked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*builders)
		want   string
	}{
		{"good", func(*builders) {}, ""},
		{"an approver's name", func(b *builders) { b.Builders[0].Name = "anna" }, "anna is a builder and an approver"},
		{"an approver's key", func(b *builders) { b.Builders[0].Keys = []string{line(b.anna)} }, "the key is also approver anna's"},
		{"a recovery person's key", func(b *builders) { b.Builders[0].Keys = []string{line(b.rosa)} }, "the key is also recovery rosa's"},
		{"a witness's key", func(b *builders) { b.Builders[0].Keys = []string{line(b.guard)} }, "the key is also builder dan's"},
		{"the signer's key", func(b *builders) { b.Builders[0].Keys = []string{line(b.ticket)} }, "the key is also builder dan's"},
		{"another builder's key", func(b *builders) { b.Builders[1].Keys = []string{line(b.dan)} }, "the key is also builder dan's"},
		{"one builder twice", func(b *builders) { b.Builders[1].Name = "dan" }, `builder "dan" is there twice`},
		{"no key", func(b *builders) { b.Builders[0].Keys = nil }, "builder dan has 0 keys"},
		{"too many", func(b *builders) { b.Builders = make([]Person, MaxBuilders+1) }, "builders: at most"},
		{"a threshold above", func(b *builders) { b.BuilderThreshold = 3 }, "builder_threshold is 3 of 2"},
		{"a threshold below", func(b *builders) { b.BuilderThreshold = -1 }, "builder_threshold is -1"},
		{"no threshold", func(b *builders) { b.BuilderThreshold = 0 }, "builder_threshold is 0 of 2"},
		{"the ledger's key is a builder's", func(b *builders) { b.LedgerKeys = []string{line(b.dan)} }, "the key is also builder dan's"},
		{"the ledger's key is a witness's", func(b *builders) { b.LedgerKeys = []string{line(b.guard)} }, "the key is also witness guard's"},
		{"a certificate twice", func(b *builders) { b.SecureBoot = append(b.SecureBoot, b.SecureBoot[0]) }, "secure_boot, certificate 2"},
		{"a certificate in capitals", func(b *builders) { b.SecureBoot = []string{strings.Repeat("AB", 32)} }, "secure_boot, certificate 1"},
	} {
		b := newBuilders(t)
		tt.change(&b)
		if err := b.Check(); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestBuildersAdvance: builders, the ledger's keys and certificates change as all else does, by the approvers; builders have no say in it, and
// the recovery quorum cannot change them.
func TestBuildersAdvance(t *testing.T) {
	b := newBuilders(t)
	fay, dora, emil := newKey(t), newKey(t), newKey(t)
	newApprovers := func(n *Trust) {
		n.Approvers = []Person{{Name: "dora", Keys: []string{line(dora)}}, {Name: "emil", Keys: []string{line(emil)}}}
	}
	builderIn := func(n *Trust) { n.Builders = append(n.Builders, Person{Name: "fay", Keys: []string{line(fay)}}) }
	less := func(n *Trust) { n.Builders, n.BuilderThreshold = nil, 0 }
	raised := func(n *Trust) { n.BuilderThreshold = 2 }
	ledger := func(n *Trust) { n.LedgerKeys = []string{line(fay)} }
	boot := func(n *Trust) { n.SecureBoot = []string{strings.Repeat("cd", 32)} }
	keys := func(k ...ssh.Signer) []ssh.Signer { return k }
	for _, tt := range []struct {
		name   string
		change []func(*Trust)
		by     []ssh.Signer
		reason string
	}{
		{"approvers name another builder", []func(*Trust){builderIn}, keys(b.anna, b.bert), ""},
		{"approvers ask none", []func(*Trust){less}, keys(b.anna, b.bert), ""},
		{"approvers ask more", []func(*Trust){raised}, keys(b.anna, b.bert), ""},
		{"approvers change the ledger's key", []func(*Trust){ledger}, keys(b.anna, b.bert), ""},
		{"approvers change the certificates", []func(*Trust){boot}, keys(b.anna, b.bert), ""},
		{"one approver and the builders", []func(*Trust){builderIn}, keys(b.anna, b.dan, b.eve), OldThreshold},
		{"builders alone", []func(*Trust){builderIn}, keys(b.dan, b.dan2, b.eve, fay), OldThreshold},
		{"an approver becomes a builder as well", []func(*Trust){func(n *Trust) { n.Builders = append(n.Builders, Person{Name: "anna", Keys: []string{line(fay)}}) }}, keys(b.anna, b.bert), Malformed},
		{"recovery names approvers", []func(*Trust){newApprovers}, keys(b.rosa, b.rita, dora, emil), ""},
		{"recovery and another builder", []func(*Trust){newApprovers, builderIn}, keys(b.rosa, b.rita, dora, emil), RecoveryLimits},
		{"recovery and no builders", []func(*Trust){newApprovers, less}, keys(b.rosa, b.rita, dora, emil), RecoveryLimits},
		{"recovery and the builders' threshold", []func(*Trust){newApprovers, raised}, keys(b.rosa, b.rita, dora, emil), RecoveryLimits},
		{"recovery and the ledger's key", []func(*Trust){newApprovers, ledger}, keys(b.rosa, b.rita, dora, emil), RecoveryLimits},
		{"recovery and the certificates", []func(*Trust){newApprovers, boot}, keys(b.rosa, b.rita, dora, emil), RecoveryLimits},
	} {
		n := b.next(t, func(n *Trust) {
			for _, f := range tt.change {
				f(n)
			}
		})
		data, sigs := signed(t, n, tt.by...)
		_, err := Advance(b.Trust, data, sigs)
		var reason string
		if r, ok := errors.AsType[*Refusal](err); ok {
			reason = r.Reason
		}
		if reason != tt.reason || (err == nil) != (tt.reason == "") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.reason)
		}
	}
	// Every byte of them is in the file that follows.
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if data2, err := again.Marshal(); err != nil || !bytes.Equal(data, data2) {
		t.Errorf("got %s, %v", data2, err)
	}
}
