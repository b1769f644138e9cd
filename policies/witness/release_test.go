package witness

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/policies/trust"
)

// signRelease is an answer about releases.
func signRelease(t testing.TB, key ssh.Signer, name string, q Question, version, least uint64, sum string, at time.Time) []byte {
	t.Helper()
	data, err := SignRelease(key, name, q, version, least, sum, at)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestJudgeRelease(t *testing.T) {
	x := newTrio(t)
	q := Ask("lab", SubjectRelease)
	this, other := Sum([]byte("this")), Sum([]byte("other"))
	say := func(key ssh.Signer, name string, version, least uint64, sum string, at time.Time) []byte {
		t.Helper()
		return signRelease(t, key, name, q, version, least, sum, at)
	}
	ida, jon, kim := say(x.ida, "ida", 7, 5, this, now), say(x.jon, "jon", 7, 5, this, now.Add(time.Second)), say(x.kim, "kim", 7, 5, this, now.Add(2*time.Second))
	elsewhere := q
	elsewhere.Fleet = "other"
	policy, err := Sign(x.jon, "jon", Question{Kind: KindQuestion, Fleet: "lab", Subject: SubjectPolicy, Nonce: q.Nonce}, 7, this, now)
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(jon, []byte(`\"least\": 5`), []byte(`\"least\": 1`), 1)
	if bytes.Equal(altered, jon) {
		t.Fatal("nothing was altered")
	}
	zero, negative, test := *x.Trust, *x.Trust, *x.Trust
	zero.WitnessThreshold, negative.WitnessThreshold, negative.Test, test.WitnessThreshold, test.Test = 0, -1, true, 0, true
	far := now.Add(400 * 24 * time.Hour)
	for _, tt := range []struct {
		name    string
		trust   *trust.Trust
		version uint64
		answers [][]byte
		want    string
		by      string
		at      time.Time
		detail  string
	}{
		{"two", x.Trust, 7, [][]byte{ida, jon}, Confirmed, "ida jon", now.Add(time.Second), ""},
		{"three, in another order: the median", x.Trust, 7, [][]byte{kim, jon, ida}, Confirmed, "ida jon kim", now.Add(time.Second), ""},
		{"junk besides", x.Trust, 7, [][]byte{nil, []byte("{}"), ida, []byte("junk"), jon, {0xff}}, Confirmed, "ida jon", now.Add(time.Second), ""},
		{"none", x.Trust, 7, nil, Missing, "", time.Time{}, "0 of 2 needed"},
		{"one", x.Trust, 7, [][]byte{ida}, Missing, "ida", time.Time{}, "1 of 2 needed"},
		{"one twice", x.Trust, 7, [][]byte{ida, ida}, Missing, "ida", time.Time{}, "1 of 2 needed"},
		{"one with two keys", x.Trust, 7, [][]byte{kim, say(x.kim2, "kim", 7, 5, this, now)}, Missing, "kim", time.Time{}, "1 of 2 needed"},
		{"a stranger", x.Trust, 7, [][]byte{ida, say(x.stranger, "jon", 7, 5, this, now)}, Missing, "ida", time.Time{}, "no witness's key"},
		{"in another's name", x.Trust, 7, [][]byte{ida, say(x.ida, "jon", 7, 5, this, now)}, Missing, "ida", time.Time{}, `in the name of "jon", signed by ida`},
		{"altered after it was signed", x.Trust, 7, [][]byte{ida, altered}, Missing, "ida", time.Time{}, "answer of jon"},
		{"about the policy", x.Trust, 7, [][]byte{ida, policy}, Missing, "ida", time.Time{}, `about "policy"`},
		{"to an earlier question", x.Trust, 7, [][]byte{ida, signRelease(t, x.jon, "jon", Ask("lab", SubjectRelease), 7, 5, this, now)}, Missing, "ida", time.Time{}, "another question"},
		{"for another fleet", x.Trust, 7, [][]byte{ida, signRelease(t, x.jon, "jon", elsewhere, 7, 5, this, now)}, Missing, "ida", time.Time{}, `for fleet "other"`},
		{"one knows an older only", x.Trust, 7, [][]byte{ida, say(x.jon, "jon", 6, 5, other, now)}, Missing, "ida", time.Time{}, "version 6 only"},
		{"one knows an older only, two do not", x.Trust, 7, [][]byte{ida, kim, say(x.jon, "jon", 6, 5, other, now)}, Confirmed, "ida kim", now.Add(2 * time.Second), ""},
		{"a newer is out, and this one may still boot", x.Trust, 6, [][]byte{ida, jon}, Confirmed, "ida jon", now.Add(time.Second), ""},
		{"the oldest that may", x.Trust, 5, [][]byte{ida, jon}, Confirmed, "ida jon", now.Add(time.Second), ""},
		{"older than that", x.Trust, 4, [][]byte{ida, jon}, ReleaseFrozen, "", time.Time{}, "none older than 5 boots"},
		{"by one of three it may not", x.Trust, 7, [][]byte{ida, jon, say(x.kim, "kim", 8, 8, other, now)}, ReleaseFrozen, "ida jon", time.Time{}, "kim names version 8"},
		{"by a stranger it may not", x.Trust, 7, [][]byte{ida, jon, say(x.stranger, "kim", 8, 8, other, now)}, Confirmed, "ida jon", now.Add(time.Second), ""},
		{"by an earlier answer it may not", x.Trust, 7, [][]byte{ida, jon, signRelease(t, x.kim, "kim", Ask("lab", SubjectRelease), 8, 8, other, now)}, Confirmed, "ida jon", now.Add(time.Second), ""},
		{"another release of this version", x.Trust, 7, [][]byte{ida, jon, say(x.kim, "kim", 7, 5, other, now)}, ReleaseForked, "ida jon", time.Time{}, "another release 7"},
		{"clocks that agree, whatever the time", x.Trust, 7, [][]byte{say(x.ida, "ida", 7, 5, this, far), say(x.jon, "jon", 7, 5, this, far)}, Confirmed, "ida jon", far, ""},
		{"clocks that agree just so", x.Trust, 7, [][]byte{ida, say(x.jon, "jon", 7, 5, this, now.Add(MaxSkew))}, Confirmed, "ida jon", now.Add(MaxSkew), ""},
		{"a clock too far ahead", x.Trust, 7, [][]byte{ida, say(x.jon, "jon", 7, 5, this, now.Add(MaxSkew+time.Second))}, Missing, "jon", time.Time{}, "the clocks of 1 others differ"},
		{"a clock set back 30 days, and two that agree", x.Trust, 7, [][]byte{say(x.ida, "ida", 7, 5, this, now.Add(-30*24*time.Hour)), jon, kim}, Confirmed, "jon kim", now.Add(2 * time.Second), ""},
		{"a clock a year ahead, and two that agree", x.Trust, 7, [][]byte{say(x.ida, "ida", 7, 5, this, far), jon, kim}, Confirmed, "jon kim", now.Add(2 * time.Second), ""},
		{"no trust", nil, 7, [][]byte{ida, jon}, Missing, "", time.Time{}, "no trust policy"},
		{"zero trust", new(trust.Trust), 7, [][]byte{ida, jon}, Missing, "", time.Time{}, "no trust policy"},
		{"threshold 0 in earnest", &zero, 7, [][]byte{ida, jon}, Missing, "", time.Time{}, "no trust policy"},
		{"threshold -1", &negative, 7, [][]byte{ida, jon}, Missing, "", time.Time{}, "no trust policy"},
		{"threshold 0 in a test fleet: nobody's time", &test, 7, nil, Confirmed, "", time.Time{}, ""},
		{"version 0", x.Trust, 0, [][]byte{ida, jon}, Missing, "", time.Time{}, "no question about a release"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := JudgeRelease(tt.trust, q, tt.version, map[bool]string{true: this, false: other}[tt.version == 7], tt.answers)
			if v.Reason != tt.want || v.Fresh != (tt.want == Confirmed) || strings.Join(v.Witnesses, " ") != tt.by || !v.Time.Equal(tt.at) || !strings.Contains(v.Detail, tt.detail) {
				t.Errorf("got %+v, want %s by %q at %s, detail %q", v, tt.want, tt.by, tt.at, tt.detail)
			}
			if !v.Fresh && (!v.Refused() || !strings.HasPrefix(v.Error(), tt.want+": ")) {
				t.Errorf("says %q", v.Error())
			}
		})
	}
	if v := JudgeRelease(x.Trust, Ask("lab", SubjectPolicy), 7, this, [][]byte{ida, jon}); v.Fresh {
		t.Errorf("a question about the policy: got %+v", v)
	}
	if v := JudgeRelease(x.Trust, Question{Fleet: "lab", Subject: SubjectRelease}, 7, this, [][]byte{ida, jon}); v.Fresh {
		t.Errorf("a question without a nonce: got %+v", v)
	}
	if (ReleaseVerdict{}).Fresh {
		t.Error("the zero value confirms")
	}
}

// TestAgreeingIsLate: of two groups of equal size that do not agree with each other the later one says the time.
func TestAgreeingIsLate(t *testing.T) {
	at := func(d time.Duration) Answer { return Answer{Time: now.Add(d)} }
	day := 24 * time.Hour
	answers := []Answer{at(0), at(-30 * day), at(-30*day + time.Minute), at(time.Minute)}
	if got := agreeing(answers); len(got) != 2 || !got[0].Time.Equal(now) {
		t.Errorf("got %+v", got)
	}
	if got := agreeing(slices.Clone(answers[1:])); len(got) != 2 || !got[0].Time.Equal(now.Add(-30*day)) {
		t.Errorf("of three, two agree: got %+v", got)
	}
}

// TestPolicyAnswersStay: an answer about the policy has the bytes that it had before there were releases, and none may have a least.
func TestPolicyAnswersStay(t *testing.T) {
	a := Answer{Kind: Kind, Witness: "ida", Fleet: "lab", Nonce: strings.Repeat("ab", 32), Subject: SubjectPolicy, Version: 7, SHA256: Sum(nil), Time: now}
	data, err := canonical.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"kind\": \"mayfly-witness/1\",\n  \"witness\": \"ida\",\n  \"fleet\": \"lab\",\n  \"nonce\": \"" + a.Nonce + "\",\n  \"subject\": \"policy\",\n  \"version\": 7,\n  \"sha256\": \"" +
		a.SHA256 + "\",\n  \"time\": \"2026-11-20T12:00:00Z\"\n}\n"
	if string(data) != want {
		t.Errorf("got %s, want %s", data, want)
	}
	for _, tt := range []struct {
		subject        string
		version, least uint64
		ok             bool
	}{{SubjectPolicy, 7, 0, true}, {SubjectPolicy, 7, 1, false}, {SubjectRelease, 7, 0, false}, {SubjectRelease, 7, 8, false}, {SubjectRelease, 7, 7, true}, {"trust", 7, 1, false}} {
		_, err := SignRelease(newTrio(t).ida, "ida", Question{Kind: KindQuestion, Fleet: "lab", Subject: tt.subject, Nonce: a.Nonce}, tt.version, tt.least, a.SHA256, now)
		if (err == nil) != tt.ok {
			t.Errorf("%s %d, least %d: got %v, want ok %t", tt.subject, tt.version, tt.least, err, tt.ok)
		}
	}
}

func FuzzJudgeRelease(f *testing.F) {
	x := newTrio(f)
	q := Ask("lab", SubjectRelease)
	this := Sum([]byte("this"))
	ida := signRelease(f, x.ida, "ida", q, 7, 5, this, now)
	jon := signRelease(f, x.jon, "jon", q, 7, 5, this, now.Add(time.Second))
	f.Add(jon)
	f.Add(ida)
	f.Add(signRelease(f, x.jon, "jon", q, 8, 8, this, now))
	f.Add(signRelease(f, x.stranger, "jon", q, 8, 8, this, now))
	f.Add(bytes.Replace(jon, []byte(`\"least\": 5`), []byte(`\"least\": 1`), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Open(x.Trust, data)
		v := JudgeRelease(x.Trust, q, 7, this, [][]byte{ida, data})
		// What no witness signed changes nothing.
		if err != nil && (v.Fresh || v.Reason != Missing || len(v.Witnesses) != 1) {
			t.Errorf("%q: %v, and yet %+v", data, err, v)
		}
		if v.Fresh && (a.Witness == "ida" || a.Least > 7 || v.Time.IsZero()) {
			t.Errorf("%q: accepted as %+v", data, v)
		}
	})
}
