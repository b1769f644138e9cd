package card

import (
	"fmt"
	"strconv"

	"mayfly/internal/hint"
)

// Slot is where a card keeps a key (NIST SP 800-73-4, part 1, table 4b).
type Slot uint8

// Slots that a fleet's key may be in, and those that other programs use. (specification constants)
const (
	SlotAuthentication Slot = 0x9a
	SlotSignature      Slot = 0x9c
	SlotKeyManagement  Slot = 0x9d
	SlotCard           Slot = 0x9e
	firstRetired       Slot = 0x82
	lastRetired        Slot = 0x95
)

func (s Slot) String() string { return strconv.FormatUint(uint64(s), 16) }

// Serves reports whether a fleet's key may live there: 9a, and the retired slots.
func (s Slot) Serves() bool {
	return s == SlotAuthentication || s >= firstRetired && s <= lastRetired
}

// ParseSlot reads the slot of a fleet's key.
func ParseSlot(text string) (Slot, error) {
	n, err := strconv.ParseUint(text, 16, 8)
	if err != nil || !Slot(n).Serves() || Slot(n).String() != text {
		return 0, hint.New(fmt.Errorf("slot %q: want 9a, or 82 to 95", text), "9a is the one for logins; 82 to 95 are for more keys")
	}
	return Slot(n), nil
}

// serving are all slots that a fleet's key may be in.
func serving() []Slot {
	slots := []Slot{SlotAuthentication}
	for s := firstRetired; s <= lastRetired; s++ {
		slots = append(slots, s)
	}
	return slots
}

// all are all slots in which there may be a key.
func all() []Slot {
	return append(serving(), SlotSignature, SlotKeyManagement, SlotCard)
}

// Slots are all that a fleet's key may be in.
func Slots() []Slot { return serving() }
