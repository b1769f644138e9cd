package policies

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

var cardKey = Key{Public: nistKey, Evidence: "piv", Challenge: "mayfly-challenge/1 lab bert 00112233445566778899aabbccddeeff 2030-01-01T00:00:00Z",
	Attestation: []string{"AAAA", "BBBB"}, Signature: "CCCC"}

var cardBlock = `
[[engineer.key]]
public = "` + nistKey + `"
evidence = "piv"
challenge = "mayfly-challenge/1 lab bert 00112233445566778899aabbccddeeff 2030-01-01T00:00:00Z"
attestation = [
  "AAAA",
  "BBBB",
]
signature = "CCCC"
`

// between is a file whose owner's tables end in every way that they can.
const between = `version = 7 # raised by hand
expires = 2030-02-01T00:00:00Z
# people

[[engineer]] # anna
name = "anna"
  [[engineer.key]]
  # her laptop's
  public = "a"
  evidence = "test:softkey" # since May

# bert came in June
[[engineer]]
name = "bert"   # no key yet

[hardware] # what counts
test_roots = [
  "softkey", # only in the lab
]

[[engineer]]
name = "carl"
[[engineer.key]]
public = "c"
evidence = """
test:softkey"""
# the end`

func TestAddKey(t *testing.T) {
	for _, tt := range []struct{ name, data, owner, after string }{
		{"an owner with keys", between, "anna", "evidence = \"test:softkey\" # since May\n"},
		{"an owner without", between, "bert", "name = \"bert\"   # no key yet\n"},
		{"the last", between, "carl", "test:softkey\"\"\"\n"},
		{"at the end of a file without its last newline", "version = 1\n[[engineer]]\nname = \"anna\"", "anna", "name = \"anna\""},
		{"a file with CRLF", strings.ReplaceAll(between, "\n", "\r\n"), "bert", "name = \"bert\"   # no key yet\r\n"},
		{"a key after another table", "[[engineer]]\nname = \"anna\"\n[hardware]\ntest_roots = []\n[[engineer.key]]\npublic = \"x\"\nevidence = \"y\"\n[image]\nmin_version = 1\n", "anna", "evidence = \"y\"\n"},
	} {
		got, err := AddKey("policy.toml", []byte(tt.data), tt.owner, cardKey)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		block := cardBlock
		if !strings.HasSuffix(tt.after, "\n") {
			block = "\n" + block
		}
		if strings.Contains(tt.data, "\r") {
			block = strings.ReplaceAll(block, "\n", "\r\n")
		}
		if want := strings.Replace(tt.data, tt.after, tt.after+block, 1); string(got) != want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, want)
		}
	}
	glass, err := AddKey("policy.toml", []byte(glassTOML), "glass", cardKey)
	if err != nil || !strings.HasSuffix(string(glass), strings.Replace(cardBlock, "[[engineer.key]]", "[[break_glass.key]]", 1)) {
		t.Errorf("break-glass: got %s, %v", glass, err)
	}
}

func TestEditRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func([]byte) ([]byte, error)
		data string
		want string
	}{
		{"an unknown owner", func(d []byte) ([]byte, error) { return AddKey("p", d, "dora", cardKey) }, between, `nobody is called "dora"`},
		{"no owner", func(d []byte) ([]byte, error) { return AddKey("p", d, "", cardKey) }, between, `nobody is called ""`},
		{"inline tables", func(d []byte) ([]byte, error) { return AddKey("p", d, "anna", cardKey) }, `engineer = [{name = "anna"}]`, "does not change"},
		{"inline keys", func(d []byte) ([]byte, error) { return AddKey("p", d, "anna", cardKey) }, "[[engineer]]\nname = \"anna\"\nkey = []\n", "does not change"},
		{"nobody's key", func(d []byte) ([]byte, error) { return RemoveKey("p", d, "x") }, between, "nobody has that key"},
		{"an inline key", func(d []byte) ([]byte, error) { return RemoveKey("p", d, "k") }, "[[engineer]]\nname = \"anna\"\nkey = [{public = \"k\"}]\n", "does not change"},
		{"an inline table", func(d []byte) ([]byte, error) { return RevokeFingerprint("p", d, "f") }, `hardware = {test_roots = []}`, "does not change"},
		{"revoked already", func(d []byte) ([]byte, error) { return RevokeFingerprint("p", d, "f") }, "[hardware]\nrevoked = [\"f\"]\n", "already"},
		{"no version", func(d []byte) ([]byte, error) { return SetVersion("p", d, 2) }, "[hardware]\n", "no version"},
	} {
		got, err := tt.edit([]byte(tt.data))
		if err == nil || got != nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %q, %v, want %q and a hint", tt.name, got, err, tt.want)
		}
	}
	if _, err := AddKey("p", []byte("version = "), "anna", cardKey); err == nil || !strings.HasPrefix(err.Error(), "p:1: ") {
		t.Errorf("a file that does not parse: got %v", err)
	}
}

func TestRemoveKey(t *testing.T) {
	for _, tt := range []struct{ name, data, public, gone string }{
		{"her only one", between, "a", "  [[engineer.key]]\n  # her laptop's\n  public = \"a\"\n  evidence = \"test:softkey\" # since May\n"},
		{"the last", between, "c", "[[engineer.key]]\npublic = \"c\"\nevidence = \"\"\"\ntest:softkey\"\"\"\n"},
		{"what was added", strings.Replace(between, "no key yet\n", "no key yet\n"+cardBlock, 1), nistKey, cardBlock},
		{"what was added to CRLF", strings.ReplaceAll(strings.Replace(between, "no key yet\n", "no key yet\n"+cardBlock, 1), "\n", "\r\n"), nistKey, strings.ReplaceAll(cardBlock, "\n", "\r\n")},
		{"of two", "[[engineer]]\nname = \"x\"\n\n[[engineer.key]]\npublic = \"1\"\n\n[[engineer.key]]\npublic = \"2\"\n", "2", "\n[[engineer.key]]\npublic = \"2\"\n"},
	} {
		got, err := RemoveKey("policy.toml", []byte(tt.data), tt.public)
		if want := strings.Replace(tt.data, tt.gone, "", 1); err != nil || string(got) != want {
			t.Errorf("%s: got\n%s\n%v, want\n%s", tt.name, got, err, want)
		}
	}
}

func TestRevokeFingerprint(t *testing.T) {
	for _, tt := range []struct{ name, data, old, new string }{
		{"a first one", between, "  \"softkey\", # only in the lab\n]\n", "  \"softkey\", # only in the lab\n]\nrevoked = [\"f\"]\n"},
		{"another", "[hardware]\nrevoked = [\"e\"] # lost\n", "[\"e\"]", "[\"f\", \"e\"]"},
		{"into nothing", "[hardware]\nrevoked = [ ]\n", "[ ]", "[\"f\",  ]"},
		{"a line each", "[hardware]\nrevoked = [\n  \"e\", # lost\n]\n", "[\n", "[\n  \"f\",\n"},
		{"without [hardware]", "version = 1\n", "version = 1\n", "version = 1\n\n[hardware]\nrevoked = [\"f\"]\n"},
		{"without a last newline", "version = 1", "version = 1", "version = 1\n\n[hardware]\nrevoked = [\"f\"]\n"},
		{"at the end without a last newline", "[hardware]", "[hardware]", "[hardware]\nrevoked = [\"f\"]\n"},
		{"with tables below alone", "version = 1\n[[hardware.test_issuer]]\nname = \"x\"\n", "[[", "[hardware]\nrevoked = [\"f\"]\n\n[["},
		{"with tables below", "[hardware]\n[[hardware.test_issuer]]\nname = \"x\"\n", "[hardware]\n", "[hardware]\nrevoked = [\"f\"]\n"},
		{"by a dotted key", "hardware.revoked = [\"e\"]\n", "[\"e\"]", "[\"f\", \"e\"]"},
	} {
		got, err := RevokeFingerprint("policy.toml", []byte(tt.data), "f")
		if want := strings.Replace(tt.data, tt.old, tt.new, 1); err != nil || string(got) != want {
			t.Errorf("%s: got\n%s\n%v, want\n%s", tt.name, got, err, want)
		}
	}
}

func TestSetVersion(t *testing.T) {
	got, err := SetVersion("policy.toml", []byte(between), 8)
	if want := strings.Replace(between, "version = 7 #", "version = 8 #", 1); err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

// FuzzEdit changes files that people wrote. What comes out says what was said before with the one change, every byte of the old file is
// still there in its order, and taking the key away again gives back what was there.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(between), "bert")
	f.Add([]byte(read(f)), "anna")
	f.Add([]byte(strings.ReplaceAll(between, "\n", "\r\n")), "carl")
	f.Add([]byte("[[engineer]]\nname = 'a'\nallow = ['''\n# x''']\n[[engineer.key]]\n#"), "a")
	f.Add([]byte("engineer = [{name = \"a\", key = []}]"), "a")
	f.Add([]byte(glassTOML), "glass")
	f.Fuzz(func(t *testing.T, data []byte, owner string) {
		before, err := Decode("f", data)
		if err != nil {
			return
		}
		added, err := AddKey("f", data, owner, cardKey)
		if err != nil {
			return
		}
		if !subsequence(data, added) {
			t.Errorf("bytes of %q are gone from %q", data, added)
		}
		after, err := Decode("f", added)
		if err != nil || before.Version != after.Version || !reflect.DeepEqual(before.Grants, after.Grants) || len(before.Engineers) != len(after.Engineers) {
			t.Fatalf("%q became %q, %v", data, added, err)
		}
		if slices.ContainsFunc(before.Engineers, func(e Engineer) bool {
			return slices.ContainsFunc(e.Keys, func(k Key) bool { return k.Public == cardKey.Public })
		}) {
			return
		}
		removed, err := RemoveKey("f", added, cardKey.Public)
		if err != nil {
			return // somebody else has it too, inline
		}
		again, err := Decode("f", removed)
		if err != nil || len(again.Engineers) != len(before.Engineers) {
			t.Errorf("%q: %v", removed, err)
		}
		if revoked, err := RevokeFingerprint("f", removed, "SHA256:x"); err == nil && !subsequence(removed, revoked) {
			t.Errorf("bytes of %q are gone from %q", removed, revoked)
		}
	})
}

func subsequence(short, long []byte) bool {
	for _, b := range short {
		i := bytes.IndexByte(long, b)
		if i < 0 {
			return false
		}
		long = long[i+1:]
	}
	return true
}

// What would not say afterwards what it was to say is not written: the file is right, and the change would be another one.
func TestEditComparesWhatItWrote(t *testing.T) {
	with := func(change func(*Key)) Key {
		k := cardKey
		change(&k)
		return k
	}
	for name, k := range map[string]Key{
		"text that TOML cannot have": with(func(k *Key) { k.Challenge = "a\xffb" }),
		"an empty list":              with(func(k *Key) { k.Attestation = []string{} }),
	} {
		if got, err := AddKey("policy.toml", []byte(between), "bert", k); !errors.Is(err, errShape) || hint.Of(err) == "" || got != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for name, data := range map[string]string{
		"[hardware] as a key of the whole": "version = 1\nhardware.min_firmware = \"5.7.0\"\n",
		"[hardware] in one line":           "version = 1\nhardware = { min_firmware = \"5.7.0\" }\n",
	} {
		if got, err := RevokeFingerprint("policy.toml", []byte(data), "SHA256:x"); !errors.Is(err, errShape) || hint.Of(err) == "" || got != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
