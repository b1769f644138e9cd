package sshsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
)

const namespace = "mayfly-test"

var message = []byte("the exact bytes\n")

// securityKey is a security key in software: it signs as PROTOCOL.u2f says, with these flags.
type securityKey struct {
	key   ed25519.PrivateKey
	pub   ssh.PublicKey
	flags byte
	rest  []byte // instead of flags and counter, if set
}

const skType = "sk-ssh-ed25519@openssh.com"

func newSecurityKey(t testing.TB, flags byte) *securityKey {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type string
		Key  []byte
		App  string
	}{skType, pub, "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return &securityKey{key: key, pub: parsed, flags: flags}
}

func (k *securityKey) PublicKey() ssh.PublicKey { return k.pub }

func (k *securityKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, sum := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	tail := []byte{k.flags, 0, 0, 0, 7}
	signed := append(append(app[:], tail...), sum[:]...)
	if k.rest != nil {
		tail = k.rest
	}
	return &ssh.Signature{Format: skType, Blob: ed25519.Sign(k.key, signed), Rest: tail}, nil
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, key)
}

func signerOf(t testing.TB, key any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// forge makes a block without the checks of Sign.
func forge(t testing.TB, signer ssh.Signer, s Signature) []byte {
	t.Helper()
	s.key = signer.PublicKey()
	data, err := s.signed(message)
	if err != nil {
		s.hash, data = "sha512", message
	}
	if s.signature, err = signer.Sign(rand.Reader, data); err != nil {
		t.Fatal(err)
	}
	return s.Armor()
}

func TestSignVerify(t *testing.T) {
	var signers []ssh.Signer
	signers = append(signers, newSigner(t), newSecurityKey(t, flagUserPresence), newSecurityKey(t, flagUserPresence|0x04))
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, signerOf(t, key))
	}
	for _, signer := range signers {
		kind := signer.PublicKey().Type()
		block, err := Sign(signer, namespace, message)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		s, err := Parse(block)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if err := s.Verify(namespace, message); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if got, want := s.Key().Marshal(), signer.PublicKey().Marshal(); !bytes.Equal(got, want) {
			t.Errorf("%s: key: got %x, want %x", kind, got, want)
		}
		if !bytes.Equal(s.Armor(), block) {
			t.Errorf("%s: Armor after Parse differs", kind)
		}
		for _, wrong := range []struct{ namespace, message string }{
			{"mayfly-other", string(message)}, {"", string(message)}, {namespace + " ", string(message)},
			{namespace, string(message) + " "}, {namespace, ""},
		} {
			if err := s.Verify(wrong.namespace, []byte(wrong.message)); err == nil {
				t.Errorf("%s: Verify(%q, %q): got nil, want an error", kind, wrong.namespace, wrong.message)
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	plain := newSigner(t)
	untouched := newSecurityKey(t, 0)
	verified := newSecurityKey(t, 0x04) // PIN, but no touch
	short := newSecurityKey(t, flagUserPresence)
	short.rest = []byte{1}
	long := newSecurityKey(t, flagUserPresence)
	long.rest = []byte{1, 0, 0, 0, 7, 0}
	lying := newSecurityKey(t, 0)
	lying.rest = []byte{1, 0, 0, 0, 7} // flag set after signing
	tests := []struct {
		name  string
		block []byte
		want  string
	}{
		{"no touch", forge(t, untouched, Signature{namespace: namespace, hash: "sha512"}), "not touched"},
		{"PIN without touch", forge(t, verified, Signature{namespace: namespace, hash: "sha512"}), "not touched"},
		{"flags cut", forge(t, short, Signature{namespace: namespace, hash: "sha512"}), "no flags"},
		{"flags long", forge(t, long, Signature{namespace: namespace, hash: "sha512"}), "no flags"},
		{"flag changed", forge(t, lying, Signature{namespace: namespace, hash: "sha512"}), "does not match"},
		{"sha256", forge(t, plain, Signature{namespace: namespace, hash: "sha256"}), ""},
		{"another namespace", forge(t, plain, Signature{namespace: "file", hash: "sha512"}), "namespace"},
		{"trailing", forge(t, trailing{plain}, Signature{namespace: namespace, hash: "sha512"}), "trailing"},
	}
	for _, tt := range tests {
		s, err := Parse(tt.block)
		if err == nil {
			err = s.Verify(namespace, message)
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := Sign(untouched, namespace, message); err == nil {
		t.Error("Sign without touch: got nil, want an error")
	}
}

type trailing struct{ ssh.Signer }

func (s trailing) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	sig, err := s.Signer.Sign(r, data)
	if err == nil {
		sig.Rest = []byte("more")
	}
	return sig, err
}

func TestRefusesRSA(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer := signerOf(t, key)
	if _, err := Sign(signer, namespace, message); err == nil || hint.Of(err) == "" {
		t.Errorf("Sign: got %v, want an error with a hint", err)
	}
	if _, err := Parse(forge(t, signer, Signature{namespace: namespace, hash: "sha512"})); err == nil || !strings.Contains(err.Error(), "type ssh-rsa") {
		t.Errorf("Parse: got %v, want a refusal of the key type", err)
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := Sign(newSigner(t), namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	tests := []struct{ name, block, want string }{
		{"empty", "", "opening"},
		{"no end", strings.TrimSuffix(text, end+"\n"), "closing"},
		{"text before", "x\n" + text, "opening"},
		{"text after", text + "x", "closing"},
		{"bad base64", strings.Replace(text, "U1NI", "U1N*", 1), "armor"},
		{"cut base64", begin + "\nU1NIU0lH\n" + end, "body"},
		{"not a signature", begin + "\nAAAA\n" + end, "not an SSH signature"},
		{"two in one", strings.Replace(text, end, text+end, 1), "armor"},
	}
	for _, tt := range tests {
		if _, err := Parse([]byte(tt.block)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	s, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct {
		name string
		f    func(b *blob)
	}{
		{"version 2", func(b *blob) { b.Version = 2 }},
		{"no namespace", func(b *blob) { b.Namespace = "" }},
		{"sha1", func(b *blob) { b.Hash = "sha1" }},
		{"no key", func(b *blob) { b.PublicKey = nil }},
		{"no signature", func(b *blob) { b.Signature = nil }},
	} {
		b := blob{Version: version, PublicKey: s.key.Marshal(), Namespace: namespace, Hash: "sha512", Signature: ssh.Marshal(s.signature)}
		change.f(&b)
		if _, err := b.signature(); err == nil {
			t.Errorf("%s: got nil, want an error", change.name)
		}
	}
}

// parseAll is Split, and Parse of each block; one that does not parse is left out, as policies/trust does.
func parseAll(data []byte, max int) ([]*Signature, error) {
	blocks, err := Split(data, max)
	if err != nil {
		return nil, err
	}
	var all []*Signature
	for _, b := range blocks {
		if s, err := Parse(b); err == nil {
			all = append(all, s)
		}
	}
	return all, nil
}

func TestSplit(t *testing.T) {
	one, err := Sign(newSigner(t), namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Sign(newSigner(t), namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	a, b := string(one), string(two)
	garbage := begin + "\nAAAA\n" + end + "\n"
	tests := []struct {
		name, data   string
		blocks, good int
	}{
		{"none", "", 0, 0},
		{"white space", " \n\n", 0, 0},
		{"one", a, 1, 1},
		{"two", a + b, 2, 2},
		{"two with CRLF", strings.ReplaceAll(a+b, "\n", "\r\n"), 2, 2},
		{"no last newline", a + strings.TrimSpace(b), 2, 2},
		{"space between", a + "\n\n" + b, 2, 2},
		{"garbage first", garbage + a + b, 3, 2},
		{"garbage between", a + garbage + b, 3, 2},
		{"text between", a + "hello\n" + b, 3, 2},
		{"text first", "hello\n" + a, 2, 1},
		{"text last", a + "hello", 2, 1},
		{"block never closed", strings.TrimSuffix(a, end+"\n") + b, 2, 1},
		{"only begin", begin, 1, 0},
		{"end first", end + "\n" + a, 2, 1},
	}
	for _, tt := range tests {
		blocks, err := Split([]byte(tt.data), 10)
		if err != nil || len(blocks) != tt.blocks {
			t.Errorf("%s: Split: got %d, %v, want %d", tt.name, len(blocks), err, tt.blocks)
		}
		all, err := parseAll([]byte(tt.data), 10)
		if err != nil || len(all) != tt.good {
			t.Errorf("%s: Parse of each: got %d, %v, want %d", tt.name, len(all), err, tt.good)
		}
	}
	for _, tt := range []struct {
		name, data string
		max        int
	}{
		{"too many", a + b, 1},
		{"none allowed", a, 0},
		{"huge block", begin + "\n" + strings.Repeat("A", MaxBlock) + "\n" + end, 10},
		{"huge file", strings.Repeat(" ", 2*MaxBlock+1), 2},
	} {
		if all, err := parseAll([]byte(tt.data), tt.max); err == nil {
			t.Errorf("%s: got %d, nil, want an error", tt.name, len(all))
		}
	}
}

func keygen(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed: nothing to prove interoperation with")
	}
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Our signatures are good to ssh-keygen, and bad ones are bad.
func TestKeygenVerifies(t *testing.T) {
	dir := t.TempDir()
	for _, signer := range []ssh.Signer{newSigner(t), newSecurityKey(t, flagUserPresence)} {
		kind := signer.PublicKey().Type()
		block, err := Sign(signer, namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		sig, allowed := filepath.Join(dir, "sig"), filepath.Join(dir, "allowed")
		line := append([]byte("anna "), ssh.MarshalAuthorizedKey(signer.PublicKey())...)
		if err := os.WriteFile(sig, block, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(allowed, line, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := keygen(t, message, "-Y", "verify", "-f", allowed, "-I", "anna", "-n", namespace, "-s", sig); err != nil {
			t.Errorf("%s: ssh-keygen -Y verify: %v: %s", kind, err, out)
		}
		if out, err := keygen(t, []byte("other"), "-Y", "verify", "-f", allowed, "-I", "anna", "-n", namespace, "-s", sig); err == nil {
			t.Errorf("%s: ssh-keygen -Y verify of another message: got success: %s", kind, out)
		}
		if out, err := keygen(t, message, "-Y", "verify", "-f", allowed, "-I", "anna", "-n", "file", "-s", sig); err == nil {
			t.Errorf("%s: ssh-keygen -Y verify of another namespace: got success: %s", kind, out)
		}
	}
}

// ssh-keygen's signatures are good to us, and its keys load.
func TestVerifiesKeygen(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"ed25519"}, {"ecdsa", "-b", "256"}} {
		key := filepath.Join(dir, args[0])
		if out, err := keygen(t, nil, append([]string{"-q", "-N", "", "-C", "test", "-f", key, "-t"}, args...)...); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		file := filepath.Join(dir, "message")
		for _, hashes := range [][]string{nil, {"-O", "hashalg=sha256"}} {
			if err := os.WriteFile(file, message, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := keygen(t, nil, append(append([]string{"-Y", "sign"}, hashes...), "-f", key, "-n", namespace, file)...); err != nil {
				t.Fatalf("ssh-keygen -Y sign: %v: %s", err, out)
			}
			block, err := os.ReadFile(file + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(file + ".sig"); err != nil {
				t.Fatal(err)
			}
			s, err := Parse(block)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(namespace, message); err != nil {
				t.Errorf("%v %v: %v", args, hashes, err)
			}
			if got := string(s.Armor()); got != string(block) {
				t.Errorf("%v: Armor: got %q, want ssh-keygen's %q", args, got, block)
			}
		}
		private, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.ParsePrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Sign(signer, namespace, message); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	block, err := Sign(newSigner(f), namespace, message)
	if err != nil {
		f.Fatal(err)
	}
	touched, err := Sign(newSecurityKey(f, flagUserPresence), namespace, message)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(block)
	f.Add(append(block, touched...))
	f.Add([]byte("x\n" + string(touched)))
	f.Add([]byte(begin + "\n" + end + "\n" + begin))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := Split(data, 8)
		if err != nil {
			return
		}
		total := 0
		for _, b := range blocks {
			total += len(b)
		}
		if total > len(data) {
			t.Errorf("%d bytes of blocks in %d bytes", total, len(data))
		}
		all, err := parseAll(data, 8)
		if err != nil {
			t.Errorf("Split takes it once and not again: %v", err)
		}
		for _, s := range all {
			again, err := Parse(s.Armor())
			if err != nil || !bytes.Equal(again.Armor(), s.Armor()) {
				t.Errorf("a parsed signature does not survive Armor: %v", err)
			}
		}
	})
}
