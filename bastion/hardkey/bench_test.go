package hardkey

import "testing"

// One verification of each kind: what a key costs at a policy's load.
func BenchmarkVerify(b *testing.B) {
	c := newCard(b)
	piv := c.make(b)
	a := newAuthenticator(b)
	fido2 := a.make(b)
	b.Run("piv", func(b *testing.B) {
		for b.Loop() {
			if _, rejection := Verify(c.fleet, c.name, c.public, piv, c.rules, now); rejection != nil {
				b.Fatal(rejection)
			}
		}
	})
	b.Run("fido2", func(b *testing.B) {
		for b.Loop() {
			if _, rejection := Verify(a.fleet, a.name, a.public, fido2, a.rules, now); rejection != nil {
				b.Fatal(rejection)
			}
		}
	})
}
