package rawssh

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxPacket bounds a received packet (RFC 4253, section 6.1, asks for 35000; servers send up to this).
const maxPacket = 256 << 10

// direction is one way of the connection; seal is nil before NEWKEYS.
type direction struct {
	seal  cipher.AEAD
	nonce [12]byte
}

// advance raises the invocation counter (RFC 5647, section 7.1).
func (d *direction) advance() {
	binary.BigEndian.PutUint64(d.nonce[4:], binary.BigEndian.Uint64(d.nonce[4:])+1)
}

// Write sends one payload as one packet.
func (c *Client) Write(payload []byte) error { return c.WritePadded(payload, 0) }

// WritePadded is Write with another number in the place of the padding's length; 0 is the right one.
func (c *Client) WritePadded(payload []byte, claimed byte) error {
	block, covered := 8, 5+len(payload)
	if c.out.seal != nil {
		block, covered = 16, 1+len(payload) // the length is outside of the blocks (RFC 5647, section 7.2)
	}
	pad := block - covered%block
	if pad < 4 {
		pad += block
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+pad))
	if claimed == 0 {
		claimed = byte(pad)
	}
	packet = append(packet, claimed)
	packet = append(packet, payload...)
	packet = append(packet, make([]byte, pad)...)
	if _, err := rand.Read(packet[len(packet)-pad:]); err != nil {
		return err
	}
	if c.out.seal != nil {
		packet = c.out.seal.Seal(packet[:4:4], c.out.nonce[:], packet[4:], packet[:4])
		c.out.advance()
	}
	_, err := c.conn.Write(packet)
	return err
}

// Read receives one payload.
func (c *Client) Read() ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(c.reader, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 5 || n > maxPacket {
		return nil, fmt.Errorf("reading packet: length %d", n)
	}
	overhead := 0
	if c.in.seal != nil {
		overhead = c.in.seal.Overhead()
	}
	body := make([]byte, int(n)+overhead)
	if _, err := io.ReadFull(c.reader, body); err != nil {
		return nil, err
	}
	if c.in.seal != nil {
		opened, err := c.in.seal.Open(body[:0], c.in.nonce[:], body, length[:])
		if err != nil {
			return nil, fmt.Errorf("reading packet: %w", err)
		}
		c.in.advance()
		body = opened
	}
	pad := int(body[0])
	if pad+1 >= len(body) {
		return nil, errors.New("reading packet: padding fills it")
	}
	return body[1 : len(body)-pad], nil
}
