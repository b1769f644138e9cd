package device

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
)

func TestKeyForms(t *testing.T) {
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseKey(k.Base64())
	if err != nil || got != k {
		t.Errorf("got %v, want the same key", err)
	}
	if _, err := ParsePublicKey(k.Public().Base64()); err != nil {
		t.Errorf("its public half: %v", err)
	}
	if got := fmt.Sprint(k); got != "(key)" {
		t.Errorf("printed as %s", got)
	}
	// RFC 7748, section 6.1.
	raw, err := hex.DecodeString("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
	if err != nil {
		t.Fatal(err)
	}
	const want = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
	if got := Key(raw).Public(); hex.EncodeToString(got[:]) != want {
		t.Errorf("Alice's public key: got %x, want %s", got[:], want)
	}
}

func TestBadKeys(t *testing.T) {
	good := NewPresharedKey().Base64()
	low := map[string]string{ // points of low order, RFC 7748 section 7 and cr.yp.to/ecdh.html
		"zero":      "0000000000000000000000000000000000000000000000000000000000000000",
		"one":       "0100000000000000000000000000000000000000000000000000000000000000",
		"order 8":   "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"order 8 b": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"p-1":       "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"p":         "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"p+1":       "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	}
	cases := map[string]string{
		"empty": "", "short": good[:40], "long": good + "AAAA", "not base64": "!" + good[1:], "line break": good[:43] + "\n",
		"unpadded":   good[:43] + "A",
		"spare bits": base64.StdEncoding.EncodeToString(make([]byte, 32))[:42] + "B=",
	}
	for name, h := range low {
		raw, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		cases[name] = base64.StdEncoding.EncodeToString(raw)
	}
	for name, s := range cases {
		if _, err := ParsePublicKey(s); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: got %v, want ErrBadKey", name, err)
		}
	}
}
