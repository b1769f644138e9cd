package witness

import (
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies/trust"
)

// The time is that of as many witnesses as the trust policy asks, each counted once, to this question.
func TestAgreedTime(t *testing.T) {
	x := newTrio(t)
	q := Ask("lab", SubjectRelease)
	answer := func(key ssh.Signer, name string, q Question, version uint64, at time.Time) []byte {
		t.Helper()
		data, err := SignRelease(key, name, q, version, 1, Sum([]byte(name)), at)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	ida := answer(x.ida, "ida", q, 7, now)
	jon := answer(x.jon, "jon", q, 8, now.Add(2*time.Second))
	kim := answer(x.kim, "kim", q, 1, now.Add(5*time.Second))
	far := answer(x.kim, "kim", q, 7, now.Add(-MaxSkew-time.Second))
	test := *x.Trust
	test.WitnessThreshold, test.Test = 0, true
	for _, tt := range []struct {
		name    string
		trust   *trust.Trust
		answers [][]byte
		want    time.Time // zero: none
	}{
		{"two, of different releases", x.Trust, [][]byte{ida, jon}, now.Add(2 * time.Second)},
		{"three", x.Trust, [][]byte{kim, ida, jon}, now.Add(2 * time.Second)},
		{"two, and one far behind", x.Trust, [][]byte{far, jon, ida}, now.Add(2 * time.Second)},
		{"one", x.Trust, [][]byte{ida}, time.Time{}},
		{"one twice", x.Trust, [][]byte{ida, ida}, time.Time{}},
		{"one with two keys", x.Trust, [][]byte{kim, answer(x.kim2, "kim", q, 7, now)}, time.Time{}},
		{"two that differ", x.Trust, [][]byte{ida, far}, time.Time{}},
		{"a stranger", x.Trust, [][]byte{ida, answer(x.stranger, "jon", q, 7, now)}, time.Time{}},
		{"to an earlier question", x.Trust, [][]byte{ida, answer(x.jon, "jon", Ask("lab", SubjectRelease), 7, now)}, time.Time{}},
		{"junk", x.Trust, [][]byte{nil, []byte("junk"), ida}, time.Time{}},
		{"nobody is asked", &test, [][]byte{ida, jon}, time.Time{}},
		{"no trust", nil, [][]byte{ida, jon}, time.Time{}},
	} {
		got, ok := AgreedTime(tt.trust, q, tt.answers)
		if ok == tt.want.IsZero() || !got.Equal(tt.want) {
			t.Errorf("%s: got %s, %v, want %s", tt.name, got, ok, tt.want)
		}
	}
}
