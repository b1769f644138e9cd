package renewal

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
)

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestRequest(t *testing.T) {
	key, other := newKey(t), newKey(t)
	now := time.Date(2030, 1, 1, 12, 0, 0, 5, time.UTC)
	good, err := Make(key, "lab", "bastion-1", now)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{now, now.Add(MaxSkew), now.Add(-MaxSkew)} {
		got, err := good.Check("lab", at)
		if err != nil || string(got.Marshal()) != string(key.PublicKey().Marshal()) {
			t.Errorf("at %s: got %v, %v", at, got, err)
		}
	}
	foreign, err := Make(other, "lab", "bastion-1", now)
	if err != nil {
		t.Fatal(err)
	}
	message, err := good.message()
	if err != nil {
		t.Fatal(err)
	}
	wrongNamespace, err := sshsig.Sign(key, "mayfly-policy", message)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Request)
		at     time.Time
		want   string
	}{
		{"other fleet", func(r *Request) { r.Fleet = "prod" }, now, "not \"lab\""},
		{"other host", func(r *Request) { r.Host = "bastion-2" }, now, "signature"},
		{"no host", func(r *Request) { r.Host = "" }, now, "no name"},
		{"host of other characters", func(r *Request) { r.Host = "../x" }, now, "no name"},
		{"later than signed", func(r *Request) { r.Time = r.Time.Add(time.Second) }, now, "signature"},
		{"old", func(*Request) {}, now.Add(MaxSkew + time.Second), "not now"},
		{"ahead", func(*Request) {}, now.Add(-MaxSkew - time.Second), "not now"},
		{"other zone", func(r *Request) { r.Time = r.Time.In(time.FixedZone("", 3600)) }, now, "UTC"},
		{"unsigned", func(r *Request) { r.Signature = nil }, now, "not one signature"},
		{"two signatures", func(r *Request) { r.Signature = append(slices.Clone(r.Signature), foreign.Signature...) }, now, "not one signature"},
		{"for another purpose", func(r *Request) { r.Signature = wrongNamespace }, now, "namespace"},
	} {
		r := good
		tt.change(&r)
		if _, err := r.Check("lab", tt.at); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	late := good
	if _, err := late.Check("lab", now.Add(time.Hour)); !errors.Is(err, ErrTime) {
		t.Errorf("an old request: %v", err)
	}
}

// TestKeep: renewed at half life, soon again after a failure, ever less often while failures go on, and never later than the certificate
// ends if the signer comes back before.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began := time.Now()
		var at []time.Duration
		var pauses []time.Duration
		broken := func() bool { s := time.Since(began); return s >= 29*time.Minute && s < 45*time.Minute }
		done := make(chan struct{})
		go func() {
			defer close(done)
			Keep(ctx, time.Time{}, func(context.Context) (time.Time, error) {
				if broken() {
					return time.Time{}, errors.New("no signer")
				}
				at = append(at, time.Since(began))
				return time.Now().Add(time.Hour), nil
			}, func(_ error, p time.Duration) { pauses = append(pauses, p) })
		}()
		time.Sleep(3 * time.Hour)
		cancel()
		<-done
		if len(at) < 6 || at[0] != 0 {
			t.Fatalf("renewed at %v", at)
		}
		if at[1] < 45*time.Minute || at[1] > 45*time.Minute+maxPause*5/4 {
			t.Errorf("after the signer came back at 45 min: renewed at %s", at[1])
		}
		for i := 2; i < len(at); i++ {
			if d := at[i] - at[i-1]; d != 30*time.Minute {
				t.Errorf("renewals %d and %d are %s apart", i-1, i, d)
			}
		}
		if len(pauses) < 15 || len(pauses) > 25 {
			t.Errorf("%d tries in 15 minutes", len(pauses))
		}
		for i, p := range pauses {
			if want := min(firstPause<<i, maxPause); i < 10 && (p < want*3/4 || p > want*5/4) {
				t.Errorf("pause %d is %s, want about %s", i, p, want)
			}
		}
	})
}

// TestKeepWaits: what is young is left alone, and a signer that gives certificates of no length is not asked without end.
func TestKeepWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began, n := time.Now(), 0
		Keep(ctx, began.Add(10*time.Minute), func(context.Context) (time.Time, error) {
			if n++; n == 1 && time.Since(began) != 10*time.Minute {
				t.Errorf("first asked after %s", time.Since(began))
			}
			return time.Now().Add(-time.Hour), nil
		}, func(error, time.Duration) {})
		if limit := int(50 * time.Minute / leastWait); n > limit+1 {
			t.Errorf("asked %d times, at most %d", n, limit)
		}
	})
}

// FuzzRequest: whatever comes is refused or is signed by an Ed25519 key.
func FuzzRequest(f *testing.F) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	r, err := Make(newKey(f), "lab", "bastion-1", now)
	if err != nil {
		f.Fatal(err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"fleet":"lab","host":"x","time":"2030-01-01T00:00:00Z","signature":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		if json.Unmarshal(data, &r) != nil {
			return
		}
		if key, err := r.Check("lab", now); err == nil && key.Type() != ssh.KeyAlgoED25519 {
			t.Errorf("signed by %s", key.Type())
		}
	})
}
