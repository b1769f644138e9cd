package pivcard

import (
	"fmt"
	"strconv"
	"strings"
)

// Firmware is a version of a YubiKey's firmware. It decides which commands and algorithms there are.
type Firmware struct{ Major, Minor, Patch byte }

// Versions at which something came.
var (
	firmwareOldest     = Firmware{4, 3, 0} // attestation, touch policy cached
	firmwareSerial     = Firmware{5, 0, 0} // GET SERIAL, serial and form factor in attestations
	firmwareMetadata   = Firmware{5, 3, 0}
	firmwareAES        = Firmware{5, 4, 0} // AES management keys; Yubico: 5.4.2
	firmwareMove       = Firmware{5, 7, 0} // move, delete, Ed25519, X25519, RSA-3072 and -4096, AES-192 as the default management key
	firmwareNewChain   = Firmware{5, 7, 4} // attestation chain with intermediates
	firmwareNewest     = Firmware{5, 7, 255}
	DefaultFirmware    = Firmware{5, 7, 4}
	errFirmwareUnknown = fmt.Errorf("want a version from %s to %s", firmwareOldest, firmwareNewest)
)

// has says whether this is v or a later one.
func (f Firmware) has(v Firmware) bool {
	if f.Major != v.Major {
		return f.Major > v.Major
	}
	if f.Minor != v.Minor {
		return f.Minor > v.Minor
	}
	return f.Patch >= v.Patch
}

func (f Firmware) bytes() []byte { return []byte{f.Major, f.Minor, f.Patch} }

func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Patch) }

// check refuses versions that this package does not know.
func (f Firmware) check() error {
	if !f.has(firmwareOldest) || !firmwareNewest.has(f) {
		return fmt.Errorf("firmware %s: %w", f, errFirmwareUnknown)
	}
	return nil
}

// MarshalText writes it as 5.7.4.
func (f Firmware) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is MarshalText's inverse and takes versions that this package knows.
func (f *Firmware) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), ".")
	if len(parts) != 3 {
		return fmt.Errorf("firmware %q: want three numbers", text)
	}
	var v [3]byte
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return fmt.Errorf("firmware %q: want three numbers", text)
		}
		v[i] = byte(n)
	}
	*f = Firmware{v[0], v[1], v[2]}
	return f.check()
}
