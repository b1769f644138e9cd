package pivcard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// state is what a card keeps without power; its file is this as JSON. The keys in it are the card's own, in the open: it is software.
type state struct {
	Kind       string              `json:"kind"`
	Serial     uint32              `json:"serial"`
	Firmware   Firmware            `json:"firmware"`
	FormFactor byte                `json:"form_factor"`
	PIN        secret              `json:"pin"`
	PUK        secret              `json:"puk"`
	Management management          `json:"management"`
	Slots      map[string]*slotKey `json:"slots"`   // by number in hex
	Objects    map[string][]byte   `json:"objects"` // by tag in hex, with their outer tag
}

// stateKind names the file's format.
const stateKind = "mayfly-pivcard/1"

// maxState bounds the file: all objects and all keys of a full card, with room. Implementation constant.
const maxState = 512 << 10

// factory makes everything as it is when new, but for the attestation key and its certificate.
func (s *state) factory() {
	s.PIN, s.PUK = newSecret(DefaultPIN, defaultTries), newSecret(DefaultPUK, defaultTries)
	s.Management = management{Algorithm: algorithm3DES, Key: slices.Clone(defaultManagementKey), Touch: TouchNever}
	if s.Firmware.has(firmwareMove) {
		s.Management.Algorithm = algorithmAES192
	}
	slots, objects := map[string]*slotKey{}, map[string][]byte{}
	if k, ok := s.Slots[slotName(slotAttestation)]; ok {
		slots[slotName(slotAttestation)] = k
	}
	if o, ok := s.Objects[objectName(objectAttestation)]; ok {
		objects[objectName(objectAttestation)] = o
	}
	s.Slots, s.Objects = slots, objects
}

// check refuses what no card can have become, and reads the keys.
func (s *state) check() error {
	if s.Kind != stateKind {
		return fmt.Errorf("kind %q: want %q", s.Kind, stateKind)
	}
	if s.Serial < FirstSerial || s.Serial > LastSerial {
		return fmt.Errorf("serial %d: want one from %d to %d", s.Serial, FirstSerial, LastSerial)
	}
	if err := s.Firmware.check(); err != nil {
		return err
	}
	for name, p := range map[string]secret{"pin": s.PIN, "puk": s.PUK} {
		if len(p.Value) != pinLength || p.Tries < 1 || p.Tries > 0xFF || p.Left < 0 || p.Left > p.Tries {
			return fmt.Errorf("%s: wrong length or counter", name)
		}
	}
	m := s.Management
	if n, ok := managementLengths[m.Algorithm]; !ok || n != len(m.Key) || m.Touch < TouchNever || m.Touch > TouchCached {
		return errors.New("management: no such algorithm, length or touch policy")
	}
	if s.Slots == nil || s.Objects == nil {
		return errors.New("slots or objects are missing")
	}
	for name, k := range s.Slots {
		slot, err := strconv.ParseUint(name, 16, 8)
		if err != nil || slotName(byte(slot)) != name || !holdsKey(byte(slot)) || k == nil {
			return fmt.Errorf("slots: no slot %q", name)
		}
		if k.PIN < PINNever || k.PIN > PINAlways || k.Touch < TouchNever || k.Touch > TouchCached {
			return fmt.Errorf("slot %s: no such policy", name)
		}
		if k.private, err = parseKey(k.Algorithm, k.PKCS8); err != nil {
			return fmt.Errorf("slot %s: %w", name, err)
		}
	}
	used := 0
	for name, o := range s.Objects {
		tag, err := strconv.ParseUint(name, 16, 32)
		if err != nil || !knownObject(uint32(tag)) || objectName(uint32(tag)) != name || len(o) > maxObject {
			return fmt.Errorf("objects: no object %q, or too long", name)
		}
		used += len(o) + objectsCost
	}
	if used > maxObjects {
		return errors.New("objects: more than fits")
	}
	return nil
}

// parseState reads a card's file.
func parseState(data []byte) (state, error) {
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return state{}, err
	}
	return s, s.check()
}

// keep writes the state where it is kept, with the lock held.
func (c *Card) keep() error {
	if c.save == nil {
		return nil
	}
	data, err := json.Marshal(c.state)
	if err != nil {
		return fmt.Errorf("saving a virtual card: %w", err)
	}
	if err := c.save(append(data, '\n')); err != nil {
		return fmt.Errorf("saving a virtual card: %w", err)
	}
	return nil
}

// KeepIn writes the card to a file (0600) now and at each change before the answer to it goes out.
func (c *Card) KeepIn(path string) error {
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.save = func(data []byte) error { return durable.WriteFile(path, data, 0o600) }
	return c.keep()
}

// Load reads a card from its file and keeps it there.
func Load(path string) (*Card, error) {
	data, err := durable.ReadFile(path, maxState)
	if err != nil {
		return nil, fmt.Errorf("loading a virtual card: %w", err)
	}
	s, err := parseState(data)
	if err != nil {
		return nil, hint.New(fmt.Errorf("loading a virtual card: %s: %w", path, err), "a card's file is made by testenv pivcard; take another FILE")
	}
	c := &Card{Touch: NewTouch(), state: s}
	return c, c.KeepIn(path)
}

// LoadOrNew reads a card's file, or makes a card and the file.
func LoadOrNew(path string, config Config) (*Card, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return Load(path)
	}
	c, err := New(config)
	if err != nil {
		return nil, err
	}
	return c, c.KeepIn(path)
}
