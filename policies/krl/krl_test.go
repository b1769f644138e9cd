package krl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// keygen runs the machine's ssh-keygen in a directory of the test.
type keygen struct {
	t    testing.TB
	path string
	dir  string
}

func newKeygen(t testing.TB) keygen {
	path, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("no ssh-keygen on this machine: apt-get install openssh-client")
	}
	return keygen{t, path, t.TempDir()}
}

func (k keygen) run(args ...string) ([]byte, error) {
	cmd := exec.Command(k.path, args...)
	cmd.Dir = k.dir
	return cmd.CombinedOutput()
}

func (k keygen) must(args ...string) {
	k.t.Helper()
	if out, err := k.run(args...); err != nil {
		k.t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
	}
}

func (k keygen) write(name, text string) {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

func (k keygen) read(name string) []byte {
	k.t.Helper()
	data, err := os.ReadFile(filepath.Join(k.dir, name))
	if err != nil {
		k.t.Fatal(err)
	}
	return data
}

// revoked is this package's verdict on a public key or certificate file.
func (k keygen) revoked(l *List, name string) string {
	k.t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey(k.read(name))
	if err != nil {
		k.t.Fatal(err)
	}
	if c, ok := key.(*ssh.Certificate); ok {
		return l.Certificate(c.Key.Marshal(), c.SignatureKey.Marshal(), c.Serial, c.KeyId)
	}
	return l.Key(key.Marshal())
}

// specifications are what ssh-keygen -k is told; %s is a fingerprint of key u2.
var specifications = map[string]string{
	"nothing":          "",
	"key":              "key: u1.pub",
	"hash":             "hash: SHA256:u2",
	"sha1":             "sha1: u1.pub",
	"sha256":           "sha256: u2.pub",
	"serial":           "serial: 7",
	"serials":          "serial: 1\nserial: 7\nserial: 1000000",
	"serials together": "serial: 1\nserial: 2\nserial: 3\nserial: 5\nserial: 7\nserial: 8\nserial: 11\nserial: 13\nserial: 17",
	"serial range":     "serial: 5-900",
	"wide range":       "serial: 1000-18446744073709551615",
	"largest":          "serial: 18446744073709551615",
	"id":               "id: anna's laptop",
	"ids":              "id: bert\nid: anna's laptop",
	"all":              "serial: 5-900\nid: bert\nkey: u3.pub\nsha1: u1.pub\nsha256: u2.pub",
	"the authority":    "key: ca1.pub",
}

// TestAsOpenSSH compares verdicts with ssh-keygen -Q: every specification, for one authority and for every one, on every key and certificate.
func TestAsOpenSSH(t *testing.T) {
	k := newKeygen(t)
	for _, name := range []string{"ca1", "ca2", "u1", "u2", "u3"} {
		k.must("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name)
	}
	k.must("-q", "-t", "ecdsa", "-N", "", "-C", "u4", "-f", "u4")
	files := []string{"u1.pub", "u2.pub", "u3.pub", "u4.pub", "ca1.pub"}
	n := 0
	for _, ca := range []string{"ca1", "ca2"} {
		for _, serial := range []string{"0", "1", "2", "4", "5", "7", "17", "900", "901", "1000000", "18446744073709551615"} {
			user, id := fmt.Sprintf("u%d", 1+n%4), []string{"anna's laptop", "bert", "carl"}[n%3]
			n++
			k.write("c.pub", string(k.read(user+".pub")))
			k.must("-q", "-s", ca, "-I", id, "-n", "anna", "-z", serial, "c.pub")
			name := fmt.Sprintf("%s-%s-cert.pub", ca, serial)
			if err := os.Rename(filepath.Join(k.dir, "c-cert.pub"), filepath.Join(k.dir, name)); err != nil {
				t.Fatal(err)
			}
			files = append(files, name)
		}
	}
	out, err := k.run("-l", "-f", "u2.pub")
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := strings.Fields(string(out))[1]
	compared, revoked := 0, 0
	for what, specification := range specifications {
		specification = strings.ReplaceAll(specification, "SHA256:u2", fingerprint)
		for line := range strings.Lines(specification) { // keys are given as lines, not as files
			line = strings.TrimSpace(line)
			kind, file, _ := strings.Cut(line, ": ")
			if strings.HasSuffix(file, ".pub") {
				specification = strings.ReplaceAll(specification, line, kind+": "+strings.TrimSpace(string(k.read(file))))
			}
		}
		k.write("spec", specification+"\n")
		for _, ca := range []string{"ca1.pub", "none"} {
			k.must("-q", "-k", "-f", "list", "-z", "9", "-s", ca, "spec")
			l, err := Parse(k.read("list"))
			if err != nil {
				t.Errorf("%s of %s: %v", what, ca, err)
				continue
			}
			if l.Version != 9 || l.Generated().Year() < 2020 {
				t.Errorf("%s: version %d, generated %s", what, l.Version, l.Generated())
			}
			out, _ := k.run(append([]string{"-Q", "-f", "list"}, files...)...) // it fails if one is revoked
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if len(lines) != len(files) {
				t.Fatalf("ssh-keygen -Q: %s", out)
			}
			for i, f := range files {
				want := strings.HasSuffix(lines[i], ": REVOKED")
				if !strings.HasPrefix(lines[i], f) || !want && !strings.HasSuffix(lines[i], ": ok") {
					t.Fatalf("ssh-keygen -Q: %s", lines[i])
				}
				if got := k.revoked(l, f); (got != "") != want {
					t.Errorf("%s of %s: %s: got %q, ssh-keygen says %s", what, ca, f, got, lines[i])
				}
				compared++
				if want {
					revoked++
				}
			}
		}
	}
	t.Logf("%d verdicts compared, %d of them revoked", compared, revoked)
	if compared < 500 || revoked < 100 {
		t.Error("too few to say anything")
	}
}

// text is a field of SSH's wire form.
func text(s string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func u64(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// list is a list with these sections.
func list(sections ...string) []byte {
	head := u64(magic) + "\x00\x00\x00\x01" + u64(9) + u64(1893456000) + u64(0) + text("") + text("made by a test")
	return []byte(head + strings.Join(sections, ""))
}

func certificates(ca string, subsections ...string) string {
	return "\x01" + text(text(ca)+text("")+strings.Join(subsections, ""))
}

func TestParse(t *testing.T) {
	l, err := Parse(list(
		certificates("", "\x20"+text(u64(3)+u64(1<<40)), "\x21"+text(u64(10)+u64(20)), "\x22"+text(u64(100)+text("\x00\x80\x01")), "\x23"+text(text("lost")+text(""))),
		certificates("", "\x21"+text(u64(50)+u64(50))),
		"\x02"+text(text("blob")), "\xff"+text(text("note")+"\x00"+text("anything")),
	))
	if err != nil {
		t.Fatal(err)
	}
	if l.Comment != "made by a test" || l.Version != 9 || l.Generated().Unix() != 1893456000 {
		t.Errorf("got %+v", l)
	}
	for serial, want := range map[uint64]bool{0: false, 2: false, 3: true, 1 << 40: true, 9: false, 10: true, 20: true, 21: false, 50: true,
		99: false, 100: true, 101: false, 114: false, 115: true, 116: false, 1 << 63: false} {
		if got := l.Certificate([]byte("k"), []byte("any"), serial, "id") == "serial"; got != want {
			t.Errorf("serial %d: got %v, want %v", serial, got, want)
		}
	}
	for _, tt := range []struct{ key, ca, id, want string }{
		{"blob", "ca", "", "key"}, {"k", "blob", "x", "authority"}, {"k", "ca", "lost", "key_id"}, {"k", "ca", "", "key_id"}, {"k", "ca", "other", ""},
	} {
		if got := l.Certificate([]byte(tt.key), []byte(tt.ca), 0, tt.id); got != tt.want {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
	var none List
	if none.Key([]byte("blob")) != "" || none.Certificate([]byte("blob"), []byte("ca"), 3, "lost") != "" {
		t.Error("the empty list revokes")
	}
}

func TestParseRefuses(t *testing.T) {
	good := list("\x02" + text(text("blob")))
	flagged, reserved, version := bytes.Clone(good), []byte(u64(magic)+"\x00\x00\x00\x01"+u64(9)+u64(1)+u64(0)+text("x")+text("")), bytes.Clone(good)
	flagged[35], version[11] = 1, 2
	for name, data := range map[string][]byte{
		"nothing":                    nil,
		"a text list":                []byte("ssh-ed25519 AAAA\n"),
		"format version":             version,
		"flags":                      flagged,
		"reserved":                   reserved,
		"a byte more":                append(bytes.Clone(good), 0),
		"too long":                   append(bytes.Clone(good), make([]byte, MaxSize)...),
		"no keys":                    list("\x02" + text("")),
		"an empty key":               list("\x02" + text(text(""))),
		"half a key":                 list("\x02" + text("\x00\x00\x00\x04blo")),
		"a huge length":              list("\x02" + text("\xff\xff\xff\xffblob")),
		"short SHA-1":                list("\x03" + text(text("0123456789"))),
		"long SHA-1":                 list("\x03" + text(text("012345678901234567890"))),
		"short SHA-256":              list("\x05" + text(text("01234567890123456789"))),
		"signature":                  list("\x04" + text("key") + text("sig")),
		"unknown section":            list("\x06" + text("")),
		"critical extension":         list("\xff" + text(text("x")+"\x01"+text(""))),
		"extension with more":        list("\xff" + text(text("x")+"\x00"+text("")+"x")),
		"authority that is no key":   list(certificates("ca", "\x20"+text(u64(1)))),
		"reserved of certificates":   list("\x01" + text(text("")+text("x"))),
		"unknown subsection":         list(certificates("", "\x30"+text(""))),
		"critical cert extension":    list(certificates("", "\x39"+text(text("x")+"\x01"+text("")))),
		"no serials":                 list(certificates("", "\x20"+text(""))),
		"serial 0":                   list(certificates("", "\x20"+text(u64(0)))),
		"half a serial":              list(certificates("", "\x20"+text(u64(1)+"x"))),
		"range from 0":               list(certificates("", "\x21"+text(u64(0)+u64(1)))),
		"range backwards":            list(certificates("", "\x21"+text(u64(2)+u64(1)))),
		"half a range":               list(certificates("", "\x21"+text(u64(2)))),
		"range and more":             list(certificates("", "\x21"+text(u64(2)+u64(3)+"x"))),
		"empty bitmap":               list(certificates("", "\x22"+text(u64(1)+text("")))),
		"negative bitmap":            list(certificates("", "\x22"+text(u64(1)+text("\x80")))),
		"bitmap past the end":        list(certificates("", "\x22"+text(u64(1<<64-3)+text("\x01")))),
		"bitmap of serial 0":         list(certificates("", "\x22"+text(u64(0)+text("\x01")))),
		"bitmap too long":            list(certificates("", "\x22"+text(u64(1)+text(strings.Repeat("\x01", maxBitmap+1))))),
		"no key IDs":                 list(certificates("", "\x23"+text(""))),
		"key ID too long":            list(certificates("", "\x23"+text(text(strings.Repeat("x", maxText+1))))),
		"more sections than allowed": list(strings.Repeat("\xff"+text(text("x")+"\x00"+text("")), maxSections+1)),
	} {
		if l, err := Parse(data); err == nil {
			t.Errorf("%s: got %+v, want an error", name, l)
		}
	}
	for n := range good {
		if n == 44+len("made by a test") { // the head alone is a list of nothing
			continue
		}
		if _, err := Parse(good[:n]); err == nil {
			t.Errorf("cut off after %d bytes: no error", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.krl")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds: ", err)
	}
	for _, name := range seeds {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(list(certificates("", "\x22"+text(u64(100)+text("\x00\x80\x01")), "\x39"+text(text("x")+"\x00"+text("")))))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			if l != nil {
				t.Error("a list beside an error")
			}
			return
		}
		for blob := range l.keys {
			if l.Key([]byte(blob)) == "" || l.Certificate([]byte(blob), nil, 0, "") == "" {
				t.Error("a listed key is not revoked")
			}
		}
		for ca, a := range l.authorities {
			for serial := range a.serials {
				if l.Certificate([]byte("no such key"), []byte(ca), serial, "no such ID of a key") == "" {
					t.Errorf("serial %d is not revoked", serial)
				}
			}
			for id := range a.keyIDs {
				if l.Certificate([]byte("no such key"), []byte(ca), 0, id) == "" {
					t.Errorf("key ID %q is not revoked", id)
				}
			}
			for _, s := range a.spans {
				if l.Certificate([]byte("no such key"), []byte(ca), s.last, "no such ID of a key") == "" {
					t.Errorf("serial %d is not revoked", s.last)
				}
			}
		}
	})
}
