package attest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
)

// Bounds of what is read out of an event.
const (
	maxAction   = 128 // text of EV_EFI_ACTION
	maxVariable = 64  // name of a variable
)

// GUIDs of the variables that are read, as they lie in memory.
var (
	globalGUID   = []byte("\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c") // EFI_GLOBAL_VARIABLE
	securityGUID = []byte("\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f") // EFI_IMAGE_SECURITY_DATABASE_GUID
)

const guidBytes = 16

// applications returns the hashes of what the firmware started, in order. What an event says of itself is not proved, only its digest is: so
// everything else that the register may hold has to be explained by data that no program could be, and all the rest counts as started. After the
// image's own start there are no such events: a firmware tells there that the image returned, and that it goes on with another.
func applications(events []event, image Digest) ([]Digest, error) {
	var started []Digest
	separators := 0
	for _, e := range events {
		switch {
		case e.pcr != pcrBoot || e.kind == evNoAction:
		case slices.Contains(started, image) && e.kind != evBootApplication:
			return nil, fmt.Errorf("an event of type %#x after the start of the release's image: it returned to the firmware", e.kind)
		case e.kind == evAction && e.explained() && printable(e.data):
		case e.kind == evSeparator && e.explained() && string(e.data) == "\x00\x00\x00\x00":
			separators++
		case e.kind == evBootApplication && separators == 1:
			started = append(started, e.digest)
		default:
			return nil, fmt.Errorf("an event of type %#x that is no start of an application", e.kind)
		}
	}
	if separators != 1 {
		return nil, fmt.Errorf("%d separators: the firmware did not measure its boot", separators)
	}
	return started, nil
}

// checkDrivers wants no EFI driver but those that the inventory names: a driver has the firmware's own rights, and may lie on a medium. Where from it
// came is only told by the log.
func checkDrivers(events []event, want Expected) error {
	for _, e := range events {
		switch {
		case e.pcr != pcrDrivers || e.kind == evNoAction:
		case e.kind == evSeparator && e.explained() && string(e.data) == "\x00\x00\x00\x00":
		case e.kind == evAction && e.explained() && printable(e.data):
		case !slices.Contains(want.Drivers, e.digest):
			return refuse(Driver, "PCR %d: the firmware loaded the EFI driver %x, which the inventory does not name", pcrDrivers, e.digest)
		}
	}
	return nil
}

// printable is a short text, which no program begins like.
func printable(b []byte) bool {
	return len(b) > 0 && len(b) <= maxAction && !slices.ContainsFunc(b, func(c byte) bool { return c < ' ' || c > '~' })
}

// variable is UEFI_VARIABLE_DATA.
type variable struct {
	guid, data []byte
	name       string
}

func parseVariable(b []byte) (variable, error) {
	if len(b) < guidBytes+16 {
		return variable{}, errors.New("shorter than a variable")
	}
	nameLength, dataLength := binary.LittleEndian.Uint64(b[guidBytes:]), binary.LittleEndian.Uint64(b[guidBytes+8:])
	rest := b[guidBytes+16:]
	if nameLength > maxVariable || uint64(len(rest)) < 2*nameLength || uint64(len(rest))-2*nameLength != dataLength {
		return variable{}, errors.New("not in the form of a variable")
	}
	units := make([]uint16, nameLength)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(rest[2*i:])
	}
	return variable{guid: b[:guidBytes], name: string(utf16.Decode(units)), data: rest[2*nameLength:]}, nil
}

// authorities says under which certificates Secure Boot let something start: hashes, or an error if Secure Boot was off or the register holds
// what is not understood.
func authorities(events []event) ([]Digest, error) {
	var certificates []Digest
	on, separators := false, 0
	for _, e := range events {
		if e.pcr != pcrSecureBoot || e.kind == evNoAction {
			continue
		}
		if !e.explained() {
			return nil, errors.New("an event of Secure Boot that its data does not explain")
		}
		switch e.kind {
		case evSeparator:
			if string(e.data) != "\x00\x00\x00\x00" {
				return nil, errors.New("the firmware had an error")
			}
			separators++
		case evVariable:
			v, err := parseVariable(e.data)
			if err != nil {
				return nil, err
			}
			if string(v.guid) == string(globalGUID) && v.name == "SecureBoot" {
				if on || separators != 0 || string(v.data) != "\x01" {
					return nil, errors.New("it says that Secure Boot is off")
				}
				on = true
			}
		case evAuthority:
			v, err := parseVariable(e.data)
			if err != nil {
				return nil, err
			}
			if string(v.guid) != string(securityGUID) || v.name != "db" || len(v.data) <= guidBytes {
				return nil, errors.New("something started by another authority than a certificate in db")
			}
			certificates = append(certificates, digestOf(v.data[guidBytes:]))
		default:
			return nil, fmt.Errorf("an event of type %#x", e.kind)
		}
	}
	if !on || separators != 1 {
		return nil, errors.New("it says that Secure Boot is off")
	}
	return certificates, nil
}

// checkBoot decides what proves the image: that nothing else was started, or that all that was started was signed under the fleet's
// certificates, the image and its kernel last.
func checkBoot(events []event, want Expected) (measured, secure bool, err error) {
	if slices.Contains([]Digest{want.UKI, want.Kernel, want.Sections, want.Loaded, want.LoadedAlone}, Digest{}) {
		return false, false, refuse(Firmware, "the release has no unified kernel image that could be measured")
	}
	started, err := applications(events, want.UKI)
	if err != nil {
		return false, false, refuse(Firmware, "PCR %d: %w", pcrBoot, err)
	}
	certificates, off := authorities(events)
	secure = off == nil && len(certificates) > 0 && !slices.ContainsFunc(certificates, func(d Digest) bool { return !slices.Contains(want.SecureBoot, d) })
	// The image starts its kernel through the firmware, which measures that too; under Secure Boot systemd-stub goes past the firmware, which does not.
	n := slices.Index(started, want.UKI)
	if n < 0 {
		return false, false, refuse(Firmware, "the release's image was not started")
	}
	before, after := started[:n], started[n+1:]
	if !slices.Equal(after, []Digest{want.Kernel}) && (len(after) > 0 || off != nil) {
		return false, false, refuse(Firmware, "what was started after the release's image is not its kernel alone")
	}
	measured = len(before) == 0
	if !measured && !secure {
		return false, false, refuse(Firmware, "%d applications were started before the release's image", len(before))
	}
	return measured, secure, nil
}

// checkExtras wants nothing from beside the image but the ticket, and says if that was there.
func checkExtras(events []event, want Expected) (beside bool, err error) {
	for _, e := range events {
		if e.pcr != pcrExtras || e.kind == evNoAction {
			continue
		}
		if e.digest != want.Extras || beside {
			return false, refuse(Cmdline, "the image was started with a command line or files that are not this ticket's")
		}
		beside = true
	}
	return beside, nil
}

// checkImage wants exactly what systemd-stub measures of the release's image, and what the kernel's loader measures of the command line and the
// initramfs that it was given: a kernel that was started in another way got others.
func checkImage(values map[int]Digest, beside bool, want Expected) error {
	loaded := want.LoadedAlone
	if beside {
		loaded = want.Loaded
	}
	switch {
	case values[pcrImage] != want.Sections:
		return refuse(Image, "PCR %d does not hold the sections of the release's image", pcrImage)
	case values[pcrKernel] != loaded:
		return refuse(Image, "PCR %d: the kernel was not given the command line and the initramfs of the release's image", pcrKernel)
	}
	return nil
}
