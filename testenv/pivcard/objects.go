package pivcard

import (
	"fmt"
	"slices"
)

// Tags of data objects (SP 800-73-4 part 1, table 3; Yubico).
const (
	objectDiscovery    = 0x7E
	objectBiometrics   = 0x7F61
	objectFingerprints = 0x5FC103
	objectFacial       = 0x5FC108
	objectPrinted      = 0x5FC109
	objectIris         = 0x5FC121
	objectAttestation  = 0x5FFF01
	objectFirst        = 0x5F0000
	objectLast         = 0x5FFFFF

	tagList  = 0x5C
	tagValue = 0x53
)

// Limits as Yubico documents them: about 3052 bytes an object, about 51 000 in all.
const (
	maxObject     = 3052
	maxObjects    = 51_000
	objectsCost   = 16 // of each object, beside its bytes; bounds their number
	objectHexForm = "%x"
)

// protected are the objects that are read only with the PIN.
var protected = []uint32{objectFingerprints, objectFacial, objectPrinted, objectIris}

// discovery says that the application PIN is there, and nothing else.
var discovery = []byte{
	0x7E, 0x12, 0x4F, 0x0B, 0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00, 0x5F, 0x2F, 0x02, 0x40, 0x00,
}

func knownObject(tag uint32) bool {
	return tag == objectDiscovery || tag == objectBiometrics || tag >= objectFirst && tag <= objectLast
}

func objectName(tag uint32) string { return fmt.Sprintf(objectHexForm, tag) }

// number reads a tag given as a value.
func number(b []byte) (tag uint32, ok bool) {
	if len(b) == 0 || len(b) > longestTag {
		return 0, false
	}
	for _, v := range b {
		tag = tag<<8 | uint32(v)
	}
	return tag, true
}

// getData answers with an object as it was put, in its outer tag.
func (c *Card) getData(cmd apdu) ([]byte, Status) {
	if cmd.p1 != 0x3F || cmd.p2 != 0xFF {
		return nil, statusParameters
	}
	f, rest, ok := next(cmd.data)
	if !ok || f.tag != tagList || len(rest) != 0 {
		return nil, statusData
	}
	tag, ok := number(f.value)
	if !ok {
		return nil, statusData
	}
	object, ok := c.state.Objects[objectName(tag)]
	switch {
	case ok && slices.Contains(protected, tag) && !c.session.verified: // a YubiKey tells without PIN that an object is not there
		return nil, statusSecurity
	case ok:
		return object, statusOK
	case tag == objectDiscovery:
		return discovery, statusOK
	}
	return nil, statusNotFound
}

// putData writes an object; an empty one deletes it.
func (c *Card) putData(cmd apdu) Status {
	if cmd.p1 != 0x3F || cmd.p2 != 0xFF {
		return statusParameters
	}
	if !c.session.management {
		return statusSecurity
	}
	f, rest, ok := next(cmd.data)
	if !ok {
		return statusData
	}
	object := cmd.data // discovery and biometrics come in their own tags
	tag, value := f.tag, f.value
	if f.tag == tagList {
		if tag, ok = number(f.value); !ok {
			return statusData
		}
		object = rest
		if f, rest, ok = next(object); !ok || f.tag != tagValue {
			return statusData
		}
		value = f.value
		if tag == objectDiscovery || tag == objectBiometrics {
			return statusData
		}
	} else if f.tag != objectDiscovery && f.tag != objectBiometrics {
		return statusData
	}
	if len(rest) != 0 {
		return statusData
	}
	if !knownObject(tag) {
		return statusNotFound
	}
	name := objectName(tag)
	if len(value) == 0 {
		delete(c.state.Objects, name)
		c.dirty = true
		return statusOK
	}
	if len(object) > maxObject {
		return statusNoSpace
	}
	used := len(object) + objectsCost
	for n, o := range c.state.Objects {
		if n != name {
			used += len(o) + objectsCost
		}
	}
	if used > maxObjects {
		return statusNoSpace
	}
	c.state.Objects[name] = slices.Clone(object)
	c.dirty = true
	return statusOK
}
