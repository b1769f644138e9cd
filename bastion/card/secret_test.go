package card

import (
	"errors"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

func TestCheckSecrets(t *testing.T) {
	for pin, want := range map[string]string{
		"824613": "", "8246135": "", "aB3$x9Q!": "",
		"": "0 characters", "82461": "5 characters", "824613579": "9 characters",
		"123456": "first that anybody tries", "111111": "first that anybody tries", "987654": "first that anybody tries", "abcdef": "first that anybody tries",
		"8246 13": "a character that cards do not take", "8246é3": "a character that cards do not take", "8246\x00133": "a character that cards do not take",
	} {
		err := CheckPIN(pin)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || hint.Of(err) == "") {
			t.Errorf("PIN %q: got %v, want %q with a hint", pin, err, want)
		}
		if err != nil && pin != "" && strings.Contains(err.Error(), pin) {
			t.Errorf("PIN %q: the error repeats it: %v", pin, err)
		}
	}
	for puk, want := range map[string]string{
		"46813570": "", "4681357": "7 characters", "12345678": "first that anybody tries", "82461311": "begins with the PIN", "4681357\n": "a character that cards do not take",
	} {
		err := CheckPUK(puk, goodPIN)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || hint.Of(err) == "") {
			t.Errorf("PUK %q: got %v, want %q with a hint", puk, err, want)
		}
	}
}

// metadataCard answers SELECT and GET METADATA.
func metadataCard(answers map[byte]string) func([]byte) ([]byte, error) {
	return func(request []byte) ([]byte, error) {
		if request[1] == insSelect {
			return []byte(answers[0]), nil
		}
		return []byte(answers[request[3]]), nil
	}
}

func TestReadSecrets(t *testing.T) {
	good := map[byte]string{0: "\x61\x11\x4f\x90\x00", refPIN: "\x05\x01\x00\x06\x02\x05\x04\x90\x00", refPUK: "\x05\x01\x01\x06\x02\x03\x03\x90\x00", refManagement: "\x01\x01\x0a\x02\x02\x00\x01\x05\x01\x01\x90\x00"}
	got, err := ReadSecrets(metadataCard(good))
	if want := (Secrets{Known: true, PIN: Tries{Total: 5, Left: 4}, PUK: Tries{Factory: true, Total: 3, Left: 3}, Management: true}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, tt := range []struct {
		name   string
		change map[byte]string
		fault  Fault
		known  bool
	}{
		{"no PIV", map[byte]string{0: "\x6a\x82"}, NoPIV, false},
		{"no metadata", map[byte]string{refPIN: "\x6d\x00"}, "", false},
		{"empty", map[byte]string{refPIN: ""}, Garbage, false},
		{"one byte", map[byte]string{0: "\x90"}, Garbage, false},
		{"cut short", map[byte]string{refPUK: "\x05\x05\x00\x90\x00"}, Garbage, false},
		{"long length", map[byte]string{refPUK: "\x05\x81\x01\x00\x90\x00"}, Garbage, false},
	} {
		answers := map[byte]string{}
		for k, v := range good {
			answers[k] = v
		}
		for k, v := range tt.change {
			answers[k] = v
		}
		got, err := ReadSecrets(metadataCard(answers))
		if FaultOf(err) != tt.fault || (err == nil) != (tt.fault == "") || got.Known != tt.known {
			t.Errorf("%s: got %+v, %v, want fault %q", tt.name, got, err, tt.fault)
		}
	}
	gone := errors.New("gone")
	if _, err := ReadSecrets(func([]byte) ([]byte, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Errorf("got %v, want %v", err, gone)
	}
}

func TestParse(t *testing.T) {
	for text, ok := range map[string]bool{"9a": true, "82": true, "95": true, "9c": false, "9d": false, "9e": false, "81": false, "96": false, "f9": false, "": false, "9A": false, "09a": false} {
		if s, err := ParseSlot(text); (err == nil) != ok || ok && s.String() != text {
			t.Errorf("slot %q: got %v, %v", text, s, err)
		}
	}
	for text, ok := range map[string]bool{"5.7.0": true, "5.7": false, "5.7.0.1": false, "5.7.256": false, "a.b.c": false, "": false, "-1.0.0": false} {
		if v, err := ParseVersion(text); (err == nil) != ok || ok && v.String() != text {
			t.Errorf("version %q: got %v, %v", text, v, err)
		}
	}
	for _, text := range []string{"rsa2048", "", "P256", "x25519"} {
		if _, err := ParseAlgorithm(text); err == nil {
			t.Errorf("type %q: taken", text)
		}
	}
	for name, ok := range map[string]bool{"Yubico YubiKey OTP+FIDO+CCID 00 00": true, "": false, "a\x1b[2J": false, strings.Repeat("x", 200): false} {
		if err := (Reader{Name: name}).Check(); (err == nil) != ok {
			t.Errorf("reader %q: got %v", name, err)
		}
	}
}
