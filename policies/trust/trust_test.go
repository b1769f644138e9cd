package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/canonical"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
)

const namespace = "mayfly-test"

var message = []byte("{}\n")

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newRSA is a key of a type that nobody's hardware makes for ssh here.
func newRSA() ssh.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		panic(err)
	}
	return s
}

func line(s ssh.Signer) string { return FormatKey(s.PublicKey()) }

func sign(t testing.TB, s ssh.Signer, namespace string, message []byte) []byte {
	t.Helper()
	block, err := sshsig.Sign(s, namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// people is a trust policy of anna, who has two keys, bert and cleo, of whom two must sign.
type people struct {
	*Trust
	anna, anna2, bert, cleo, ticket, list, stranger, watcher, guard ssh.Signer
	rosa, rolf, rita                                                ssh.Signer // the recovery people, of whom two must sign
}

func newPeople(t testing.TB) people {
	t.Helper()
	p := people{anna: newKey(t), anna2: newKey(t), bert: newKey(t), cleo: newKey(t), ticket: newKey(t), list: newKey(t), stranger: newKey(t), watcher: newKey(t), guard: newKey(t),
		rosa: newKey(t), rolf: newKey(t), rita: newKey(t)}
	p.Trust = &Trust{
		Kind: Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2,
		Approvers: []Person{
			{Name: "anna", Keys: []string{line(p.anna), line(p.anna2)}},
			{Name: "bert", Keys: []string{line(p.bert)}},
			{Name: "cleo", Keys: []string{line(p.cleo)}},
		},
		Recovery: Recovery{Threshold: 2, People: []Person{
			{Name: "rosa", Keys: []string{line(p.rosa)}}, {Name: "rolf", Keys: []string{line(p.rolf)}}, {Name: "rita", Keys: []string{line(p.rita)}}}},
		TicketKeys: []string{line(p.ticket)}, ListKeys: []string{line(p.list)},
		Witnesses:        []Person{{Name: "watcher", Keys: []string{line(p.watcher)}}, {Name: "guard", Keys: []string{line(p.guard)}}},
		WitnessThreshold: 1,
	}
	return p
}

func TestApproved(t *testing.T) {
	p := newPeople(t)
	by := func(keys ...ssh.Signer) []byte {
		var all []byte
		for _, k := range keys {
			all = append(all, sign(t, k, namespace, message)...)
		}
		return all
	}
	garbage := []byte("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n")
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	zero, negative, all := *p.Trust, *p.Trust, *p.Trust
	zero.Threshold, negative.Threshold, all.Threshold = 0, -1, 3
	tests := []struct {
		name       string
		trust      *Trust
		signatures []byte
		want       []string // nil: refused
		reject     string   // one of the reasons, when refused
	}{
		{"two people", p.Trust, by(p.anna, p.bert), []string{"anna", "bert"}, ""},
		{"in another order", p.Trust, by(p.cleo, p.anna2), []string{"anna", "cleo"}, ""},
		{"all three", p.Trust, by(p.cleo, p.bert, p.anna), []string{"anna", "bert", "cleo"}, ""},
		{"nobody", p.Trust, nil, nil, ""},
		{"one", p.Trust, by(p.anna), nil, ""},
		{"one twice", p.Trust, by(p.anna, p.anna), nil, "anna already counts"},
		{"one with two keys", p.Trust, by(p.anna, p.anna2), nil, "anna already counts"},
		{"one with two keys, and another", p.Trust, by(p.anna, p.anna2, p.bert), []string{"anna", "bert"}, ""},
		{"a stranger", p.Trust, by(p.anna, p.stranger), nil, "no approver's key"},
		{"a stranger besides", p.Trust, by(p.stranger, p.anna, p.bert), []string{"anna", "bert"}, ""},
		{"the ticket key", p.Trust, by(p.anna, p.ticket), nil, "no approver's key"},
		{"garbage besides", p.Trust, join(garbage, by(p.anna), garbage, by(p.bert), []byte("hello")), []string{"anna", "bert"}, ""},
		{"garbage instead", p.Trust, join(by(p.anna), garbage), nil, "signature 2"},
		{"another namespace", p.Trust, join(by(p.anna), sign(t, p.bert, "mayfly-policy", message)), nil, "namespace"},
		{"another message", p.Trust, join(by(p.anna), sign(t, p.bert, namespace, []byte("x"))), nil, "does not match"},
		{"another message, then the right one", p.Trust, join(sign(t, p.bert, namespace, []byte("x")), by(p.anna, p.bert)), []string{"anna", "bert"}, ""},
		{"too long", p.Trust, append(bytes.Repeat([]byte("\n"), MaxSignatureBytes), by(p.anna, p.bert)...), nil, "more than"},
		{"too many", p.Trust, bytes.Repeat(by(p.anna), MaxSignatures+1), nil, "more than"},
		{"two of three needed", &all, by(p.anna, p.bert), nil, ""},
		{"threshold 0", &zero, by(p.anna, p.bert, p.cleo), nil, ""},
		{"threshold -1", &negative, by(p.anna, p.bert, p.cleo), nil, ""},
		{"zero trust", new(Trust), by(p.anna), nil, ""},
		{"no trust", nil, by(p.anna), nil, "no trust policy"},
	}
	for _, tt := range tests {
		got, err := tt.trust.Approved(namespace, message, tt.signatures)
		if tt.want != nil {
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%s: got %v, %v, want %v", tt.name, got, err, tt.want)
			}
			continue
		}
		var refused *NotApproved
		if !errors.As(err, &refused) || got != nil || !refused.Refused() {
			t.Errorf("%s: got %v, %v, want *NotApproved", tt.name, got, err)
			continue
		}
		if tt.trust == p.Trust && refused.Need != 2 {
			t.Errorf("%s: need: got %d, want 2", tt.name, refused.Need)
		}
		if !strings.Contains(strings.Join(refused.Rejected, "\n"), tt.reject) {
			t.Errorf("%s: rejected: got %q, want %q", tt.name, refused.Rejected, tt.reject)
		}
	}
	_, err := p.Approved(namespace, message, by(p.anna))
	if got, want := err.Error(), "signed by 1 of 2 people needed (anna)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestVerifyAny(t *testing.T) {
	p := newPeople(t)
	good := sign(t, p.ticket, namespace, message)
	for _, tt := range []struct {
		name      string
		keys      []string
		namespace string
		message   []byte
		signature []byte
		ok        bool
	}{
		{"good", p.TicketKeys, namespace, message, good, true},
		{"second key", []string{line(p.list), line(p.ticket)}, namespace, message, good, true},
		{"no keys", nil, namespace, message, good, false},
		{"another key", p.ListKeys, namespace, message, good, false},
		{"another namespace", p.TicketKeys, "x", message, good, false},
		{"another message", p.TicketKeys, namespace, []byte("x"), good, false},
		{"no signature", p.TicketKeys, namespace, message, nil, false},
		{"two signatures", p.TicketKeys, namespace, message, append(slices.Clone(good), good...), false},
		{"key with a comment", []string{p.TicketKeys[0] + " x"}, namespace, message, good, false},
	} {
		if err := VerifyAny(tt.keys, tt.namespace, tt.message, tt.signature); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok %v", tt.name, err, tt.ok)
		}
	}
}

// hardware is a key of a type that needs a touch.
const hardware = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABHNzaDo="

// A test fleet needs no witness.
func TestWitnesses(t *testing.T) {
	p := newPeople(t)
	if name, ok := p.Witness(line(p.guard)); name != "guard" || !ok {
		t.Errorf("got %q, %v, want guard", name, ok)
	}
	for _, key := range []string{"", line(p.stranger), line(p.anna)} {
		if name, ok := p.Witness(key); ok {
			t.Errorf("%q: got %q, want nobody", key, name)
		}
	}
	none := *p.Trust
	none.Witnesses, none.WitnessThreshold = nil, 0
	if err := none.Check(); err != nil {
		t.Errorf("a test fleet without witnesses: %v", err)
	}
}

func TestParse(t *testing.T) {
	p := newPeople(t)
	good, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := again.Marshal(); err != nil || !bytes.Equal(data, good) {
		t.Errorf("got %s, %v, want %s", data, err, good)
	}
	for _, tt := range []struct {
		name   string
		change func(*Trust)
		want   string
	}{
		{"kind", func(t *Trust) { t.Kind = "mayfly-trust/1" }, "kind"},
		{"no fleet", func(t *Trust) { t.Fleet = "" }, "fleet"},
		{"fleet with a line break", func(t *Trust) { t.Fleet = "a\nb" }, "fleet"},
		{"version 0", func(t *Trust) { t.Version = 0 }, "version"},
		{"no approvers", func(t *Trust) { t.Approvers = nil }, "0 approvers"},
		{"too many approvers", func(t *Trust) { t.Approvers = make([]Person, MaxApprovers+1) }, "65 approvers"},
		{"threshold 0", func(t *Trust) { t.Threshold = 0 }, "threshold is 0"},
		{"threshold negative", func(t *Trust) { t.Threshold = -1 }, "threshold is -1"},
		{"threshold above people", func(t *Trust) { t.Threshold = 4 }, "threshold is 4 of 3"}, // four keys, three people
		{"no name", func(t *Trust) { t.Approvers[0].Name = "" }, "name"},
		{"approver whom no challenge can name", func(t *Trust) { t.Approvers[0].Name = "Ana.Smith" }, `name "Ana.Smith": a name begins with a letter`},
		{"recovery person whom no challenge can name", func(t *Trust) { t.Recovery.People[0].Name = "1ana" }, `name "1ana"`},
		{"long name", func(t *Trust) { t.Approvers[0].Name = strings.Repeat("a", 64) }, "at most 63"},
		{"name twice", func(t *Trust) { t.Approvers[1].Name = "anna" }, "there twice"},
		{"no key", func(t *Trust) { t.Approvers[1].Keys = nil }, "0 keys"},
		{"too many keys", func(t *Trust) { t.Approvers[1].Keys = make([]string, MaxKeys+1) }, "17 keys"},
		{"one key of two people", func(t *Trust) { t.Approvers[1].Keys = t.Approvers[0].Keys[:1] }, "also approver anna's"},
		{"one key twice", func(t *Trust) { t.Approvers[0].Keys[1] = t.Approvers[0].Keys[0] }, "also approver anna's"},
		{"ticket key of an approver", func(t *Trust) { t.TicketKeys = t.Approvers[0].Keys[:1] }, "also approver anna's"},
		{"ticket key that signs lists", func(t *Trust) { t.ListKeys = t.TicketKeys }, "also ticket_keys's"},
		{"no ticket keys", func(t *Trust) { t.TicketKeys = nil }, "ticket_keys has 0"},
		{"software keys in earnest", func(t *Trust) { t.Test = false }, "approver anna, key 1: attestation_missing"},
		{"a key type of no hardware", func(t *Trust) { t.Approvers[1].Keys = []string{line(newRSA())} }, "key of type ssh-rsa"},
		{"previous of the first", func(t *Trust) { t.Previous = Sum(nil) }, "previous"},
		{"no previous of the second", func(t *Trust) { t.Version = 2 }, "previous"},
		{"previous in capitals", func(t *Trust) { t.Version, t.Previous = 2, strings.ToUpper(Sum(nil)) }, "previous"},
		{"recovery threshold negative", func(t *Trust) { t.Recovery.Threshold = -1 }, "recovery threshold is -1"},
		{"recovery threshold above people", func(t *Trust) { t.Recovery.Threshold = 4 }, "recovery threshold is 4 of 3"},
		{"recovery threshold 0", func(t *Trust) { t.Recovery.Threshold = 0 }, "recovery threshold is 0 of 3"},
		{"too many recovery people", func(t *Trust) { t.Recovery.People = make([]Person, MaxRecovery+1) }, "17 recovery people"},
		{"recovery person twice", func(t *Trust) { t.Recovery.People[1].Name = "rosa" }, "there twice"},
		{"recovery key of an approver", func(t *Trust) { t.Recovery.People[1].Keys = t.Approvers[1].Keys }, "also approver bert's"},
		{"test issuer in earnest", func(t *Trust) { t.Test = false; t.Hardware.TestIssuers = make([]hardkey.Issuer, 1) }, "issuers of test cards"},
		{"evidence that proves nothing", func(t *Trust) {
			t.Approvers[1].Shown = []hardkey.Shown{{Kind: hardkey.KindPIV, Challenge: "x"}}
		}, "approver bert, key 1: attestation_"},
		{"evidence of no kind", func(t *Trust) { t.Approvers[1].Shown = []hardkey.Shown{{Challenge: "x"}} }, "evidence of no kind"},
		{"evidence for one key of two", func(t *Trust) { t.Approvers[0].Shown = []hardkey.Shown{{Kind: hardkey.KindPIV}} }, "evidence for 1 keys"},
		{"empty evidence", func(t *Trust) { t.Approvers[1].Shown = []hardkey.Shown{{}} }, "empty evidence"},
		{"a witness with evidence", func(t *Trust) { t.Witnesses[1].Shown = []hardkey.Shown{{Kind: hardkey.KindPIV}} }, "in no hardware"},
		{"no list keys", func(t *Trust) { t.ListKeys = nil }, "list_keys has 0"},
		{"key with a comment", func(t *Trust) { t.ListKeys[0] += " list" }, "not in the form"},
		{"key with options", func(t *Trust) { t.ListKeys[0] = "restrict " + t.ListKeys[0] }, "not in the form"},
		{"witness threshold negative", func(t *Trust) { t.WitnessThreshold = -1 }, "witness_threshold is -1"},
		{"witness threshold above witnesses", func(t *Trust) { t.WitnessThreshold = 3 }, "witness_threshold is 3 of 2"},
		{"witness threshold without witnesses", func(t *Trust) { t.Witnesses = nil }, "witness_threshold is 1 of 0"},
		{"witness twice", func(t *Trust) { t.Witnesses[1].Name = "watcher" }, "there twice"},
		{"witness without a name", func(t *Trust) { t.Witnesses[1].Name = "" }, "name"},
		{"witness without a key", func(t *Trust) { t.Witnesses[1].Keys = nil }, "0 keys"},
		{"two witnesses with one key", func(t *Trust) { t.Witnesses[1].Keys = t.Witnesses[0].Keys }, "also witness watcher's"},
		{"witness with an approver's key", func(t *Trust) { t.Witnesses[1].Keys = t.Approvers[1].Keys }, "also approver bert's"},
		{"witness that signs lists", func(t *Trust) { t.ListKeys = t.Witnesses[1].Keys }, "also witness guard's"},
		{"witness with a key that must be touched", func(t *Trust) { t.Witnesses[1].Keys = []string{hardware} }, "not of type ssh-ed25519"},
		{"too many witnesses", func(t *Trust) { t.Witnesses = make([]Person, MaxWitnesses+1) }, "17 witnesses"},
		{"no key at all", func(t *Trust) { t.ListKeys[0] = "hello" }, "not a public key"},
	} {
		changed, err := Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		tt.change(changed)
		data, err := canonical.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(data)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Parse: got %v, want %q", tt.name, err, tt.want)
		}
		if hint.Of(err) == "" {
			t.Errorf("%s: Parse: no hint for %v", tt.name, err)
		}
		if _, err := changed.Marshal(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Marshal: got %v, want %q", tt.name, err, tt.want)
		}
	}
	for _, tt := range []struct{ name, text string }{
		{"empty", ""}, {"null", "null\n"}, {"trailing", string(good) + "{}\n"}, {"white space", " " + string(good)},
		{"unknown field", strings.Replace(string(good), `"kind"`, `"x": 1, "kind"`, 1)},
		{"duplicate", strings.Replace(string(good), `"threshold": 2`, `"threshold": 2, "threshold": 1`, 1)},
		{"other case", strings.Replace(string(good), `"threshold"`, `"Threshold"`, 1)},
		{"huge", strings.Repeat(" ", MaxSize+1)},
	} {
		if _, err := Parse([]byte(tt.text)); err == nil {
			t.Errorf("%s: got nil, want an error", tt.name)
		}
	}
}

func FuzzParse(f *testing.F) {
	good, err := newPeople(f).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	real, err := earnest(f, newPeople(f)).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(real)
	f.Add(bytes.Replace(good, []byte(`"test": true`), []byte(`"test": false`), 1))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		trust, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := trust.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, which marshals to %q, %v", data, again, err)
		}
		if people, err := trust.Approved(namespace, data, nil); err == nil {
			t.Errorf("approved by %v without signatures", people)
		}
	})
}
