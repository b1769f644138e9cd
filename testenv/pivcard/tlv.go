package pivcard

// field is a BER-TLV data object: tag, length, value (ISO/IEC 7816-4, part 5.2.2).
type field struct {
	tag   uint32
	value []byte
}

// Implementation constants.
const (
	longestTag = 3 // bytes; PIV's are no longer
	maxFields  = 16
)

// next reads one field and returns what follows it.
func next(b []byte) (f field, rest []byte, ok bool) {
	if len(b) == 0 {
		return field{}, nil, false
	}
	f.tag, b = uint32(b[0]), b[1:]
	if f.tag&0x1F == 0x1F { // the tag goes on while bit 8 is set
		for n := 1; ; n++ {
			if len(b) == 0 || n == longestTag {
				return field{}, nil, false
			}
			last := b[0]
			f.tag, b = f.tag<<8|uint32(last), b[1:]
			if last&0x80 == 0 {
				break
			}
		}
	}
	if len(b) == 0 {
		return field{}, nil, false
	}
	n := int(b[0])
	b = b[1:]
	if n >= 0x80 {
		size := n & 0x7F
		if size == 0 || size > 2 || len(b) < size {
			return field{}, nil, false
		}
		n = 0
		for _, v := range b[:size] {
			n = n<<8 | int(v)
		}
		b = b[size:]
	}
	if len(b) < n {
		return field{}, nil, false
	}
	f.value = b[:n]
	return f, b[n:], true
}

// fields reads a whole row of them, each tag at most once.
func fields(b []byte) (map[uint32][]byte, bool) {
	all := map[uint32][]byte{}
	for len(b) > 0 {
		f, rest, ok := next(b)
		if _, twice := all[f.tag]; !ok || twice || len(all) == maxFields {
			return nil, false
		}
		all[f.tag], b = f.value, rest
	}
	return all, true
}

// tlv writes a field; values are joined.
func tlv(tag uint32, values ...[]byte) []byte {
	var out []byte
	for shift := 16; shift >= 0; shift -= 8 {
		if v := tag >> shift; v != 0 {
			out = append(out, byte(v))
		}
	}
	n := 0
	for _, v := range values {
		n += len(v)
	}
	switch {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 0x100:
		out = append(out, 0x81, byte(n))
	default:
		out = append(out, 0x82, byte(n>>8), byte(n))
	}
	for _, v := range values {
		out = append(out, v...)
	}
	return out
}
