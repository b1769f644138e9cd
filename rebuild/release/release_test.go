package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

var now = time.Date(2026, time.November, 20, 12, 0, 0, 0, time.UTC)

func signer(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func policy(t testing.TB) *trust.Trust {
	t.Helper()
	p := &trust.Trust{Kind: trust.Kind, Fleet: "demo", Test: true, Version: 1, Threshold: 2, MinRelease: 3}
	for i, name := range []string{"ana", "ben", "cleo"} {
		p.Approvers = append(p.Approvers, trust.Person{Name: name, Keys: []string{trust.FormatKey(signer(t, byte(i+1)).PublicKey())}})
	}
	// ben has a second key, which does not make him two people.
	p.Approvers[1].Keys = append(p.Approvers[1].Keys, trust.FormatKey(signer(t, 9).PublicKey()))
	return p
}

func statement() Statement {
	part := Part{Size: 3, SHA256: strings.Repeat("ab", 32)}
	return Statement{
		Kind: Kind, Fleet: "demo", Version: 7, Least: 5, Profile: ProfileCloud, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), MaxAge: 86400,
		Kernel: part, Stub: part, Root: part, Cmdline: "console=ttyS0 quiet", Lock: strings.Repeat("cd", 32), MinPolicy: 1,
	}
}

func marshal(t testing.TB, s Statement) []byte {
	t.Helper()
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func sign(t testing.TB, data []byte, seeds ...byte) []byte {
	t.Helper()
	var out []byte
	for _, seed := range seeds {
		sig, err := sshsig.Sign(signer(t, seed), Namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sig...)
	}
	return out
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	return "not a refusal: " + err.Error()
}

func TestVerify(t *testing.T) {
	good := marshal(t, statement())
	change := func(f func(*Statement)) []byte {
		s := statement()
		f(&s)
		return marshal(t, s)
	}
	old := change(func(s *Statement) { s.Version, s.Least = 2, 1 })
	other := change(func(s *Statement) { s.Fleet = "else" })
	loose := bytes.Replace(good, []byte(`  "fleet"`), []byte(`   "fleet"`), 1)
	unknown := bytes.Replace(good, []byte(`  "fleet"`), []byte("  \"more\": 1,\n  \"fleet\""), 1)
	forOther, err := sshsig.Sign(signer(t, 1), "mayfly-policy", good)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		data []byte
		sigs []byte
		now  time.Time
		want string
	}{
		{"two of three", good, sign(t, good, 1, 2), now, ""},
		{"the other order, and rubbish between", good, append(sign(t, good, 3), append([]byte("rubbish\n"), sign(t, good, 1)...)...), now, ""},
		{"three of three", good, sign(t, good, 1, 2, 3), now, ""},
		{"nobody", good, nil, now, Unsigned},
		{"one", good, sign(t, good, 1), now, Unsigned},
		{"the same person twice", good, sign(t, good, 1, 1), now, Unsigned},
		{"one person's two keys", good, sign(t, good, 2, 9), now, Unsigned},
		{"one and a stranger", good, sign(t, good, 1, 8), now, Unsigned},
		{"for another namespace", good, append(sign(t, good, 2), forOther...), now, Unsigned},
		{"other bytes", append(bytes.Clone(good), '\n'), sign(t, good, 1, 2), now, Unsigned},
		{"signatures over the limit", good, make([]byte, trust.MaxSignatureBytes+1), now, Unsigned},
		{"statement over the limit", make([]byte, MaxStatement+1), nil, now, Malformed},
		{"signed, not canonical", loose, sign(t, loose, 1, 2), now, Malformed},
		{"signed, unknown field", unknown, sign(t, unknown, 1, 2), now, Malformed},
		{"other fleet", other, sign(t, other, 1, 2), now, OtherFleet},
		{"older than allowed", old, sign(t, old, 1, 2), now, Older},
		{"not yet", good, sign(t, good, 1, 2), now.Add(-2 * time.Hour), NotYet},
		{"expired", good, sign(t, good, 1, 2), now.Add(time.Hour), Expired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Verify(policy(t), tt.data, tt.sigs, tt.now)
			if got := reasonOf(err); got != tt.want {
				t.Fatalf("Verify: reason %q, want %q (%v)", got, tt.want, err)
			}
			if (s != nil) != (tt.want == "") {
				t.Errorf("Verify: statement %v with error %v", s, err)
			}
		})
	}
	for name, p := range map[string]*trust.Trust{"nil": nil, "zero": {}} {
		if _, err := Verify(p, good, sign(t, good, 1, 2), now); reasonOf(err) != Unsigned {
			t.Errorf("Verify with a %s trust policy: %v, want %s", name, err, Unsigned)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]func(*Statement){
		"kind":           func(s *Statement) { s.Kind = "mayfly-release/1" },
		"least 0":        func(s *Statement) { s.Least = 0 },
		"least too high": func(s *Statement) { s.Least = s.Version + 1 },
		"profile":        func(s *Statement) { s.Profile = "" },
		"name newline":   func(s *Statement) { s.Name = "a\nb" },
		"uki alone":      func(s *Statement) { s.UKI = &Part{Size: 1, SHA256: strings.Repeat("ab", 32)} },
		"uki hash short": func(s *Statement) {
			s.UKI, s.UKIAuthenticode, s.KernelAuthenticode = &Part{Size: 1, SHA256: strings.Repeat("ab", 32)}, "ab", strings.Repeat("ab", 32)
		},
		"no fleet":        func(s *Statement) { s.Fleet = "" },
		"version 0":       func(s *Statement) { s.Version = 0 },
		"window reversed": func(s *Statement) { s.NotAfter = s.NotBefore },
		"not UTC":         func(s *Statement) { s.NotAfter = s.NotAfter.In(time.FixedZone("x", 3600)) },
		"no max age":      func(s *Statement) { s.MaxAge = 0 },
		"max age too big": func(s *Statement) { s.MaxAge = int64(MaxLife/time.Second) + 1 },
		"hash upper case": func(s *Statement) { s.Root.SHA256 = strings.ToUpper(s.Root.SHA256) },
		"hash short":      func(s *Statement) { s.Kernel.SHA256 = "ab" },
		"size 0":          func(s *Statement) { s.Stub.Size = 0 },
		"size too big":    func(s *Statement) { s.Root.Size = MaxPart + 1 },
		"lock":            func(s *Statement) { s.Lock = "" },
		"cmdline newline": func(s *Statement) { s.Cmdline = "a\nb" },
		"cmdline long":    func(s *Statement) { s.Cmdline = strings.Repeat("a", MaxCmdline+1) },
	}
	for name, f := range tests {
		s := statement()
		f(&s)
		if _, err := s.Marshal(); err == nil {
			t.Errorf("%s: Marshal gave no error", name)
		}
	}
}

func TestPartCopy(t *testing.T) {
	content := bytes.Repeat([]byte("mayfly "), 100_000)
	sum := sha256.Sum256(content)
	part := Part{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	altered := bytes.Clone(content)
	altered[len(altered)/2] ^= 1
	tests := []struct {
		name string
		part Part
		src  io.Reader
		want string
	}{
		{"same", part, bytes.NewReader(content), ""},
		{"same, end with the last bytes", part, iotest.DataErrReader(bytes.NewReader(content)), ""},
		{"same, in halves", part, iotest.HalfReader(bytes.NewReader(content)), ""},
		{"truncated", part, bytes.NewReader(content[:len(content)-1]), PartTruncated},
		{"empty", part, bytes.NewReader(nil), PartTruncated},
		{"one byte more", part, bytes.NewReader(append(bytes.Clone(content), 0)), PartOversize},
		{"endless", part, zeros{}, PartOversize},
		{"one bit altered", part, bytes.NewReader(altered), PartAltered},
		{"zero part", Part{}, bytes.NewReader(nil), PartAltered},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var dst bytes.Buffer
			err := tt.part.Copy(&dst, tt.src)
			if got := reasonOf(err); got != tt.want {
				t.Fatalf("Copy: reason %q, want %q (%v)", got, tt.want, err)
			}
			if int64(dst.Len()) > tt.part.Size {
				t.Errorf("Copy wrote %d bytes, more than the %d signed", dst.Len(), tt.part.Size)
			}
		})
	}
	broken := io.MultiReader(bytes.NewReader(content[:10]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if err := part.Copy(io.Discard, broken); err == nil || !strings.HasPrefix(reasonOf(err), "not a refusal") {
		t.Errorf("Copy from a connection that breaks: %v, want an error that is no refusal", err)
	}
	if err := part.Copy(io.Discard, iotest.TimeoutReader(bytes.NewReader(content))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("Copy from a reader that times out: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzParse(f *testing.F) {
	good := marshal(f, statement())
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("7"), []byte("-7"), 1))
	f.Add(bytes.Replace(good, []byte("2026"), []byte("9999"), 1))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"kind":"mayfly-release/2"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("Parse accepted what Marshal does not give back: %v", err)
		}
	})
}
