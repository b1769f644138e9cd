//go:build pcsc

package main

// #cgo darwin LDFLAGS: -framework PCSC
// #cgo linux pkg-config: libpcsclite
// #include <stdint.h>
// #include <stdlib.h>
// #include <string.h>
// #include <PCSC/winscard.h>
// #include <PCSC/wintypes.h>
//
// #ifdef __APPLE__
// typedef SCARD_READERSTATE_A reader_state;
// #else
// typedef SCARD_READERSTATE reader_state;
// #endif
//
// // The widths of PC/SC's types differ between systems: these have one.
// static uint32_t pcsc_establish(SCARDCONTEXT *c) {
//	return (uint32_t)SCardEstablishContext(SCARD_SCOPE_SYSTEM, NULL, NULL, c);
// }
// static uint32_t pcsc_readers(SCARDCONTEXT c, char *names, uint32_t *n) {
//	DWORD size = *n;
//	uint32_t rc = (uint32_t)SCardListReaders(c, NULL, names, &size);
//	*n = (uint32_t)size;
//	return rc;
// }
// static uint32_t pcsc_state(SCARDCONTEXT c, const char *name, uint32_t *state, uint8_t *atr, uint32_t *natr) {
//	reader_state s;
//	memset(&s, 0, sizeof s);
//	s.szReader = name;
//	s.dwCurrentState = SCARD_STATE_UNAWARE;
//	uint32_t rc = (uint32_t)SCardGetStatusChange(c, 0, &s, 1);
//	*state = (uint32_t)s.dwEventState;
//	uint32_t n = (uint32_t)s.cbAtr;
//	if (n > *natr) n = *natr;
//	if (n > sizeof s.rgbAtr) n = sizeof s.rgbAtr;
//	memcpy(atr, s.rgbAtr, n);
//	*natr = n;
//	return rc;
// }
// static uint32_t pcsc_connect(SCARDCONTEXT c, const char *name, SCARDHANDLE *h) {
//	DWORD protocol;
//	return (uint32_t)SCardConnect(c, name, SCARD_SHARE_EXCLUSIVE, SCARD_PROTOCOL_T1, h, &protocol);
// }
// static uint32_t pcsc_transmit(SCARDHANDLE h, const uint8_t *request, uint32_t n, uint8_t *answer, uint32_t *m) {
//	DWORD size = *m;
//	uint32_t rc = (uint32_t)SCardTransmit(h, SCARD_PCI_T1, request, n, NULL, answer, &size);
//	*m = (uint32_t)size;
//	return rc;
// }
import "C"

import (
	"bytes"
	"context"
	"fmt"
	"time"
	"unsafe"

	"mayfly/bastion/card"
)

// Codes of PC/SC (specification constants).
const (
	pcscOK        = 0
	pcscNoReaders = 0x8010002E
)

const (
	stateEmpty     = 0x0010
	statePresent   = 0x0020
	stateExclusive = 0x0080
	stateInUse     = 0x0100
	stateMute      = 0x0200
)

// Bounds (implementation constants).
const (
	maxReaderNames = 16 << 10 // bytes
	maxAnswer      = 264      // bytes of one APDU's answer
	maxATR         = 33
	limitList      = 15 * time.Second
)

// pcscFaults are what codes of PC/SC come to.
var pcscFaults = map[uint32]card.Fault{
	0x8010001D: card.NoService, 0x8010001E: card.NoService,
	0x8010006A: card.Denied,
	0x8010002E: card.NoReader,
	0x80100009: card.Removed, 0x8010000C: card.Removed, 0x80100016: card.Removed, 0x80100017: card.Removed,
	0x80100067: card.Removed, 0x80100068: card.Removed, 0x80100069: card.Removed,
	0x8010000B: card.Busy,
	0x80100010: card.Garbage, 0x8010000F: card.Garbage, 0x8010002F: card.Garbage, 0x80100066: card.Garbage, 0x80100065: card.Garbage,
	0x8010000A: card.TooLong,
}

func pcscError(doing string, rc C.uint32_t) error {
	code := uint32(rc)
	if f, ok := pcscFaults[code]; ok {
		return card.NewError(f, "%s: %s (PC/SC %08x)", doing, card.Says(f), code)
	}
	return fmt.Errorf("%s: PC/SC error %08x", doing, code)
}

// pcsc is the way to cards through PC/SC.
type pcsc struct{}

var _ card.Reach = pcsc{}

func reach() card.Reach { return pcsc{} }

// establish opens a context, to be released.
func establish() (C.SCARDCONTEXT, error) {
	var c C.SCARDCONTEXT
	if rc := C.pcsc_establish(&c); rc != pcscOK {
		return c, pcscError("reaching PC/SC", rc)
	}
	return c, nil
}

// listing is the patience with a daemon that has stopped.
var listing = card.NewPatience(limitList)

// Readers asks PC/SC alone, and no card.
func (pcsc) Readers(ctx context.Context) ([]card.Reader, error) {
	return listing.Readers(ctx, listReaders)
}

func listReaders() ([]card.Reader, error) {
	c, err := establish()
	if err != nil {
		return nil, err
	}
	defer C.SCardReleaseContext(c)
	names := make([]byte, maxReaderNames)
	n := C.uint32_t(len(names))
	switch rc := C.pcsc_readers(c, (*C.char)(unsafe.Pointer(&names[0])), &n); {
	case rc == pcscNoReaders:
		return nil, nil
	case rc != pcscOK:
		return nil, pcscError("listing readers", rc)
	}
	var readers []card.Reader
	for name := range bytes.SplitSeq(names[:min(int(n), len(names))], []byte{0}) {
		if len(name) == 0 {
			continue
		}
		r := card.Reader{Name: string(name)}
		if err := r.Check(); err != nil || len(readers) == card.MaxReaders {
			continue
		}
		var state C.uint32_t
		var atr [maxATR]byte
		natr := C.uint32_t(len(atr))
		cname := C.CString(r.Name)
		rc := C.pcsc_state(c, cname, &state, (*C.uint8_t)(&atr[0]), &natr)
		C.free(unsafe.Pointer(cname))
		if rc != pcscOK { // it went meanwhile
			continue
		}
		r.Present, r.Mute = state&statePresent != 0 && state&stateEmpty == 0, state&stateMute != 0
		r.Exclusive, r.InUse = state&stateExclusive != 0, state&stateInUse != 0
		r.State = fmt.Sprintf("%d %x", uint32(state)>>16, atr[:natr]) // the high half counts insertions and removals
		readers = append(readers, r)
	}
	return readers, nil
}

// Secrets asks for the metadata of PIN, PUK and management key, which the library does not read.
func (pcsc) Secrets(ctx context.Context, reader string) (card.Secrets, error) {
	asking := use{doing: "asking the card in " + reader, limit: limitAsk, grace: limitGrace}
	s, _, err := bounded(ctx, asking, func() (card.Secrets, error) { return readSecrets(reader) }, nil)
	return s, err
}

func readSecrets(reader string) (card.Secrets, error) {
	c, err := establish()
	if err != nil {
		return card.Secrets{}, err
	}
	defer C.SCardReleaseContext(c)
	name := C.CString(reader)
	defer C.free(unsafe.Pointer(name))
	var h C.SCARDHANDLE
	if rc := C.pcsc_connect(c, name, &h); rc != pcscOK {
		return card.Secrets{}, pcscError("opening the card in "+reader, rc)
	}
	defer C.SCardDisconnect(h, C.SCARD_LEAVE_CARD)
	return card.ReadSecrets(func(request []byte) ([]byte, error) {
		var answer [maxAnswer]byte
		n := C.uint32_t(len(answer))
		if rc := C.pcsc_transmit(h, (*C.uint8_t)(&request[0]), C.uint32_t(len(request)), (*C.uint8_t)(&answer[0]), &n); rc != pcscOK {
			return nil, pcscError("asking the card in "+reader, rc)
		}
		return answer[:min(int(n), len(answer))], nil
	})
}
