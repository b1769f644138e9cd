package pivcard

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"sync"
	"testing"
)

var testIssuer = sync.OnceValues(NewIssuer)

func issuer(t testing.TB) *Issuer {
	t.Helper()
	i, err := testIssuer()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// client is a program that speaks to a card, as real ones do: short APDUs, chaining, GET RESPONSE.
type client struct {
	t    testing.TB
	card *Card
}

// factory keeps the file of one new card of each firmware, since to make an attestation key takes long.
var factory = struct {
	sync.Mutex
	files map[Firmware][]byte
}{files: map[Firmware][]byte{}}

func newCard(t testing.TB, firmware Firmware) client {
	t.Helper()
	factory.Lock()
	defer factory.Unlock()
	if factory.files[firmware] == nil {
		card, err := New(Config{Firmware: firmware, Issuer: issuer(t)})
		if err != nil {
			t.Fatal(err)
		}
		card.save = func(data []byte) error {
			factory.files[firmware] = data
			return nil
		}
		if err := card.keep(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := parseState(factory.files[firmware])
	if err != nil {
		t.Fatal(err)
	}
	card := &Card{Touch: NewTouch(), state: s}
	c := client{t, card}
	c.must(0xA4, 0x04, 0x00, aidPIV[:5])
	return c
}

// send sends a command and puts its answer together.
func (c client) send(ins, p1, p2 byte, data []byte) ([]byte, Status) {
	c.t.Helper()
	for len(data) > 255 {
		if _, sw := c.raw(append([]byte{0x10, ins, p1, p2, 255}, data[:255]...)); sw != statusOK {
			return nil, sw
		}
		data = data[255:]
	}
	out, sw := c.raw(append([]byte{0, ins, p1, p2, byte(len(data))}, data...))
	for sw&0xFF00 == statusMore {
		var more []byte
		more, sw = c.raw([]byte{0, 0xC0, 0, 0, byte(sw)})
		out = append(out, more...)
	}
	return out, sw
}

// raw sends bytes as they are.
func (c client) raw(b []byte) ([]byte, Status) {
	c.t.Helper()
	out := c.card.Transmit(b)
	if len(out) < 2 {
		c.t.Fatalf("% x: got % x, want a status word", b, out)
	}
	n := len(out) - 2
	return out[:n], Status(out[n])<<8 | Status(out[n+1])
}

func (c client) must(ins, p1, p2 byte, data []byte) []byte {
	c.t.Helper()
	out, sw := c.send(ins, p1, p2, data)
	if sw != statusOK {
		c.t.Fatalf("%02x %02x %02x % x: got %04x, want 9000", ins, p1, p2, data, uint16(sw))
	}
	return out
}

func (c client) refused(want Status, ins, p1, p2 byte, data []byte) {
	c.t.Helper()
	if out, sw := c.send(ins, p1, p2, data); sw != want || len(out) != 0 {
		c.t.Errorf("%02x %02x %02x % x: got %04x with %d bytes, want %04x", ins, p1, p2, data, uint16(sw), len(out), uint16(want))
	}
}

func (c client) pin(pin string) Status {
	c.t.Helper()
	_, sw := c.send(0x20, 0, 0x80, padded(pin))
	return sw
}

func cipherOf(t testing.TB, algorithm byte, key []byte) cipher.Block {
	t.Helper()
	var b cipher.Block
	var err error
	if algorithm == 0x03 {
		b, err = des.NewTripleDESCipher(key)
	} else {
		b, err = aes.NewCipher(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// manage authenticates with a management key, mutually.
func (c client) manage(algorithm byte, key []byte) Status {
	c.t.Helper()
	block := cipherOf(c.t, algorithm, key)
	n := block.BlockSize()
	out, sw := c.send(0x87, algorithm, 0x9B, []byte{0x7C, 0x02, 0x80, 0x00})
	if sw != statusOK {
		return sw
	}
	if len(out) != n+4 || !bytes.Equal(out[:4], []byte{0x7C, byte(n + 2), 0x80, byte(n)}) {
		c.t.Fatalf("witness: got % x", out)
	}
	plain, mine, want := make([]byte, n), bytes.Repeat([]byte{7}, n), make([]byte, n)
	block.Decrypt(plain, out[4:])
	block.Encrypt(want, mine)
	data := append([]byte{0x7C, byte(2*n + 4), 0x80, byte(n)}, plain...)
	data = append(append(data, 0x81, byte(n)), mine...)
	out, sw = c.send(0x87, algorithm, 0x9B, data)
	if sw == statusOK && !bytes.Equal(out[4:], want) {
		c.t.Fatalf("response: got % x, want % x", out[4:], want)
	}
	return sw
}

func (c client) administrator() {
	c.t.Helper()
	m := c.card.state.Management
	if sw := c.manage(m.Algorithm, defaultManagementKey); sw != statusOK {
		c.t.Fatalf("management key: got %04x", uint16(sw))
	}
}

// sign has slot do its private-key operation over data.
func (c client) sign(algorithm, slot byte, data []byte) ([]byte, Status) {
	c.t.Helper()
	out, sw := c.send(0x87, algorithm, slot, tlv(0x7C, []byte{0x82, 0}, tlv(0x81, data)))
	if sw != statusOK {
		return nil, sw
	}
	outer, rest, ok := next(out)
	inner, rest2, ok2 := next(outer.value)
	if !ok || !ok2 || outer.tag != 0x7C || inner.tag != 0x82 || len(rest)+len(rest2) != 0 {
		c.t.Fatalf("answer % x: want a response in a template", out)
	}
	return inner.value, sw
}

// generate makes a key and returns what the card says of it.
func (c client) generate(algorithm, slot, pin, touch byte) []byte {
	c.t.Helper()
	out := c.must(0x47, 0, slot, []byte{0xAC, 9, 0x80, 1, algorithm, 0xAA, 1, pin, 0xAB, 1, touch})
	f, rest, ok := next(out)
	if !ok || f.tag != 0x7F49 || len(rest) != 0 {
		c.t.Fatalf("public key: got % x", out)
	}
	return f.value
}
