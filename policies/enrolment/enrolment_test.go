package enrolment

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/hint"
)

var now = time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)

// request is one that can be read. Nothing in it proves anything.
func request(t testing.TB) Request {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: now, NotAfter: now}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := hardkey.NewChallenge("lab", "anna", [hardkey.NonceBytes]byte{1}, now)
	answer, err := Answer(signer, c)
	if err != nil {
		t.Fatal(err)
	}
	cert := base64.StdEncoding.EncodeToString(der)
	return New(c, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), hardkey.Shown{
		Kind: hardkey.KindPIV, Challenge: c.String(), Attestation: []string{cert, cert}, Signature: answer,
	})
}

// fido2 is a request with a security key.
func fido2(t testing.TB) Request {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := request(t)
	blob := ssh.Marshal(struct {
		Name string
		Key  []byte
		App  string
	}{ssh.KeyAlgoSKED25519, public, "ssh:"})
	r.Public = ssh.KeyAlgoSKED25519 + " " + base64.StdEncoding.EncodeToString(blob)
	cose := append([]byte{0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 32}, public...)
	data := slices.Concat(make([]byte, 32), []byte{0x41}, make([]byte, 4+16+2), cose)
	wrapped := append([]byte{0x58, byte(len(data))}, data...)
	cert, err := base64.StdEncoding.DecodeString(r.Attestation[0])
	if err != nil {
		t.Fatal(err)
	}
	statement := ssh.Marshal(struct {
		Magic           string
		Cert, Sig, Data []byte
		Flags           uint32
		Reserved        string
	}{"ssh-sk-attest-v01", cert, []byte{1}, wrapped, 0, ""})
	r.Shown.Kind, r.Attestation, r.Signature = hardkey.KindFIDO2, []string{base64.StdEncoding.EncodeToString(statement)}, ""
	return r
}

func TestRoundTrip(t *testing.T) {
	for name, r := range map[string]Request{"piv": request(t), "fido2": fido2(t)} {
		data, err := r.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := Parse(data)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, r)
		}
	}
}

// A request that cannot be used names its field, and a mend.
func TestParseRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Request)
		field  string
		text   string
	}{
		"another kind":         {func(r *Request) { r.Kind = "mayfly-enrolment/2" }, "kind", `not "mayfly-enrolment/1"`},
		"another fleet":        {func(r *Request) { r.Fleet = "prod" }, "fleet", `fleet "lab"`},
		"another name":         {func(r *Request) { r.Name = "bert" }, "name", `for "anna"`},
		"no key":               {func(r *Request) { r.Public = "" }, "public", "type"},
		"a software type":      {func(r *Request) { r.Public = "ssh-rsa AAAA" }, "public", "ssh-rsa"},
		"a broken key":         {func(r *Request) { r.Public = "ssh-ed25519 AAAA" }, "public", "short read"},
		"a security key's":     {func(r *Request) { r.Public = fido2(t).Public }, "public", "sk-ssh-ed25519"},
		"no evidence":          {func(r *Request) { r.Shown.Kind = "" }, "attestation", "without an attestation"},
		"test evidence":        {func(r *Request) { r.Shown.Kind = "test:lab" }, "evidence", `"test:lab"`},
		"no challenge":         {func(r *Request) { r.Challenge = "" }, "challenge", "not of the form"},
		"no attestation":       {func(r *Request) { r.Attestation = nil }, "attestation", "without an attestation"},
		"one certificate":      {func(r *Request) { r.Attestation = r.Attestation[:1] }, "attestation", "1 certificates"},
		"a broken certificate": {func(r *Request) { r.Attestation[1] = "AAAA" }, "attestation[1]", ""},
		"not base64":           {func(r *Request) { r.Attestation[0] = "-" }, "attestation[0]", "not base64"},
		"no signature":         {func(r *Request) { r.Signature = "" }, "signature", "empty"},
		"a broken signature":   {func(r *Request) { r.Signature = "AAAA" }, "signature", "not an SSH signature"},
		"fido2 with one":       {func(r *Request) { s := r.Signature; *r = fido2(t); r.Signature = s }, "signature", "has none"},
		"fido2 of nothing":     {func(r *Request) { *r = fido2(t); r.Attestation[0] = "AAAA" }, "attestation[0]", "not what ssh-keygen"},
	} {
		r := request(t)
		tt.change(&r)
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(append(data, '\n'))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Field != tt.field || !strings.Contains(e.Error(), tt.text) || hint.Of(err) == "" || !reflect.DeepEqual(got, Request{}) {
			t.Errorf("%s: got %v (hint %q), want %s with %q", name, err, hint.Of(err), tt.field, tt.text)
		}
		if !strings.HasPrefix(err.Error(), tt.field+": ") || strings.Count(err.Error(), tt.field+": ") != 1 {
			t.Errorf("%s: the error %q does not begin with its field, once", name, err)
		}
		if _, err := r.Marshal(); err == nil {
			t.Errorf("%s: it was written", name)
		}
	}
}

func TestParseRefusesForms(t *testing.T) {
	good, err := request(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	with := func(old, new string) []byte { return bytes.Replace(good, []byte(old), []byte(new), 1) }
	for name, tt := range map[string]struct {
		data  []byte
		field string
		text  string
	}{
		"empty":               {nil, "", "unexpected EOF"},
		"not JSON":            {[]byte("x"), "", "invalid character"},
		"an unknown field":    {with(`"kind"`, "\"x\": 1,\n  \"kind\""), "", `unknown field "x"`},
		"a field twice":       {with(`"name"`, "\"name\": \"anna\",\n  \"name\""), "", "canonical"},
		"another order":       {with("\"fleet\": \"lab\",\n  \"name\": \"anna\"", "\"name\": \"anna\",\n  \"fleet\": \"lab\""), "", "canonical"},
		"a field in capitals": {with(`"name"`, `"Name"`), "", "canonical"},
		"white space":         {with("  ", " "), "", "canonical"},
		"and more":            {append(bytes.Clone(good), '\n'), "", "canonical"},
		"a number":            {with(`"anna"`, "7"), "name", "number"},
		"a list":              {with(`"piv"`, "[]"), "evidence", "array"},
		"a number in a list":  {with("\"attestation\": [\n    \"", "\"attestation\": [\n    7,\n    \""), "attestation", "number"},
		"too long":            {append(bytes.Clone(good), bytes.Repeat([]byte{' '}, MaxFile)...), "", "longer than"},
	} {
		_, err := Parse(tt.data)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Field != tt.field || !strings.Contains(e.Error(), tt.text) || hint.Of(err) == "" {
			t.Errorf("%s: got %v (field %q), want %q of field %q", name, err, e.Field, tt.text, tt.field)
		}
	}
}

// docs/formats/enrolment.md has every field of a request, in its order, and no other.
func TestRequestIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/enrolment.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "|---|---|\n")
	var got []string
	for row := range strings.Lines(table) {
		name, _, ok := strings.Cut(strings.TrimPrefix(row, "| `"), "` | ")
		if !ok || !strings.HasPrefix(row, "| `") {
			break
		}
		got = append(got, name)
	}
	var want []string
	for _, of := range []reflect.Type{reflect.TypeFor[Request](), reflect.TypeFor[hardkey.Shown]()} {
		for i := range of.NumField() {
			if tag, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); tag != "" {
				want = append(want, tag)
			}
		}
	}
	if !slices.Equal(got, want) || len(want) != 8 {
		t.Errorf("the page has %q, a request %q", got, want)
	}
	if !bytes.Contains(page, []byte(Kind)) {
		t.Errorf("the page does not name %s", Kind)
	}
}

// FuzzEnrolment: what is accepted is written as it was read; what is not names a field that there is.
func FuzzEnrolment(f *testing.F) {
	for _, r := range []Request{request(f), fido2(f)} {
		data, err := r.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(bytes.Replace(data, []byte("piv"), []byte("fido2"), 1))
	}
	f.Add([]byte(`{"kind": "mayfly-enrolment/1"}`))
	fields := []string{"", "kind", "fleet", "name", "public", "evidence", "challenge", "attestation", "attestation[0]", "attestation[1]", "signature"}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || !slices.Contains(fields, e.Field) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, err := r.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %q, %v, of %q", again, err, data)
		}
	})
}
