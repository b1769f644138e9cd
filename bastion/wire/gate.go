package wire

import (
	"encoding/binary"
	"errors"
)

// maxBeforeService is how many packets a client may send after its new keys and before the library has taken its request for authentication,
// which is the first or second of them. Sixteen wait in the library, and what waits there behind a bad one stays for ever: before
// authentication begins there is no way to its connection (unstick.go of package bastion).
const maxBeforeService = 12

var errTooMuchBefore = errors.New("too many packets before authentication")

const msgNewKeys = 21 // RFC 4253, section 12

// gate counts a client's packets from the first byte on. Every cipher that is offered is AES-GCM, whose packets show their length.
type gate struct {
	line    []byte // of the version, as far as it has come
	spoken  bool   // the version is over
	head    [6]byte
	have    int
	left    uint64 // bytes of this packet to skip
	sealed  bool   // the client has new keys
	packets int    // since then
}

const gcmTag = 16

// pass tells how many of these bytes may pass. Less than all means that the client has sent too much.
func (g *gate) pass(p []byte) int {
	for i := 0; i < len(p); {
		if !g.spoken {
			if g.line = append(g.line, p[i]); p[i] == '\n' {
				g.spoken, g.line = len(g.line) >= 4 && string(g.line[:4]) == "SSH-", g.line[:0]
			} else if len(g.line) > 4 {
				g.line = g.line[:4]
			}
			i++
			continue
		}
		if g.left > 0 {
			n := min(g.left, uint64(len(p)-i))
			g.left -= n
			i += int(n)
			continue
		}
		if g.have == 0 && g.packets >= maxBeforeService {
			return i
		}
		g.head[g.have] = p[i]
		g.have++
		i++
		if want := 6; !g.sealed && g.have < want || g.have < 4 {
			continue
		}
		length := uint64(binary.BigEndian.Uint32(g.head[:]))
		switch {
		case g.sealed:
			g.left = length + gcmTag
			g.packets++
		case length < 2:
			g.left = 1 << 62 // no packet: the library ends it
		default:
			g.left = length - 2
			g.sealed = g.head[5] == msgNewKeys
		}
		g.have = 0
	}
	return len(p)
}
