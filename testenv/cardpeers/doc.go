// Package cardpeers holds the virtual card against the programs and libraries that people use with real ones: piv-go,
// yubico-piv-tool, ykcs11, OpenSC and OpenSSH, each through Debian's pcscd. It is tests alone, with the tag pcsc:
//
//	go test -tags pcsc ./testenv/cardpeers
//
// TestPeers prints what each program did, and holds docs/testing.md to it.
package cardpeers
