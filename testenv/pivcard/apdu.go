package pivcard

import "encoding/binary"

// apdu is a command APDU (ISO/IEC 7816-4, part 5.1), after chaining is undone.
type apdu struct {
	class, instruction, p1, p2 byte
	data                       []byte
	want                       int // how many bytes of an answer fit: Le, or 256 where it is absent
}

// Specification constants.
const (
	classChaining        = 0x10 // of the class byte: more of this command follows
	classSecureMessaging = 0x0C // of the class byte
)

// parseCommand reads a short or extended command APDU.
func parseCommand(b []byte) (apdu, Status) {
	if len(b) < 4 {
		return apdu{}, statusLength
	}
	c := apdu{class: b[0], instruction: b[1], p1: b[2], p2: b[3], want: longestShortAnswer}
	switch body := b[4:]; {
	case len(body) == 0: // case 1
	case len(body) == 1: // case 2, short
		c.want = length(int(body[0]), longestShortAnswer)
	case body[0] != 0: // cases 3 and 4, short
		n := int(body[0])
		rest := body[1:]
		if len(rest) != n && len(rest) != n+1 {
			return apdu{}, statusLength
		}
		c.data = rest[:n]
		if len(rest) > n {
			c.want = length(int(rest[n]), longestShortAnswer)
		}
	case len(body) == 3: // case 2, extended
		c.want = length(int(binary.BigEndian.Uint16(body[1:])), longestExtendedAnswer)
	case len(body) > 3: // cases 3 and 4, extended
		n := int(binary.BigEndian.Uint16(body[1:]))
		rest := body[3:]
		if n == 0 || len(rest) != n && len(rest) != n+2 {
			return apdu{}, statusLength
		}
		c.data = rest[:n]
		if len(rest) > n {
			c.want = length(int(binary.BigEndian.Uint16(rest[n:])), longestExtendedAnswer)
		}
	default:
		return apdu{}, statusLength
	}
	return c, statusOK
}

// length is Le, of which 0 means the most.
func length(n, most int) int {
	if n == 0 {
		return most
	}
	return n
}

// answer puts data and status word together.
func answer(data []byte, sw Status) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(nil), data...), uint16(sw))
}
