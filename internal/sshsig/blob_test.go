package sshsig

import (
	"bytes"
	"strings"
	"testing"
)

// A signature without its armor is the same signature.
func TestBlob(t *testing.T) {
	armored, err := Sign(newSigner(t), namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := Parse(armored)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseBlob(sig.Blob())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(namespace, message); err != nil || !bytes.Equal(again.Armor(), armored) {
		t.Errorf("got %v and\n%s\nwant\n%s", err, again.Armor(), armored)
	}
	for name, tt := range map[string]struct {
		blob []byte
		want string
	}{
		"nothing":   {nil, "not an SSH signature"},
		"armored":   {armored, "not an SSH signature"},
		"no body":   {[]byte(magic), "signature's body"},
		"cut":       {sig.Blob()[:60], "signature's body"},
		"with more": {append(sig.Blob(), 0), "signature's body"},
		"too long":  {make([]byte, MaxBlock+1), "longer than"},
	} {
		if _, err := ParseBlob(tt.blob); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}
