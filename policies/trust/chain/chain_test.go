package chain

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

func signer(t *testing.T, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func person(name string, s ssh.Signer) trust.Person {
	return trust.Person{Name: name, Keys: []string{trust.FormatKey(s.PublicKey())}}
}

// lab is a directory with versions 1 to 3 in it. Version 2 has bert's key replaced, version 3 another threshold.
type lab struct {
	dir      string
	versions [4]*trust.Trust
	data     [4][]byte
}

func newLab(t *testing.T) lab {
	t.Helper()
	l := lab{dir: filepath.Join(t.TempDir(), "trust")}
	anna, bert, cleo := signer(t, 'a'), signer(t, 'b'), signer(t, 'c')
	root := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2,
		Approvers:  []trust.Person{person("anna", anna), person("bert", bert), person("cleo", cleo)},
		TicketKeys: []string{trust.FormatKey(signer(t, 't').PublicKey())}, ListKeys: []string{trust.FormatKey(signer(t, 'l').PublicKey())}}
	l.write(t, root)
	second := *l.versions[1]
	second.Approvers = []trust.Person{person("anna", anna), person("bert", signer(t, 'B')), person("cleo", cleo)}
	l.follow(t, &second, anna, cleo)
	third := *l.versions[2]
	third.Threshold = 3
	l.follow(t, &third, anna, cleo, signer(t, 'B'))
	return l
}

func (l *lab) follow(t *testing.T, next *trust.Trust, by ...ssh.Signer) {
	t.Helper()
	next.Version++
	next.Previous = l.versions[next.Version-1].Sum()
	l.write(t, next, by...)
}

func (l *lab) write(t *testing.T, next *trust.Trust, by ...ssh.Signer) {
	t.Helper()
	data, err := next.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var sigs []byte
	for _, s := range by {
		block, err := sshsig.Sign(s, trust.Namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, block...)
	}
	if err := Write(l.dir, next.Version, data, sigs); err != nil {
		t.Fatal(err)
	}
	if l.versions[next.Version], err = trust.Parse(data); err != nil {
		t.Fatal(err)
	}
	l.data[next.Version] = data
}

func TestFollow(t *testing.T) {
	l := newLab(t)
	for from, want := range map[int]int{1: 2, 2: 1, 3: 0} {
		newest, steps, err := Follow(l.versions[from], l.dir)
		if err != nil || newest.Version != 3 || len(steps) != want {
			t.Errorf("from %d: got %v, %d steps, %v, want version 3 after %d", from, newest, len(steps), err, want)
		}
	}
	if newest, steps, err := Follow(l.versions[1], filepath.Join(l.dir, "nowhere")); err != nil || newest != l.versions[1] || len(steps) != 0 {
		t.Errorf("no directory: got %v, %v, %v", newest, steps, err)
	}
	for name, change := range map[string]func(dir string) error{
		"unsigned":      func(dir string) error { return os.Remove(SignatureFile(dir, 2)) },
		"of another":    func(dir string) error { return os.WriteFile(File(dir, 3), l.data[2], 0o644) },
		"junk behind":   func(dir string) error { return os.WriteFile(File(dir, 4), []byte("x"), 0o644) },
		"empty behind":  func(dir string) error { return os.WriteFile(File(dir, 4), nil, 0o644) },
		"too long":      func(dir string) error { return os.WriteFile(File(dir, 4), make([]byte, trust.MaxSize+1), 0o644) },
		"a directory":   func(dir string) error { return os.Mkdir(File(dir, 4), 0o755) },
		"a pipe":        func(dir string) error { return syscall.Mkfifo(File(dir, 4), 0o644) },
		"a pipe beside": func(dir string) error { return replace(SignatureFile(dir, 3)) },
	} {
		l := newLab(t)
		if err := change(l.dir); err != nil {
			t.Fatal(err)
		}
		newest, _, err := Follow(l.versions[1], l.dir)
		if err == nil || newest != nil || hint.Of(err) == "" {
			t.Errorf("%s: got %v, %v, want an error with a hint", name, newest, err)
		}
	}
}

func replace(path string) error {
	return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o644))
}

// Reach stops at what it looks for, so that junk behind it stops nobody.
func TestReach(t *testing.T) {
	l := newLab(t)
	if err := os.WriteFile(File(l.dir, 4), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, wanted := range []int{2, 3} {
		newest, steps, err := Reach(l.versions[1], l.data[wanted], l.dir)
		if err != nil || int(newest.Version) != wanted || len(steps) != wanted-1 {
			t.Errorf("%d: got %v, %d steps, %v", wanted, newest, len(steps), err)
		}
	}
	for _, tt := range []struct {
		name   string
		from   *trust.Trust
		wanted []byte
	}{
		{"back", l.versions[3], l.data[2]},
		{"back at the end", l.versions[2], l.data[1]},
		{"aside", l.versions[1], append([]byte(" "), l.data[3]...)},
	} {
		if newest, _, err := Reach(tt.from, tt.wanted, l.dir); err == nil || newest != nil || hint.Of(err) == "" {
			t.Errorf("%s: got %v, %v, want an error with a hint", tt.name, newest, err)
		}
	}
}

func TestSeen(t *testing.T) {
	l := newLab(t)
	path := filepath.Join(t.TempDir(), "seen")
	none, err := ReadSeen(path)
	if err != nil || none != (Seen{}) {
		t.Fatalf("got %v, %v, want none", none, err)
	}
	second := Seen{2, l.versions[2].Sum()}
	if err := second.Remember(path); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadSeen(path); err != nil || got != second {
		t.Errorf("got %v, %v, want %v", got, err, second)
	}
	_, steps, err := Follow(l.versions[1], l.dir)
	if err != nil {
		t.Fatal(err)
	}
	whole := Passed(l.versions[1], steps)
	for _, tt := range []struct {
		name   string
		seen   Seen
		newest uint64
		passed map[uint64]string
		want   string
	}{
		{"none", Seen{}, 1, Passed(l.versions[1], nil), ""},
		{"further", second, 3, whole, ""},
		{"a newer root", second, 3, Passed(l.versions[3], nil), ""},
		{"the same", Seen{3, l.versions[3].Sum()}, 3, whole, ""},
		{"back", second, 1, Passed(l.versions[1], nil), trust.Older},
		{"aside", Seen{3, l.versions[2].Sum()}, 3, whole, trust.Forked},
		{"aside below", Seen{2, l.versions[3].Sum()}, 3, whole, trust.Forked},
	} {
		err := tt.seen.Check(tt.newest, tt.passed)
		if r := (*trust.Refusal)(nil); tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &r) || r.Reason != tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	for _, text := range []string{"", "x", "0 " + second.Sum + "\n", "2\n", "2 \n", "2 " + second.Sum, "02 " + second.Sum + "\n", strings.Repeat("1", maxSeen+1)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSeen(path); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
