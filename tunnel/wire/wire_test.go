package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, body, want string // want: part of the error; "" is none
	}{
		{"good", `{"public_key":"k"}`, ""},
		{"white space", " {\n\"public_key\" : \"k\" } \n", ""},
		{"empty", "", "unexpected EOF"},
		{"cut off", `{"public_key":"k"`, "unexpected EOF"},
		{"unknown field", `{"public_key":"k","x":1}`, "unknown field"},
		{"twice", `{"public_key":"k","public_key":"l"}`, "twice"},
		{"twice in another case", `{"public_key":"k","PUBLIC_KEY":"l"}`, "twice"},
		{"two values", `{"public_key":"k"}{"public_key":"k"}`, "more after"},
		{"rubbish after", `{"public_key":"k"}]`, "more after"},
		{"another type", `{"public_key":7}`, "cannot unmarshal"},
		{"a list", `[]`, "cannot unmarshal"},
		{"nested too deep", strings.Repeat(`[`, MaxBody), "EOF"},
		{"oversize", `{"public_key":"` + strings.Repeat("k", MaxBody) + `"}`, "too large"},
	} {
		var r Registration
		err := Decode(strings.NewReader(c.body), MaxBody, &r)
		switch {
		case c.want == "" && (err != nil || r.PublicKey != "k"):
			t.Errorf("%s: got %+v, %v", c.name, r, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		if errors.Is(err, ErrTooLarge) != (c.name == "oversize") {
			t.Errorf("%s: too large? %v", c.name, err)
		}
	}
}

func TestEveryReasonHasAStatus(t *testing.T) {
	for _, r := range []Reason{Malformed, TooLarge, BadKey, KeyInUse, Busy, SourceFull, Draining, Full, NotYours, NotFound, WrongMethod} {
		if got := r.Status(); got < 400 || got >= 600 || got == 500 {
			t.Errorf("%s: status %d", r, got)
		}
	}
	if got := Failed.Status(); got != 500 {
		t.Errorf("failed: status %d, want 500", got)
	}
}

// FuzzDecode: what is taken, is taken the same from its own marshalling.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"public_key":"AAAA"}`, `{}`, `[]`, `null`, `{"public_key":"a","public_key":"b"}`, `{"public_key":"a"} x`,
		`{"address":"10.64.1.2/32","dns":"10.64.1.1","server_key":"a","endpoint":"10.77.0.11:51820","preshared_key":"b","keepalive_seconds":25,"notice":"10.64.1.1:7444","mtu":1420}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		same(t, data, &Registration{}, &Registration{})
		same(t, data, &Session{}, &Session{})
	})
}

func same[T any](t *testing.T, data []byte, first, second *T) {
	if Decode(bytes.NewReader(data), MaxBody, first) != nil {
		return
	}
	again, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := Decode(bytes.NewReader(again), 8*MaxBody, second); err != nil {
		t.Fatalf("%s: %v", again, err)
	}
	if !reflect.DeepEqual(first, second) {
		t.Errorf("got %+v, then %+v", first, second)
	}
}
