package hardkey

import (
	"bytes"
	"testing"
)

// A COSE key is Ed25519 or P-256 in every one of its fields, or it is none.
func TestCOSEKey(t *testing.T) {
	x, y := bytes.Repeat([]byte{1}, coordinate), bytes.Repeat([]byte{2}, coordinate)
	okp := coseKey{Type: coseOKP, Algorithm: coseEdDSA, Curve: coseEd25519, X: x}
	ec2 := coseKey{Type: coseEC2, Algorithm: coseES256, Curve: coseP256, X: x, Y: y}
	if raw, err := okp.raw(); err != nil || !bytes.Equal(raw, x) {
		t.Errorf("Ed25519: got %x, %v", raw, err)
	}
	if raw, err := ec2.raw(); err != nil || !bytes.Equal(raw, append(append([]byte{4}, x...), y...)) {
		t.Errorf("P-256: got %x, %v", raw, err)
	}
	for name, change := range map[string]func(*coseKey){
		"type": func(k *coseKey) { k.Type = 3 - k.Type }, "no type": func(k *coseKey) { k.Type = 0 },
		"algorithm": func(k *coseKey) { k.Algorithm = coseEdDSA + coseES256 - k.Algorithm }, "no algorithm": func(k *coseKey) { k.Algorithm = 0 },
		"curve": func(k *coseKey) { k.Curve = coseEd25519 + coseP256 - k.Curve }, "no curve": func(k *coseKey) { k.Curve = 0 },
		"short x": func(k *coseKey) { k.X = x[1:] }, "long x": func(k *coseKey) { k.X = append(bytes.Clone(x), 0) }, "no x": func(k *coseKey) { k.X = nil },
		"short y": func(k *coseKey) { k.Y = y[1:] }, "long y": func(k *coseKey) { k.Y = append(bytes.Clone(y), 0) },
		"other y": func(k *coseKey) {
			if k.Y == nil {
				k.Y = y
			} else {
				k.Y = nil
			}
		},
	} {
		for _, k := range []coseKey{okp, ec2} {
			change(&k)
			if raw, err := k.raw(); err == nil || raw != nil {
				t.Errorf("%s of a key of type %d: got %x", name, k.Type, raw)
			}
		}
	}
}
