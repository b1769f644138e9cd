package swtpm

import (
	"crypto/sha256"
	"encoding/binary"
)

// Event is one thing that a firmware measures.
type Event struct {
	PCR    int
	Type   uint32
	Digest [32]byte
	Data   []byte
}

// Types of events (TCG PC Client Platform Firmware Profile, part 10).
const (
	NoAction    = 3
	Separator   = 4
	IPL         = 0xd
	Application = 0x80000003
	Driver      = 0x80000004
	Action      = 0x80000007
)

// Told is an event whose data is what is measured.
func Told(pcr int, kind uint32, data string) Event {
	return Event{pcr, kind, sha256.Sum256([]byte(data)), []byte(data)}
}

// Hashed is an event of which the log tells this data, and this hash is measured.
func Hashed(pcr int, kind uint32, hash [32]byte, data string) Event {
	return Event{pcr, kind, hash, []byte(data)}
}

// Started is the start of an application with this Authenticode hash.
func Started(hash [32]byte) Event { return Event{4, Application, hash, []byte("where it lies")} }

// Firmware is what a UEFI firmware, systemd-stub and the kernel's loader measure when they start a unified kernel image with a kernel in it, without
// Secure Boot, and nothing lies beside the image.
func Firmware(image, kernel [32]byte) []Event {
	return []Event{
		{0, NoAction, [32]byte{}, []byte("StartupLocality\x00\x03")},
		Told(0, 8, "version"), Told(7, Separator, "\x00\x00\x00\x00"),
		Told(4, Action, "Calling EFI Application from Boot Option"), Told(4, Separator, "\x00\x00\x00\x00"), Started(image),
		Told(11, IPL, ".linux"), Started(kernel), Told(9, 6, "command line"), Told(9, 6, "initrd"), Told(2, Separator, "\x00\x00\x00\x00"),
	}
}

// Log is the event log that such a firmware leaves, with one bank of registers.
func Log(events []Event) []byte {
	b := make([]byte, 8+20, 1024)
	binary.LittleEndian.PutUint32(b[4:], NoAction)
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(spec))), spec...)
	for _, e := range events {
		b = binary.LittleEndian.AppendUint32(b, uint32(e.PCR))
		b = binary.LittleEndian.AppendUint32(b, e.Type)
		b = binary.LittleEndian.AppendUint32(b, 1)
		b = binary.LittleEndian.AppendUint16(b, 0x0b)
		b = append(b, e.Digest[:]...)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

// Measure does what the firmware does with events.
func (s *TPM) Measure(events []Event) {
	s.t.Helper()
	for _, e := range events {
		if e.Type != NoAction {
			s.Extend(e.PCR, e.Digest)
		}
	}
}
