package attest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Event types and forms of the TCG PC Client Platform Firmware Profile, part 10.
const (
	evNoAction        = 0x00000003
	evSeparator       = 0x00000004
	evVariable        = 0x80000001 // EV_EFI_VARIABLE_DRIVER_CONFIG
	evBootApplication = 0x80000003
	evAction          = 0x80000007 // EV_EFI_ACTION
	evAuthority       = 0x800000e0 // EV_EFI_VARIABLE_AUTHORITY

	specSignature = "Spec ID Event03\x00"
)

// Bounds of an event log.
const (
	maxEvents     = 2048
	maxAlgorithms = 8
	maxEventPCR   = 23
)

// digestSizes of the algorithms that a TPM may have.
var digestSizes = map[uint16]int{0x0004: 20, algSHA256: 32, 0x000c: 48, 0x000d: 64, 0x0012: 32, 0x0027: 32, 0x0028: 48, 0x0029: 64}

// event is one measurement, as the log tells it. Only its digest is proved by a quote, neither its type nor its data.
type event struct {
	pcr    int
	kind   uint32
	digest Digest
	data   []byte
}

// explained says whether the data is what was measured.
func (e event) explained() bool { return sha256.Sum256(e.data) == e.digest }

// little reads little-endian fields.
type little struct{ reader }

func (r *little) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *little) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// parseLog reads a crypto-agile event log to its last byte.
func parseLog(data []byte) ([]event, error) {
	if len(data) > MaxEventLog {
		return nil, fmt.Errorf("%d bytes, more than %d", len(data), MaxEventLog)
	}
	r := &little{reader{rest: data}}
	algorithms, err := parseHeader(r)
	if err != nil {
		return nil, err
	}
	var events []event
	for len(r.rest) > 0 {
		if len(events) == maxEvents {
			return nil, fmt.Errorf("more than %d events", maxEvents)
		}
		e, err := parseEvent(r, algorithms)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// parseHeader reads the first event, which has the form of older logs, and says which digests each later one has.
func parseHeader(r *little) (map[uint16]int, error) {
	pcr, kind := r.u32(), r.u32()
	none := r.take(20)
	h := &little{reader{rest: r.take(int(r.u32()))}}
	if r.failed || pcr != 0 || kind != evNoAction || strings.Trim(string(none), "\x00") != "" || string(h.take(len(specSignature))) != specSignature {
		return nil, errors.New("it does not begin like a log of several algorithms")
	}
	h.take(4 + 1 + 1 + 1 + 1) // class of platform, version, size of its numbers
	count := h.u32()
	if h.failed || count == 0 || count > maxAlgorithms {
		return nil, errors.New("its header names no algorithms, or too many")
	}
	algorithms := make(map[uint16]int)
	for range count {
		id, size := h.u16(), h.u16()
		if _, twice := algorithms[id]; twice || digestSizes[id] == 0 || digestSizes[id] != int(size) {
			return nil, fmt.Errorf("its header names algorithm %#x with %d bytes", id, size)
		}
		algorithms[id] = int(size)
	}
	h.take(int(h.number(1))) // the maker's own
	if h.failed || len(h.rest) != 0 {
		return nil, errors.New("its header is not in its form")
	}
	if algorithms[algSHA256] == 0 {
		return nil, errors.New("it has no SHA-256")
	}
	return algorithms, nil
}

func parseEvent(r *little, algorithms map[uint16]int) (event, error) {
	e := event{pcr: int(r.u32()), kind: r.u32()}
	if count := r.u32(); r.failed || int64(count) != int64(len(algorithms)) || e.pcr > maxEventPCR {
		return event{}, errors.New("not in its form")
	}
	seen := make(map[uint16]bool, len(algorithms))
	for range algorithms {
		id := r.u16()
		size, ok := algorithms[id]
		if !ok || seen[id] {
			return event{}, fmt.Errorf("a digest of algorithm %#x", id)
		}
		seen[id] = true
		if d := r.take(size); id == algSHA256 && d != nil {
			e.digest = Digest(d)
		}
	}
	n := r.u32()
	if r.failed || int64(n) > int64(len(r.rest)) {
		return event{}, errors.New("it ends in the middle")
	}
	e.data = r.take(int(n))
	return e, nil
}

// replay does what the log says, and returns the registers.
func replay(events []event) map[int]Digest {
	m := make(map[int]Digest)
	for _, e := range events {
		if e.kind != evNoAction {
			m[e.pcr] = extend(m[e.pcr], e.digest)
		}
	}
	return m
}
