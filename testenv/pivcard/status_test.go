package pivcard

import (
	"bytes"
	"testing"
)

var (
	fw435 = Firmware{4, 3, 5}
	fw527 = Firmware{5, 2, 7}
	fw530 = Firmware{5, 3, 0}
	fw543 = Firmware{5, 4, 3}
	fw574 = Firmware{5, 7, 4}
)

// setups are the states that the table below speaks of.
var setups = map[string]func(c client){
	"":        func(client) {},
	"managed": func(c client) { c.administrator() },
	"pin":     func(c client) { c.pin(DefaultPIN) },
	"both":    func(c client) { c.administrator(); c.pin(DefaultPIN) },
	"blocked": func(c client) {
		for range defaultTries {
			c.pin("000000")
		}
	},
	"all blocked": func(c client) {
		for range defaultTries {
			c.pin("000000")
			c.send(0x24, 0, 0x81, append(padded("00000000"), padded("00000000")...))
		}
	},
	"key": func(c client) { // P-256 in 9a, no PIN, no touch
		c.administrator()
		c.must(0x47, 0, 0x9A, []byte{0xAC, 0x09, 0x80, 0x01, 0x11, 0xAA, 0x01, 0x01, 0xAB, 0x01, 0x01})
	},
	"key with PIN": func(c client) {
		c.administrator()
		c.must(0x47, 0, 0x9A, []byte{0xAC, 0x09, 0x80, 0x01, 0x11, 0xAA, 0x01, 0x02, 0xAB, 0x01, 0x01})
	},
	"key with touch refused": func(c client) {
		c.administrator()
		c.must(0x47, 0, 0x9A, []byte{0xAC, 0x09, 0x80, 0x01, 0x11, 0xAA, 0x01, 0x01, 0xAB, 0x01, 0x02})
		c.card.Touch.SetMode(TouchRefused)
	},
	"two keys": func(c client) {
		c.administrator()
		c.must(0x47, 0, 0x9A, []byte{0xAC, 0x03, 0x80, 0x01, 0x11})
		c.must(0x47, 0, 0x9C, []byte{0xAC, 0x03, 0x80, 0x01, 0x11})
	},
	"imported": func(c client) {
		c.administrator()
		c.must(0xFE, 0x11, 0x9A, append([]byte{0x06, 0x20}, bytes.Repeat([]byte{0x42}, 32)...))
	},
	"printed": func(c client) {
		c.administrator()
		c.must(0xDB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xC1, 0x09, 0x53, 1, 7})
	},
	"elsewhere": func(c client) { c.must(0xA4, 4, 0, aidManagement) },
	"unpowered": func(c client) { c.card.Reset() },
}

// Where a status word is known from.
const (
	nist   = "SP 800-73-4 part 2, of that command"
	iso    = "ISO/IEC 7816-4, table 5 and 6"
	yubico = "Yubico's documentation of the PIV APDUs (.NET SDK manual)"
	tool   = "yubico-piv-tool, lib/ykpiv.c: what it takes the status word for"
	opensc = "OpenSC, card-piv.c: what it knows that YubiKeys do, CI_LEAKS_FILE_NOT_FOUND"
	pivgo  = "piv-go v2.6.0: what it takes the status word for"
	ours   = "not documented; the nearest of ISO/IEC 7816-4"
)

// TestStatusWords has one row for each way in which a command is refused.
func TestStatusWords(t *testing.T) {
	pins := func(old, fresh string) []byte { return append(padded(old), padded(fresh)...) }
	sign := append([]byte{0x7C, 0x24, 0x82, 0x00, 0x81, 0x20}, bytes.Repeat([]byte{1}, 32)...)
	generate := func(algorithm byte) []byte { return []byte{0xAC, 0x03, 0x80, 0x01, algorithm} }
	put := func(value []byte) []byte {
		return append([]byte{0x5C, 0x03, 0x5F, 0xC1, 0x02}, tlv(0x53, value)...)
	}
	key192 := append([]byte{0x0A, 0x9B, 24}, bytes.Repeat([]byte{9}, 24)...)
	for _, tt := range []struct {
		name        string
		firmware    Firmware
		setup       string
		ins, p1, p2 byte
		data        []byte
		want        Status
		source      string
	}{
		{"an applet that is not there", fw574, "", 0xA4, 4, 0, []byte{0xA0, 0, 0, 6, 0x47, 0x2F, 0, 1}, 0x6A82, nist},
		{"an applet by less than its registered part", fw574, "", 0xA4, 4, 0, []byte{0xA0, 0, 0, 3}, 0x6A82, nist},
		{"an applet by no name", fw574, "", 0xA4, 4, 0, nil, 0x6A82, nist},
		{"an applet by more than its name", fw574, "", 0xA4, 4, 0, append(bytes.Clone(aidPIV), 0), 0x6A82, nist},
		{"the OTP applet from 5 on", fw527, "", 0xA4, 4, 0, aidOTP, 0x6A82, yubico},
		{"a file instead of an applet", fw574, "", 0xA4, 0, 0, []byte{0x3F, 0}, 0x6A86, iso},
		{"an unknown instruction", fw574, "", 0x99, 0, 0, nil, 0x6D00, iso},
		{"a command of PIV before it is selected", fw574, "unpowered", 0xFD, 0, 0, nil, 0x6D00, iso},
		{"a command of PIV at another applet", fw574, "elsewhere", 0xFD, 0, 0, nil, 0x6D00, iso},
		{"nothing left to get", fw574, "", 0xC0, 0, 0, nil, 0x6985, ours},

		{"serial number below 5", fw435, "", 0xF8, 0, 0, nil, 0x6D00, yubico},
		{"metadata below 5.3", fw527, "key", 0xF7, 0, 0x9A, nil, 0x6D00, yubico},
		{"move key below 5.7", fw543, "key", 0xF6, 0x82, 0x9A, nil, 0x6D00, tool},

		{"tries left", fw574, "", 0x20, 0, 0x80, nil, 0x63C3, nist},
		{"wrong PIN", fw574, "", 0x20, 0, 0x80, padded("000000"), 0x63C2, nist},
		{"PIN blocked", fw574, "blocked", 0x20, 0, 0x80, padded(DefaultPIN), 0x6983, nist},
		{"tries left of a blocked PIN", fw574, "blocked", 0x20, 0, 0x80, nil, 0x6983, nist},
		{"PIN of a wrong length", fw574, "", 0x20, 0, 0x80, []byte("123456"), 0x6A80, nist},
		{"an unknown PIN", fw574, "", 0x20, 0, 0x81, padded(DefaultPUK), 0x6A88, nist},
		{"a log-out with a PIN", fw574, "", 0x20, 0xFF, 0x80, padded(DefaultPIN), 0x6A86, nist},

		{"change with a wrong PIN", fw574, "", 0x24, 0, 0x80, pins("000000", "654321"), 0x63C2, nist},
		{"change of a blocked PIN", fw574, "blocked", 0x24, 0, 0x80, pins(DefaultPIN, "654321"), 0x6983, nist},
		{"change to a short PIN", fw574, "", 0x24, 0, 0x80, pins(DefaultPIN, "12345"), 0x6985, yubico},
		{"change to a PIN with padding inside", fw574, "", 0x24, 0, 0x80, append(padded(DefaultPIN), '1', '2', '3', '4', '5', '6', 0xFF, '7'), 0x6985, yubico},
		{"change to bytes above 7F from 5.7 on", fw574, "", 0x24, 0, 0x81, pins(DefaultPUK, "\x801234567"), 0x6985, yubico},
		{"change with data of a wrong length", fw574, "", 0x24, 0, 0x80, padded(DefaultPIN), 0x6A80, yubico},
		{"change of an unknown PIN", fw574, "", 0x24, 0, 0x82, pins(DefaultPIN, "654321"), 0x6A88, yubico},
		{"unblocking with a wrong PUK", fw574, "", 0x2C, 0, 0x80, pins("00000000", "654321"), 0x63C2, nist},
		{"unblocking with a blocked PUK", fw574, "all blocked", 0x2C, 0, 0x80, pins(DefaultPUK, "654321"), 0x6983, nist},
		{"unblocking something else", fw574, "", 0x2C, 0, 0x81, pins(DefaultPUK, "654321"), 0x6A88, nist},
		{"set tries without PIN", fw574, "managed", 0xFA, 3, 3, nil, 0x6982, yubico},
		{"set tries without management key", fw574, "pin", 0xFA, 3, 3, nil, 0x6982, yubico},
		{"set no tries at all", fw574, "both", 0xFA, 0, 3, nil, 0x6A80, ours},
		{"reset of a card that is not blocked", fw574, "", 0xFB, 0, 0, nil, 0x6985, yubico},
		{"reset with the PUK not blocked", fw574, "blocked", 0xFB, 0, 0, nil, 0x6985, yubico},

		{"an object that is not there", fw574, "", 0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xC1, 0x02}, 0x6A82, nist},
		{"a tag that is none", fw574, "", 0xCB, 0x3F, 0xFF, []byte{0x5C, 1, 0x42}, 0x6A82, nist},
		{"a protected object that is not there, without PIN", fw574, "", 0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xC1, 0x09}, 0x6A82, opensc},
		{"a protected object without PIN", fw574, "printed", 0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xC1, 0x09}, 0x6982, nist},
		{"get data without a tag list", fw574, "", 0xCB, 0x3F, 0xFF, []byte{0x5C, 4, 0x5F}, 0x6A80, ours},
		{"get data from elsewhere", fw574, "", 0xCB, 0, 0, []byte{0x5C, 3, 0x5F, 0xC1, 0x02}, 0x6A86, iso},
		{"put data without management key", fw574, "pin", 0xDB, 0x3F, 0xFF, put([]byte{1}), 0x6982, nist},
		{"put data to elsewhere", fw574, "managed", 0xDB, 0, 0, put([]byte{1}), 0x6A86, iso},
		{"put data without the outer tag", fw574, "managed", 0xDB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xC1, 0x02, 0x54, 0}, 0x6A80, yubico},
		{"put data with more behind", fw574, "managed", 0xDB, 0x3F, 0xFF, append(put([]byte{1}), 0), 0x6A80, yubico},
		{"put data to a tag that is none", fw574, "managed", 0xDB, 0x3F, 0xFF, []byte{0x5C, 3, 0x60, 0xC1, 0x02, 0x53, 1, 1}, 0x6A82, ours},
		{"put data of nothing", fw574, "managed", 0xDB, 0x3F, 0xFF, nil, 0x6A80, yubico},
		{"put data with a tag of four bytes", fw574, "managed", 0xDB, 0x3F, 0xFF, []byte{0x5C, 4, 0x5F, 0xC1, 0x02, 0, 0x53, 0}, 0x6A80, yubico},
		{"put data without a tag list", fw574, "managed", 0xDB, 0x3F, 0xFF, []byte{0x53, 1, 1}, 0x6A80, yubico},
		{"the discovery object in the outer tag of others", fw574, "managed", 0xDB, 0x3F, 0xFF, []byte{0x5C, 1, 0x7E, 0x53, 1, 1}, 0x6A80, yubico},
		{"get data with a tag of four bytes", fw574, "", 0xCB, 0x3F, 0xFF, []byte{0x5C, 4, 0x5F, 0xC1, 0x02, 0}, 0x6A80, ours},
		{"an object that is too long", fw574, "managed", 0xDB, 0x3F, 0xFF, put(make([]byte, maxObject)), 0x6A84, nist},

		{"a wrong witness", fw574, "", 0x87, 0x0A, 0x9B, append(append([]byte{0x7C, 36, 0x80, 16}, make([]byte, 16)...), append([]byte{0x81, 16}, make([]byte, 16)...)...), 0x6982, yubico},
		{"a response nobody asked for", fw574, "", 0x87, 0x0A, 0x9B, append([]byte{0x7C, 18, 0x82, 16}, make([]byte, 16)...), 0x6982, yubico},
		{"another algorithm than the management key's", fw574, "", 0x87, 0x03, 0x9B, []byte{0x7C, 2, 0x80, 0}, 0x6A80, nist},
		{"no template", fw574, "", 0x87, 0x0A, 0x9B, []byte{0x7D, 0}, 0x6A80, nist},
		{"new management key without the old one", fw574, "pin", 0xFF, 0xFF, 0xFF, key192, 0x6982, yubico},
		{"new management key with an unknown touch policy", fw574, "managed", 0xFF, 0xFF, 0xFC, key192, 0x6A86, ours},
		{"new management key of a wrong length", fw574, "managed", 0xFF, 0xFF, 0xFF, key192[:26], 0x6A80, ours},
		{"AES below 5.4", fw530, "managed", 0xFF, 0xFF, 0xFF, key192, 0x6A80, yubico},
		{"a weak 3DES key", fw543, "managed", 0xFF, 0xFF, 0xFF, append([]byte{0x03, 0x9B, 24}, make([]byte, 24)...), 0x6A80, ours},

		{"generate without management key", fw574, "pin", 0x47, 0, 0x9A, generate(0x11), 0x6982, nist},
		{"generate in no slot", fw574, "managed", 0x47, 0, 0x9B, generate(0x11), 0x6B00, tool},
		{"generate without a template", fw574, "managed", 0x47, 0, 0x9A, []byte{0x80, 1, 0x11}, 0x6A80, nist},
		{"generate without an algorithm", fw574, "managed", 0x47, 0, 0x9A, []byte{0xAC, 3, 0xAA, 1, 2}, 0x6A80, nist},
		{"generate with an algorithm twice", fw574, "managed", 0x47, 0, 0x9A, []byte{0xAC, 6, 0x80, 1, 0x11, 0x80, 1, 0x14}, 0x6A80, nist},
		{"generate with an unknown algorithm", fw574, "managed", 0x47, 0, 0x9A, generate(0x22), 0x6A80, nist},
		{"Ed25519 below 5.7", fw543, "managed", 0x47, 0, 0x9A, generate(0xE0), 0x6A80, tool},
		{"RSA-3072 below 5.7", fw543, "managed", 0x47, 0, 0x9A, generate(0x05), 0x6A80, tool},
		{"an unknown PIN policy", fw574, "managed", 0x47, 0, 0x9A, []byte{0xAC, 6, 0x80, 1, 0x11, 0xAA, 1, 9}, 0x6A80, tool},
		{"a biometric policy", fw574, "managed", 0x47, 0, 0x9A, []byte{0xAC, 6, 0x80, 1, 0x11, 0xAA, 1, 4}, 0x6A80, tool},
		{"an unknown touch policy", fw574, "managed", 0x47, 0, 0x9A, []byte{0xAC, 6, 0x80, 1, 0x11, 0xAB, 1, 4}, 0x6A80, tool},
		{"an attestation key that cannot sign certificates", fw574, "managed", 0x47, 0, 0xF9, generate(0xE1), 0x6A80, yubico},
		{"import without management key", fw574, "pin", 0xFE, 0x11, 0x9A, append([]byte{6, 32}, make([]byte, 32)...), 0x6982, yubico},
		{"import of no key", fw574, "managed", 0xFE, 0x11, 0x9A, append([]byte{6, 32}, make([]byte, 32)...), 0x6A80, tool},
		{"import of a wrong length", fw574, "managed", 0xFE, 0x11, 0x9A, append([]byte{6, 31}, make([]byte, 31)...), 0x6A80, tool},
		{"import of a part twice", fw574, "managed", 0xFE, 0x11, 0x9A, append(append([]byte{6, 32}, bytes.Repeat([]byte{5}, 32)...), append([]byte{6, 32}, bytes.Repeat([]byte{6}, 32)...)...), 0x6A80, tool},
		{"import with an unknown policy", fw574, "managed", 0xFE, 0x11, 0x9A, append(append([]byte{6, 32}, bytes.Repeat([]byte{5}, 32)...), 0xAB, 1, 9), 0x6A80, tool},
		{"import of an algorithm that is not there", fw543, "managed", 0xFE, 0xE0, 0x9A, append([]byte{7, 32}, make([]byte, 32)...), 0x6A80, tool},
		{"import of half an RSA key", fw574, "managed", 0xFE, 0x06, 0x9A, append([]byte{1, 64}, bytes.Repeat([]byte{5}, 64)...), 0x6A80, tool},
		{"import into no slot", fw574, "managed", 0xFE, 0x11, 0x80, nil, 0x6B00, tool},

		{"a signature without a key", fw574, "pin", 0x87, 0x11, 0x9A, sign, 0x6A80, nist},
		{"a signature of another algorithm", fw574, "key", 0x87, 0x14, 0x9A, sign, 0x6A80, nist},
		{"a signature without PIN", fw574, "key with PIN", 0x87, 0x11, 0x9A, sign, 0x6982, nist},
		{"a signature without touch", fw574, "key with touch refused", 0x87, 0x11, 0x9A, sign, 0x6982, yubico},
		{"a digest that is too long", fw574, "key", 0x87, 0x11, 0x9A, append([]byte{0x7C, 0x25, 0x82, 0x00, 0x81, 0x21}, make([]byte, 33)...), 0x6A80, nist},
		{"a signature without a template", fw574, "key", 0x87, 0x11, 0x9A, sign[2:], 0x6A80, nist},
		{"a template with nothing to sign", fw574, "key", 0x87, 0x11, 0x9A, []byte{0x7C, 4, 0x82, 0, 0x83, 0}, 0x6A80, nist},
		{"an agreement with half a point", fw574, "key", 0x87, 0x11, 0x9A, []byte{0x7C, 5, 0x82, 0, 0x85, 1, 4}, 0x6A80, nist},
		{"no response asked for", fw574, "key", 0x87, 0x11, 0x9A, append([]byte{0x7C, 0x22, 0x81, 0x20}, make([]byte, 32)...), 0x6A80, nist},
		{"a point that is on no curve", fw574, "key", 0x87, 0x11, 0x9A, append([]byte{0x7C, 0x45, 0x82, 0x00, 0x85, 0x41, 0x04}, make([]byte, 64)...), 0x6A80, nist},
		{"a signature by the attestation key", fw574, "pin", 0x87, 0x07, 0xF9, sign, 0x6B00, yubico},
		{"a signature by no slot", fw574, "pin", 0x87, 0x11, 0x70, sign, 0x6B00, tool},

		{"metadata of an empty slot", fw574, "", 0xF7, 0, 0x9A, nil, 0x6A88, pivgo},
		{"metadata of no slot", fw574, "", 0xF7, 0, 0x70, nil, 0x6B00, tool},
		{"attestation of an empty slot", fw574, "", 0xF9, 0x9A, 0, nil, 0x6A80, pivgo},
		{"attestation of an imported key", fw574, "imported", 0xF9, 0x9A, 0, nil, 0x6A80, tool},
		{"attestation of the attestation key", fw574, "", 0xF9, 0xF9, 0, nil, 0x6B00, tool},

		{"move without management key", fw574, "pin", 0xF6, 0x82, 0x9A, nil, 0x6982, tool},
		{"move from an empty slot", fw574, "managed", 0xF6, 0x82, 0x9A, nil, 0x6A88, tool},
		{"move to where a key is", fw574, "two keys", 0xF6, 0x9C, 0x9A, nil, 0x6985, tool},
		{"move to no slot", fw574, "key", 0xF6, 0x70, 0x9A, nil, 0x6B00, tool},
		{"move of the attestation key", fw574, "managed", 0xF6, 0x82, 0xF9, nil, 0x6B00, yubico},
		{"move to itself", fw574, "key", 0xF6, 0x9A, 0x9A, nil, 0x6B00, yubico},
		{"deletion in an empty slot", fw574, "managed", 0xF6, 0xFF, 0x9A, nil, 0x6A88, tool},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCard(t, tt.firmware)
			setups[tt.setup](c)
			signatures := c.card.Show().Signatures
			c.refused(tt.want, tt.ins, tt.p1, tt.p2, tt.data)
			if tt.source == "" {
				t.Error("the row has no source")
			}
			if got := c.card.Show().Signatures; got != signatures {
				t.Error("what was refused was done")
			}
		})
	}
}

// TestBytes has APDUs that are none, and classes.
func TestBytes(t *testing.T) {
	for _, tt := range []struct {
		name string
		apdu []byte
		want Status
	}{
		{"nothing", nil, 0x6700},
		{"three bytes", []byte{0, 0xFD, 0}, 0x6700},
		{"less data than said", []byte{0, 0xFD, 0, 0, 2, 1}, 0x6700},
		{"more data than said", []byte{0, 0xFD, 0, 0, 1, 1, 0, 0}, 0x6700},
		{"an extended length of nothing", []byte{0, 0xFD, 0, 0, 0, 0}, 0x6700},
		{"extended, less data than said", []byte{0, 0xFD, 0, 0, 0, 0, 2, 1}, 0x6700},
		{"extended, data of no length", []byte{0, 0xFD, 0, 0, 0, 0, 0, 1}, 0x6700},
		{"secure messaging", []byte{0x0C, 0xFD, 0, 0}, 0x6882},
		{"another class", []byte{0x80, 0xFD, 0, 0}, 0x6E00},
		{"a logical channel", []byte{0x01, 0xFD, 0, 0}, 0x6E00},
		{"case 1", []byte{0, 0xFD, 0, 0}, 0x9000},
		{"case 2, short", []byte{0, 0xFD, 0, 0, 0}, 0x9000},
		{"case 2, short, less than there is", []byte{0, 0xFD, 0, 0, 2}, 0x6101},
		{"case 2, extended", []byte{0, 0xFD, 0, 0, 0, 0, 0}, 0x9000},
		{"case 3, extended", []byte{0, 0xFD, 0, 0, 0, 0, 1, 9}, 0x9000},
		{"case 4, short", []byte{0, 0xFD, 0, 0, 1, 9, 0}, 0x9000},
		{"case 4, extended", []byte{0, 0xFD, 0, 0, 0, 0, 1, 9, 0, 2}, 0x6101},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCard(t, fw574)
			if _, sw := c.raw(tt.apdu); sw != tt.want {
				t.Errorf("% x: got %04x, want %04x", tt.apdu, uint16(sw), uint16(tt.want))
			}
		})
	}
}
