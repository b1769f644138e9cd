package wire

import "testing"

// TestGate counts packets behind new keys, however the bytes are cut.
func TestGate(t *testing.T) {
	stream := []byte("hello\r\nSSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14.........." + "\x00\x00\x00\x0c\x0a\x15..........")
	sealed := append([]byte{0, 0, 0, 16}, make([]byte, 32)...)
	good := len(stream) + maxBeforeService*len(sealed)
	for range maxBeforeService + 3 {
		stream = append(stream, sealed...)
	}
	for _, step := range []int{1, 2, 3, 5, 7, 36, 4096} {
		var g gate
		passed := 0
		for at := 0; at < len(stream); at += step {
			part := stream[at:min(at+step, len(stream))]
			n := g.pass(part)
			passed += n
			if n < len(part) {
				break
			}
		}
		if passed != good {
			t.Errorf("in steps of %d: %d bytes passed, want %d", step, passed, good)
		}
	}
}
