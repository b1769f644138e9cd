package card

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mayfly/internal/hint"
)

// What a PIV card has from the factory (specification constants).
const (
	factoryPIN = "123456"
	factoryPUK = "12345678"
)

// factoryManagement is the management key from the factory: AES-192 from firmware 5.7 on, 3DES before.
var factoryManagement = []byte{
	1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8,
}

// Forms of PIN and PUK. (specification constants)
const (
	minPIN = 6
	maxPIN = 8
	lenPUK = 8
)

// managementBytes is the length of a management key that piv-go can keep on the card: AES-192, or 3DES with old firmware.
const managementBytes = 24

// Secrets is what a card says of its secrets: firmware 5.3 and later.
type Secrets struct {
	Known      bool  `json:"known"` // the card says it
	PIN        Tries `json:"pin"`
	PUK        Tries `json:"puk"`
	Management bool  `json:"factory_management_key"` // the management key is the factory's
}

// Tries is the state of PIN or PUK.
type Tries struct {
	Factory bool `json:"factory"` // it is the one from the factory
	Total   int  `json:"tries"`
	Left    int  `json:"left"`
}

// CheckPIN says what is wrong with a new PIN.
func CheckPIN(pin string) error {
	if len(pin) < minPIN || len(pin) > maxPIN {
		return hint.New(fmt.Errorf("the PIN has %d characters: want %d to %d", len(pin), minPIN, maxPIN), "other programs take digits only")
	}
	return checkSecret("PIN", pin)
}

// CheckPUK says what is wrong with a new PUK.
func CheckPUK(puk, pin string) error {
	if len(puk) != lenPUK {
		return hint.New(fmt.Errorf("the PUK has %d characters: want %d", len(puk), lenPUK), "other programs take digits only")
	}
	if pin != "" && strings.HasPrefix(puk, pin) {
		return hint.New(errors.New("the PUK begins with the PIN"), "whoever knows the one must not know the other")
	}
	return checkSecret("PUK", puk)
}

func checkSecret(what, s string) error {
	if strings.ContainsFunc(s, func(c rune) bool { return c < '!' || c > '~' }) {
		return hint.New(fmt.Errorf("the %s has a character that cards do not take", what), "digits work everywhere")
	}
	for _, step := range []int{-1, 0, 1} {
		if !slices.ContainsFunc([]byte(s[1:]), func() func(byte) bool {
			last := s[0]
			return func(c byte) bool {
				differs := int(c)-int(last) != step
				last = c
				return differs
			}
		}()) {
			return hint.New(fmt.Errorf("the %s is the first that anybody tries", what), "no runs and no repetitions, and not the factory's %s or %s", factoryPIN, factoryPUK)
		}
	}
	return nil
}

// Instructions and references (specification constants): NIST SP 800-73-4, part 2, and Yubico's extensions.
const (
	insSelect   = 0xa4
	insMetadata = 0xf7

	refPIN        = 0x80
	refPUK        = 0x81
	refManagement = 0x9b

	tagFactory = 0x05
	tagTries   = 0x06
)

var applet = []byte{0xa0, 0x00, 0x00, 0x03, 0x08}

// ReadSecrets selects PIV and asks for the metadata of each secret, with APDUs that transmit sends one of and answers with its status
// word. A card that does not know the question is no error.
func ReadSecrets(transmit func(request []byte) ([]byte, error)) (Secrets, error) {
	ask := func(request ...byte) (body []byte, status uint16, err error) {
		answer, err := transmit(request)
		if err != nil {
			return nil, 0, err
		}
		if len(answer) < 2 {
			return nil, 0, fault(Garbage, fmt.Errorf("the card answered %d bytes", len(answer)))
		}
		body = answer[:len(answer)-2]
		return body, uint16(answer[len(answer)-2])<<8 | uint16(answer[len(answer)-1]), nil
	}
	const done = 0x9000
	_, status, err := ask(append([]byte{0, insSelect, 4, 0, byte(len(applet))}, applet...)...)
	if err != nil {
		return Secrets{}, err
	}
	if status != done && status>>8 != 0x61 {
		return Secrets{}, fault(NoPIV, fmt.Errorf("the card has no PIV, or it is switched off (%04x)", status))
	}
	s := Secrets{Known: true}
	for ref, into := range map[byte]*Tries{refPIN: &s.PIN, refPUK: &s.PUK, refManagement: nil} {
		body, status, err := ask(0, insMetadata, 0, ref, 0)
		if err != nil {
			return Secrets{}, err
		}
		if status != done {
			return Secrets{}, nil
		}
		t, err := parseMetadata(body)
		if err != nil {
			return Secrets{}, fault(Garbage, fmt.Errorf("the card's answer about reference %02x: %w", ref, err))
		}
		if into == nil {
			s.Management = t.Factory
		} else {
			*into = t
		}
	}
	return s, nil
}

// parseMetadata reads tag, length and value, each of one byte but the value.
func parseMetadata(b []byte) (Tries, error) {
	var t Tries
	for len(b) > 0 {
		if len(b) < 2 || int(b[1]) > len(b)-2 || b[1] >= 0x80 {
			return Tries{}, errors.New("it is cut short")
		}
		tag, value := b[0], b[2:2+b[1]]
		b = b[2+len(value):]
		switch {
		case tag == tagFactory && len(value) == 1:
			t.Factory = value[0] != 0
		case tag == tagTries && len(value) == 2:
			t.Total, t.Left = int(value[0]), int(value[1])
		}
	}
	return t, nil
}
