package measure_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"mayfly/rebuild/attest/measure"
	"mayfly/testenv/swtpm"
)

// A register holds what was extended, in its order; the registers beside it hold nothing.
func TestExtend(t *testing.T) {
	tpm := swtpm.Start(t)
	var want [32]byte
	for _, s := range []string{"release", "trust", "ticket"} {
		d := sha256.Sum256([]byte(s))
		tpm.Extend(14, d)
		want = sha256.Sum256(append(want[:], d[:]...))
	}
	c := tpm.Dial()
	defer c.Close()
	res, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(13, 14, 15)},
	}}}.Execute(transport.FromReadWriter(c))
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range [][]byte{make([]byte, 32), want[:], make([]byte, 32)} {
		if got := res.PCRValues.Digests[i].Buffer; !bytes.Equal(got, w) {
			t.Errorf("PCR %d: got %x, want %x", 13+i, got, w)
		}
	}
}

// A register that may not be extended is an error, not silence.
func TestExtendRefused(t *testing.T) {
	tpm := swtpm.Start(t)
	c := tpm.Dial()
	defer c.Close()
	if err := measure.ExtendOn(c, 17, [32]byte{}); err == nil {
		t.Error("extended a register of the dynamic root of trust")
	}
}

// says answers every command with the same bytes.
type says []byte

func (says) Write(b []byte) (int, error)  { return len(b), nil }
func (s says) Read(b []byte) (int, error) { return copy(b, s), nil }

type silent struct{}

func (silent) Read([]byte) (int, error)    { return 0, io.ErrUnexpectedEOF }
func (silent) Write(b []byte) (int, error) { return len(b), nil }

func TestExtendAnswers(t *testing.T) {
	answer := func(length, code uint32) []byte {
		b := binary.BigEndian.AppendUint16(nil, 0x8002)
		b = binary.BigEndian.AppendUint32(b, length)
		return binary.BigEndian.AppendUint32(b, code)
	}
	for _, tt := range []struct {
		name string
		rw   io.ReadWriter
		ok   bool
	}{
		{"good", says(answer(10, 0)), true},
		{"refused", says(answer(10, 0x101)), false},
		{"short", says(answer(10, 0)[:9]), false},
		{"other length", says(answer(11, 0)), false},
		{"nothing", silent{}, false},
	} {
		if err := measure.ExtendOn(tt.rw, 14, [32]byte{1}); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}
