package pivcard

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"
)

// FuzzAPDU sends a sequence of raw APDUs into a card. Each begins with two bytes of length. The first byte of all chooses firmware and state. Whatever comes,
// there is an answer with a status word, the card can be saved and loaded, and its counters are in their bounds.
func FuzzAPDU(f *testing.F) {
	sequence := func(first byte, apdus ...[]byte) []byte {
		out := []byte{first}
		for _, a := range apdus {
			out = append(append(out, byte(len(a)>>8), byte(len(a))), a...)
		}
		return out
	}
	pin := append([]byte{0, 0x20, 0, 0x80, 8}, padded(DefaultPIN)...)
	sign := append([]byte{0, 0x87, 0x11, 0x9A, 38, 0x7C, 36, 0x82, 0, 0x81, 32}, make([]byte, 32)...)
	f.Add(sequence(0, []byte{0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8}, []byte{0, 0xFD, 0, 0, 0}, []byte{0, 0xF8, 0, 0, 0}))
	f.Add(sequence(4, pin, []byte{0, 0x47, 0, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11}, sign, []byte{0, 0xF9, 0x9A, 0, 0}, []byte{0, 0xC0, 0, 0, 0}))
	f.Add(sequence(5, append([]byte{0, 0xFE, 0x11, 0x9A, 34, 6, 32}, bytes.Repeat([]byte{5}, 32)...), pin, sign, []byte{0, 0xF7, 0, 0x9A, 0}))
	f.Add(sequence(4, []byte{0x10, 0xDB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 2}, []byte{0, 0xDB, 0x3F, 0xFF, 3, 0x53, 1, 7}, []byte{0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 2, 1}))
	f.Add(sequence(1, []byte{0, 0x87, 3, 0x9B, 4, 0x7C, 2, 0x80, 0, 0}, append([]byte{0, 0x87, 3, 0x9B, 22, 0x7C, 20, 0x80, 8}, make([]byte, 18)...)))
	f.Add(sequence(6, []byte{0, 0xF6, 0x82, 0x9A}, []byte{0, 0xF6, 0xFF, 0xF9}, []byte{0, 0xFA, 2, 2}, append([]byte{0, 0xFF, 0xFF, 0xFE, 27, 0x0A, 0x9B, 24}, make([]byte, 24)...)))
	f.Add(sequence(2, []byte{0, 0xA4, 4, 0, 8, 0xA0, 0, 0, 5, 0x27, 0x47, 0x11, 0x17}, []byte{0, 0x1D, 0, 0}, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0}))
	f.Add(sequence(3, append([]byte{0, 0x24, 0, 0x80, 16}, append(padded("000000"), padded("654321")...)...), append([]byte{0, 0x2C, 0, 0x80, 16}, append(padded(DefaultPUK), padded("654321")...)...), []byte{0, 0xFB, 0, 0}))
	versions := []Firmware{fw435, fw527, fw543, fw574}
	for _, v := range versions {
		newCard(f, v)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 1<<14 {
			return
		}
		c := newCard(t, versions[b[0]%4])
		c.card.Touch.SetMode([]TouchMode{TouchAuto, TouchRefused}[b[0]>>7])
		c.card.session.management, c.card.session.verified = b[0]&4 != 0, b[0]&8 != 0
		for b, n := b[1:], 0; len(b) >= 2 && n < 64; n++ {
			size := min(int(b[0])<<8|int(b[1]), len(b)-2)
			apdu := b[2 : 2+size]
			b = b[2+size:]
			if slow(apdu) {
				continue
			}
			if out := c.card.Transmit(apdu); len(out) < 2 || len(out) > longestExtendedAnswer+2 {
				t.Fatalf("% x: an answer of %d bytes", apdu, len(out))
			}
		}
		data, err := json.Marshal(c.card.state)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > maxState {
			t.Errorf("a file of %d bytes", len(data))
		}
		if _, err := parseState(data); err != nil {
			t.Errorf("the card cannot be loaded again: %v", err)
		}
	})
}

// slow says whether an APDU would make an RSA key, which takes a fuzzer's whole time.
func slow(apdu []byte) bool {
	if len(apdu) < 2 || apdu[1] != insGenerate {
		return false
	}
	for algorithm := range rsaBits {
		if bytes.IndexByte(apdu, algorithm) >= 0 {
			return true
		}
	}
	return false
}

// FuzzVPCD is a reader that sends anything. The card's side ends when the reader hangs up, and the answers that it gave are whole messages.
func FuzzVPCD(f *testing.F) {
	f.Add([]byte{0, 1, 1, 0, 1, 4, 0, 10, 0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8, 0, 4, 0, 0xFD, 0, 0, 0, 1, 0})
	f.Add([]byte{0, 0})
	f.Add([]byte{0, 1, 3})
	f.Add([]byte{0xFF, 0xFF, 1, 2})
	f.Add([]byte{0, 1, 2, 0, 1, 2, 0, 2, 0, 0})
	newCard(f, fw574)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<14 {
			return
		}
		c := newCard(t, fw574)
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.card.Serve(t.Context(), theirs) // an error is as good as an end
		}()
		read := make(chan struct{})
		go func() {
			defer close(read)
			for {
				if _, err := readFrame(ours); err != nil {
					return
				}
			}
		}()
		ours.SetWriteDeadline(time.Now().Add(patience))
		ours.Write(b) // ends with an error where the card hangs up
		ours.Close()
		<-done
		<-read
	})
}

// FuzzControlLine is a line to the control socket: whatever it is, there is an answer that says what the card is like.
func FuzzControlLine(f *testing.F) {
	f.Add([]byte(`{"do":"show"}`))
	f.Add([]byte(`{"do":"touch"}`))
	f.Add([]byte(`{"do":"mode","mode":"auto","window":"1s"}`))
	f.Add([]byte(`{"do":"generate","key":{"slot":"9a","algorithm":"p256","pin":"once","touch":"always"}}`))
	f.Add([]byte(`{"do":"import","key":{"slot":"9a"},"pem":"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}`))
	f.Add([]byte(`{"do":"faults","faults":{"without":["serial"],"serial":7}}`))
	f.Add([]byte(`{"do":"firmware","firmware":"4.3.5"}`))
	newCard(f, fw574)
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.Contains(line, []byte("rsa")) || bytes.Contains(line, []byte("wait")) || bytes.Contains(line, []byte("replace")) {
			return // slow, or about files
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // so that nothing is waited for
		k := &Control{Card: newCard(t, fw574).card}
		reply := k.line(ctx, line)
		if reply.Card == nil {
			t.Fatal("no card in the answer")
		}
		if _, err := json.Marshal(reply); err != nil {
			t.Error(err)
		}
	})
}
