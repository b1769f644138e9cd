package pivcard

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// Serial numbers of virtual cards. No real key has one: Yubico's are eight decimal digits so far. They fit into 31 bits, so that in an attestation they
// take four bytes, as real ones do.
const (
	FirstSerial uint32 = 2_147_000_000
	LastSerial  uint32 = 2_147_483_647
)

// Instructions (SP 800-73-4 part 2, table 2; Yubico's PIV extensions).
const (
	insVerify        = 0x20
	insChange        = 0x24
	insResetRetry    = 0x2C
	insGenerate      = 0x47
	insAuthenticate  = 0x87
	insSelect        = 0xA4
	insGetResponse   = 0xC0
	insGetData       = 0xCB
	insPutData       = 0xDB
	insMoveKey       = 0xF6
	insMetadata      = 0xF7
	insSerial        = 0xF8
	insAttest        = 0xF9
	insSetRetries    = 0xFA
	insReset         = 0xFB
	insVersion       = 0xFD
	insImport        = 0xFE
	insSetManagement = 0xFF
	insReadConfig    = 0x1D // of the management applet
	insRequest       = 0x01 // of the OTP applet
	requestSerial    = 0x10 // its P1
)

// applet is which one is selected.
type applet int

const (
	appletNone applet = iota
	appletPIV
	appletManagement
	appletOTP
)

// Application identifiers, whole; a program may give the beginning.
var (
	aidPIV        = []byte{0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00}
	aidManagement = []byte{0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17}
	aidOTP        = []byte{0xA0, 0x00, 0x00, 0x05, 0x27, 0x20, 0x01, 0x01}
)

// shortestAID is the registered part of an application identifier: with less than that nothing is selected.
const shortestAID = 5

// Config is what a new card is.
type Config struct {
	Serial     uint32   // 0: one is drawn
	Firmware   Firmware // zero: DefaultFirmware
	FormFactor byte     // 0: USB-C keychain
	Issuer     *Issuer  // who made the card; needed
	Chain      Chain    // which of the issuer's hands signed the device certificate; "" is the right one for the firmware
}

// formFactorKeychain is Yubico's number of a USB-C keychain key.
const formFactorKeychain = 0x03

// Card is a virtual YubiKey. Its methods can be called from many goroutines; commands are taken one after another.
type Card struct {
	// Touch is the finger on the card.
	Touch *Touch

	busy sync.Mutex // held through a command or a change from outside, also while a touch is waited for

	mu      sync.Mutex // guards what follows; not held while a touch is waited for
	state   state
	session session
	chain   chain
	faults  Faults
	save    func([]byte) error // nil: the card forgets
	dirty   bool
	counts  Counts
}

// session is what a power cycle, or selecting an applet, ends.
type session struct {
	applet     applet
	verified   bool // PIN policy once, and reading protected objects
	fresh      bool // PIN policy always: verified, and no private key used since
	management bool
	challenge  challenge
}

// Counts are how often a card did something; they are not kept in its file.
type Counts struct {
	Commands   int `json:"commands"`
	Signatures int `json:"signatures"` // every use of a slot's private key: signatures, decryptions, key agreements
	Resets     int `json:"resets"`
}

// New makes a card as it leaves the factory: default PIN, PUK and management key, an attestation key, nothing else.
func New(c Config) (*Card, error) {
	if c.Firmware == (Firmware{}) {
		c.Firmware = DefaultFirmware
	}
	if c.FormFactor == 0 {
		c.FormFactor = formFactorKeychain
	}
	if c.Serial == 0 {
		var b [4]byte
		rand.Read(b[:])
		c.Serial = FirstSerial + binary.BigEndian.Uint32(b[:])%(LastSerial-FirstSerial+1)
	}
	if err := c.Firmware.check(); err != nil {
		return nil, fmt.Errorf("making a virtual card: %w", err)
	}
	if c.Serial < FirstSerial || c.Serial > LastSerial {
		return nil, fmt.Errorf("making a virtual card: serial %d: want one from %d to %d", c.Serial, FirstSerial, LastSerial)
	}
	if c.Issuer == nil {
		return nil, errors.New("making a virtual card: no issuer")
	}
	card := &Card{Touch: NewTouch(), state: state{Kind: stateKind, Serial: c.Serial, Firmware: c.Firmware, FormFactor: c.FormFactor}}
	card.state.factory()
	if err := card.attestedBy(c.Issuer, c.Chain); err != nil {
		return nil, fmt.Errorf("making a virtual card: %w", err)
	}
	return card, nil
}

// ATR is the answer to reset. Below firmware 5 it is a YubiKey 4's, byte for byte, since programs look at all of it. From 5 on it is a YubiKey 5's with one
// more historical field, "V" for virtual, which programs that look for the card issuer's data "YubiKey" pass over.
func (c *Card) ATR() []byte {
	historical := []byte("Yubikey4")
	if c.Firmware().Major >= 5 {
		historical = append([]byte{0x80, 0x73, 0xC0, 0x21, 0xC0, 0x57}, "YubiKey"...)
		historical = append(historical, 0x61, 'V')
	}
	atr := []byte{0x3B, 0xF0 | byte(len(historical)), 0x13, 0x00, 0x00, 0x81, 0x31, 0xFE, 0x15}
	atr = append(atr, historical...)
	var check byte
	for _, b := range atr[1:] {
		check ^= b
	}
	return append(atr, check)
}

// Firmware is the card's version.
func (c *Card) Firmware() Firmware {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Firmware
}

// Serial is the card's number.
func (c *Card) Serial() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Serial
}

// Reset is a power cycle, or a warm reset.
func (c *Card) Reset() {
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.chain = session{}, chain{}
	c.counts.Resets++
	c.Touch.forget()
}

// Transmit takes a command APDU and returns what the card answers, at least a status word. It can wait for a touch.
func (c *Card) Transmit(apdu []byte) []byte { return c.TransmitContext(context.Background(), apdu) }

// TransmitContext is Transmit whose wait for a touch ends with ctx, as when the card is pulled.
func (c *Card) TransmitContext(ctx context.Context, b []byte) []byte {
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Commands++
	cmd, sw := parseCommand(b)
	if sw != statusOK {
		c.chain = chain{}
		return answer(nil, sw)
	}
	data, sw := c.chained(ctx, cmd)
	if c.dirty {
		c.dirty = false
		if err := c.keep(); err != nil {
			return answer(nil, statusMemory)
		}
	}
	return answer(data, sw)
}

// run does a whole command, with the lock held.
func (c *Card) run(ctx context.Context, cmd apdu) ([]byte, Status) {
	if cmd.instruction == insSelect {
		return c.selectApplet(cmd)
	}
	switch c.session.applet {
	case appletPIV:
		return c.runPIV(ctx, cmd)
	case appletManagement:
		if cmd.instruction == insReadConfig {
			return c.readConfig(cmd)
		}
	case appletOTP:
		if cmd.instruction == insRequest && cmd.p1 == requestSerial {
			return binary.BigEndian.AppendUint32(nil, c.state.Serial), statusOK
		}
	}
	return nil, statusInstruction
}

func (c *Card) runPIV(ctx context.Context, cmd apdu) ([]byte, Status) {
	firmware := c.state.Firmware
	switch cmd.instruction {
	case insVerify:
		return nil, c.verify(cmd)
	case insChange:
		return nil, c.change(cmd)
	case insResetRetry:
		return nil, c.resetRetry(cmd)
	case insGetData:
		return c.getData(cmd)
	case insPutData:
		return nil, c.putData(cmd)
	case insGenerate:
		return c.generate(cmd)
	case insAuthenticate:
		return c.authenticate(ctx, cmd)
	case insVersion:
		return firmware.bytes(), statusOK
	case insSetRetries:
		return nil, c.setRetries(cmd)
	case insReset:
		return nil, c.factoryReset()
	case insImport:
		return nil, c.importKey(cmd)
	case insSetManagement:
		return nil, c.setManagement(cmd)
	case insAttest:
		return c.attest(cmd)
	case insSerial:
		if firmware.has(firmwareSerial) {
			return binary.BigEndian.AppendUint32(nil, c.state.Serial), statusOK
		}
	case insMetadata:
		if firmware.has(firmwareMetadata) {
			return c.metadata(cmd)
		}
	case insMoveKey:
		if firmware.has(firmwareMove) {
			return nil, c.moveKey(cmd)
		}
	}
	return nil, statusInstruction
}

// selectApplet ends the session of the applet before it. What cannot be selected leaves everything as it was.
func (c *Card) selectApplet(cmd apdu) ([]byte, Status) {
	if cmd.p1 != 0x04 || cmd.p2&^0x0F != 0 {
		return nil, statusParameters
	}
	named := func(aid []byte) bool { return len(cmd.data) >= shortestAID && bytes.HasPrefix(aid, cmd.data) }
	switch {
	case named(aidPIV):
		c.session = session{applet: appletPIV}
		return selected, statusOK
	case len(cmd.data) == len(aidManagement) && named(aidManagement):
		c.session = session{applet: appletManagement}
		return []byte("Virtual mgr - FW version " + c.state.Firmware.String()), statusOK
	case len(cmd.data) >= len(aidOTP)-1 && named(aidOTP) && !c.state.Firmware.has(firmwareSerial):
		c.session = session{applet: appletOTP}
		return append(c.state.Firmware.bytes(), 0, 0, 0, 0), statusOK // no slot is programmed
	}
	return nil, statusNotFound
}

// selected is the application property template that a YubiKey answers SELECT with.
var selected = []byte{
	0x61, 0x11, 0x4F, 0x06, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00,
	0x79, 0x07, 0x4F, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08,
}

// capabilityPIV is PIV's bit in the management applet's lists.
const capabilityPIV = 0x10

// readConfig is the device information of Yubico's management applet; PIV is all the card has.
func (c *Card) readConfig(cmd apdu) ([]byte, Status) {
	if cmd.p1 != 0 {
		return []byte{0}, statusOK // no more pages
	}
	info := bytes.Join([][]byte{
		tlv(0x01, []byte{capabilityPIV}),
		tlv(0x02, binary.BigEndian.AppendUint32(nil, c.state.Serial)),
		tlv(0x03, []byte{capabilityPIV}),
		tlv(0x04, []byte{c.state.FormFactor}),
		tlv(0x05, c.state.Firmware.bytes()),
		tlv(0x0A, []byte{0}), // not locked
	}, nil)
	return append([]byte{byte(len(info))}, info...), statusOK
}
