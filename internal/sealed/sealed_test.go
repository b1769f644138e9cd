package sealed

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testStore(t *testing.T) Store {
	dir := t.TempDir()
	return Store{Dir: filepath.Join(dir, "secrets"), Identity: filepath.Join(dir, "secrets.key")}
}

func TestSeal(t *testing.T) {
	s := testStore(t)
	if _, err := s.Open("sealed:bmc"); err == nil {
		t.Error("opened what is not there")
	}
	for _, secret := range []string{"first", "correct horse 7"} {
		if err := s.Seal("bmc", []byte(secret)); err != nil {
			t.Fatal(err)
		}
		got, err := s.Open("sealed:bmc")
		if err != nil || got.Reveal() != secret {
			t.Fatalf("got %q, %v", got.Reveal(), err)
		}
	}
	for _, path := range []string{s.Identity, filepath.Join(s.Dir, "bmc.age")} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v (%v)", path, info.Mode(), err)
		}
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, "bmc.age"))
	if err != nil || bytes.Contains(data, []byte("horse")) {
		t.Errorf("the file tells the secret (%v)", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "junk.age"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Name != "bmc" || !list[0].Good || list[1].Good {
		t.Errorf("List: %+v, %v", list, err)
	}
}

func TestRefuses(t *testing.T) {
	s := testStore(t)
	for name, secret := range map[string]string{"empty": "", "long": strings.Repeat("x", MaxSecret+1), "lines": "a\nb", "nul": "a\x00"} {
		if err := s.Seal("bmc", []byte(secret)); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	for _, name := range []string{"", "../x", "A", "a.b", "-a"} {
		if err := s.Seal(name, []byte("x")); err == nil {
			t.Errorf("name %q: sealed", name)
		}
		if _, err := Name(Prefix + name); err == nil {
			t.Errorf("name %q: taken", name)
		}
	}
	// Somebody wrote the password itself: it is not repeated.
	if _, err := s.Open("correct horse 7"); err == nil || strings.Contains(err.Error(), "horse") {
		t.Errorf("got %v", err)
	}
	if err := s.Seal("bmc", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.Identity, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("sealed:bmc"); err == nil || !strings.Contains(err.Error(), "others") {
		t.Errorf("identity that others can read: %v", err)
	}
	if err := os.WriteFile(s.Identity, []byte("AGE-SECRET-KEY-1JUNK"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.Identity, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("sealed:bmc"); err == nil || strings.Contains(err.Error(), "JUNK") {
		t.Errorf("an identity that is none: %v", err)
	}
}

func TestHide(t *testing.T) {
	secret := Secret{"geheim\u00df \"a&b/"}
	for _, text := range []string{secret.value, "geheim \"a&b/", "geheim\u00df \\\"a\\u0026b/", "geheim%C3%9F+%22a%26b%2F", "geheim%C3%9F%20%22a&b%2F",
		base64.StdEncoding.EncodeToString([]byte(secret.value))} {
		if got := secret.Hide("x " + text + " y"); got != "x (sealed) y" {
			t.Errorf("%q: got %q", text, got)
		}
	}
	if got := (Secret{"abc"}).Hide("x abc y"); got != "x (sealed) y" {
		t.Errorf("got %q", got)
	}
	if got := (Secret{}).Hide("x"); got != "x" {
		t.Errorf("got %q", got)
	}
}
