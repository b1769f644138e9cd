package witness

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

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

// trio is a trust policy of three witnesses, of whom two must confirm.
type trio struct {
	*trust.Trust
	ida, jon, kim, kim2, stranger ssh.Signer
}

func newTrio(t testing.TB) trio {
	x := trio{ida: newKey(t), jon: newKey(t), kim: newKey(t), kim2: newKey(t), stranger: newKey(t)}
	line := func(s ssh.Signer) string { return trust.FormatKey(s.PublicKey()) }
	x.Trust = &trust.Trust{Kind: trust.Kind, Fleet: "lab", Version: 1, WitnessThreshold: 2, Witnesses: []trust.Person{
		{Name: "ida", Keys: []string{line(x.ida)}}, {Name: "jon", Keys: []string{line(x.jon)}}, {Name: "kim", Keys: []string{line(x.kim), line(x.kim2)}}}}
	return x
}

func TestJudge(t *testing.T) {
	x := newTrio(t)
	q := Ask("lab", SubjectPolicy)
	this, other := Sum([]byte("this")), Sum([]byte("other"))
	answer := func(key ssh.Signer, name string, q Question, version uint64, sum string, at time.Time) []byte {
		t.Helper()
		data, err := Sign(key, name, q, version, sum, at)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := func(key ssh.Signer, name string) []byte { return answer(key, name, q, 7, this, now) }
	ida, jon, kim := good(x.ida, "ida"), good(x.jon, "jon"), good(x.kim, "kim")
	elsewhere := q
	elsewhere.Fleet = "other"
	altered := func(data []byte) []byte {
		return bytes.Replace(data, []byte(`\"version\": 7`), []byte(`\"version\": 8`), 1)
	}
	namespace := func() []byte {
		var s Signed
		if err := json.Unmarshal(jon, &s); err != nil {
			t.Fatal(err)
		}
		block, err := sshsig.Sign(x.jon, "mayfly-policy", []byte(s.Answer))
		if err != nil {
			t.Fatal(err)
		}
		data, err := canonical.Marshal(Signed{s.Answer, string(block)})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	zero, negative, test := *x.Trust, *x.Trust, *x.Trust
	zero.WitnessThreshold, negative.WitnessThreshold, negative.Test, test.WitnessThreshold, test.Test = 0, -1, true, 0, true
	for _, tt := range []struct {
		name    string
		trust   *trust.Trust
		answers [][]byte
		want    string
		by      string
		detail  string
	}{
		{"two", x.Trust, [][]byte{ida, jon}, Confirmed, "ida jon", ""},
		{"three, in another order", x.Trust, [][]byte{kim, jon, ida}, Confirmed, "ida jon kim", ""},
		{"junk besides", x.Trust, [][]byte{nil, []byte("{}"), ida, []byte("junk"), jon}, Confirmed, "ida jon", ""},
		{"none", x.Trust, nil, Missing, "", "0 of 2 needed"},
		{"one", x.Trust, [][]byte{ida}, Missing, "ida", "1 of 2 needed"},
		{"one twice", x.Trust, [][]byte{ida, ida}, Missing, "ida", "1 of 2 needed"},
		{"one with two keys", x.Trust, [][]byte{kim, good(x.kim2, "kim")}, Missing, "kim", "1 of 2 needed"},
		{"a stranger", x.Trust, [][]byte{ida, good(x.stranger, "jon")}, Missing, "ida", "no witness's key"},
		{"in another's name", x.Trust, [][]byte{ida, good(x.ida, "jon")}, Missing, "ida", `in the name of "jon", signed by ida`},
		{"altered after it was signed", x.Trust, [][]byte{ida, altered(jon)}, Missing, "ida", "answer of jon"},
		{"signed for another purpose", x.Trust, [][]byte{ida, namespace()}, Missing, "ida", "namespace"},
		{"to an earlier question", x.Trust, [][]byte{ida, answer(x.jon, "jon", Ask("lab", SubjectPolicy), 7, this, now)}, Missing, "ida", "another question"},
		{"for another fleet", x.Trust, [][]byte{ida, answer(x.jon, "jon", elsewhere, 7, this, now)}, Missing, "ida", `for fleet "other"`},
		{"a clock far behind", x.Trust, [][]byte{ida, answer(x.jon, "jon", q, 7, this, now.Add(-MaxSkew-time.Second))}, Missing, "ida", "here it is"},
		{"a clock far ahead", x.Trust, [][]byte{ida, answer(x.jon, "jon", q, 7, this, now.Add(MaxSkew+time.Second))}, Missing, "ida", "here it is"},
		{"a clock a little ahead", x.Trust, [][]byte{ida, answer(x.jon, "jon", q, 7, this, now.Add(time.Minute))}, Confirmed, "ida jon", ""},
		{"one knows an older", x.Trust, [][]byte{ida, answer(x.jon, "jon", q, 6, this, now)}, Missing, "ida", "version 6 only"},
		{"one knows an older, two do not", x.Trust, [][]byte{ida, kim, answer(x.jon, "jon", q, 6, this, now)}, Confirmed, "ida kim", ""},
		{"one knows a newer", x.Trust, [][]byte{ida, kim, answer(x.jon, "jon", q, 8, other, now)}, Frozen, "ida kim", "jon names version 8"},
		{"all know a newer", x.Trust, [][]byte{answer(x.ida, "ida", q, 9, other, now), answer(x.jon, "jon", q, 8, other, now)}, Frozen, "", ""},
		{"a stranger knows a newer", x.Trust, [][]byte{ida, kim, answer(x.stranger, "jon", q, 8, other, now)}, Confirmed, "ida kim", ""},
		{"an earlier answer knows a newer", x.Trust, [][]byte{ida, kim, answer(x.jon, "jon", Ask("lab", SubjectPolicy), 8, other, now)}, Confirmed, "ida kim", ""},
		{"another file of this version", x.Trust, [][]byte{ida, kim, answer(x.jon, "jon", q, 7, other, now)}, Forked, "ida kim", "another file of version 7"},
		{"no trust", nil, [][]byte{ida, jon}, Missing, "", "no trust policy"},
		{"zero trust", new(trust.Trust), [][]byte{ida, jon}, Missing, "", "no trust policy"},
		{"threshold 0 in earnest", &zero, [][]byte{ida, jon}, Missing, "", "no trust policy"},
		{"threshold -1", &negative, [][]byte{ida, jon}, Missing, "", "no trust policy"},
		{"threshold 0 in a test fleet", &test, nil, Confirmed, "", ""},
	} {
		v := Judge(tt.trust, q, 7, this, tt.answers, now)
		if v.Reason != tt.want || v.Fresh != (tt.want == Confirmed) || strings.Join(v.Witnesses, " ") != tt.by || !strings.Contains(v.Detail, tt.detail) {
			t.Errorf("%s: got %+v, want %s by %q", tt.name, v, tt.want, tt.by)
		}
		if tt.want == Frozen && v.Newer < 8 {
			t.Errorf("%s: newer: got %d", tt.name, v.Newer)
		}
		if !strings.HasPrefix(v.Error(), tt.want) || !v.Refused() {
			t.Errorf("%s: error: %v", tt.name, v)
		}
	}
	if v := Judge(x.Trust, Question{}, 7, this, [][]byte{ida, jon}, now); v.Fresh {
		t.Errorf("no question: got %+v", v)
	}
	if v := (Verdict{}); v.Fresh {
		t.Error("the zero verdict is fresh")
	}
}

// Two questions never have the same nonce, and nothing is signed that could not be read.
func TestAskAndSign(t *testing.T) {
	a, b := Ask("lab", SubjectPolicy), Ask("lab", SubjectPolicy)
	if a.Nonce == b.Nonce || len(a.Nonce) != 64 {
		t.Errorf("nonces %q and %q", a.Nonce, b.Nonce)
	}
	key := newKey(t)
	for _, tt := range []struct {
		name    string
		witness string
		q       Question
		version uint64
		sum     string
		at      time.Time
	}{
		{"no name", "", a, 1, Sum(nil), now},
		{"no question", "ida", Question{}, 1, Sum(nil), now},
		{"version 0", "ida", a, 0, Sum(nil), now},
		{"no hash", "ida", a, 1, "", now},
		{"upper-case hash", "ida", a, 1, strings.ToUpper(Sum(nil)), now},
		{"no time", "ida", a, 1, Sum(nil), time.Time{}},
	} {
		if _, err := Sign(key, tt.witness, tt.q, tt.version, tt.sum, tt.at); err == nil {
			t.Errorf("%s: got nil, want an error", tt.name)
		}
	}
}

func TestParse(t *testing.T) {
	q := Ask("lab", SubjectPolicy)
	p := Publication{KindPublication, SubjectPolicy, "{}\n", "x"}
	encode := func(v any) []byte {
		t.Helper()
		data, err := canonical.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if got, err := ParseQuestion(encode(q)); err != nil || got != q {
		t.Errorf("question: got %+v, %v", got, err)
	}
	if got, err := ParsePublication(encode(p)); err != nil || got != p {
		t.Errorf("publication: got %+v, %v", got, err)
	}
	for _, change := range []func(*Question){
		func(q *Question) { q.Kind = Kind }, func(q *Question) { q.Fleet = "" }, func(q *Question) { q.Subject = "trust" },
		func(q *Question) { q.Nonce = "" }, func(q *Question) { q.Nonce = q.Nonce[2:] }, func(q *Question) { q.Nonce = strings.Repeat("A", 64) },
		func(q *Question) { q.Fleet = strings.Repeat("a", MaxQuestion) },
	} {
		bad := q
		change(&bad)
		if _, err := ParseQuestion(encode(bad)); err == nil {
			t.Errorf("%+v: got nil, want an error", bad)
		}
	}
	for _, bad := range []Publication{{Kind, SubjectPolicy, "x", "x"}, {KindPublication, "", "x", "x"}, {KindPublication, SubjectPolicy, "", "x"}, {KindPublication, SubjectPolicy, "x", ""}} {
		if _, err := ParsePublication(encode(bad)); err == nil {
			t.Errorf("%+v: got nil, want an error", bad)
		}
	}
}

func FuzzOpen(f *testing.F) {
	x := newTrio(f)
	q := Ask("lab", SubjectPolicy)
	good, err := Sign(x.ida, "ida", q, 7, Sum(nil), now)
	if err != nil {
		f.Fatal(err)
	}
	signed, err := Open(x.Trust, good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("ida"), []byte("jon"), 1))
	f.Add([]byte("{\n  \"answer\": \"\",\n  \"signature\": \"\"\n}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The armor around a signature can be written in more than one way; what was signed cannot.
		if a, err := Open(x.Trust, data); err == nil && a != signed {
			t.Errorf("%q: accepted as %+v", data, a)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, v := range []any{Ask("lab", SubjectPolicy), Publication{KindPublication, SubjectPolicy, "{}\n", "x"}} {
		data, err := canonical.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := ParseQuestion(data); err == nil {
			if again, err := canonical.Marshal(q); err != nil || !bytes.Equal(again, data) {
				t.Errorf("accepted %q, which marshals to %q, %v", data, again, err)
			}
		}
		if p, err := ParsePublication(data); err == nil {
			if again, err := canonical.Marshal(p); err != nil || !bytes.Equal(again, data) {
				t.Errorf("accepted %q, which marshals to %q, %v", data, again, err)
			}
		}
	})
}
