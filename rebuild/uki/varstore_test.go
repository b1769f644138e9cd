package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"
)

// emptyStore is a file of variables with none in it.
func emptyStore(size int) []byte {
	const header = 72
	file := bytes.Repeat([]byte{erased}, header+size+100)
	clear(file[:header+storeHeader])
	copy(file[volumeSigned:], volumeSignature)
	binary.LittleEndian.PutUint16(file[volumeLength:], header)
	copy(file[header:], guidStore[:])
	binary.LittleEndian.PutUint32(file[header+16:], uint32(size))
	file[header+20], file[header+21] = storeFormatted, storeHealthy
	return file
}

var enrolDate = time.Date(2026, 11, 20, 18, 0, 0, 0, time.UTC)

// A real firmware takes what is written: medium.TestSecureBoot.
func TestEnrol(t *testing.T) {
	file := emptyStore(4096)
	before := bytes.Clone(file)
	out, err := Enrol(file, []Enrolled{{PK, []byte("first")}, {KEK, []byte("second one")}}, enrolDate)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, before) || len(out) != len(file) {
		t.Error("the file that was given has changed, or the new one has another size")
	}
	if out, err = Enrol(out, []Enrolled{{DB, []byte("third")}}, enrolDate); err != nil {
		t.Fatal(err)
	}
	store := out[72 : 72+4096]
	_, there, err := walk(store)
	if err != nil || len(there) != 3 || !there[PK] || !there[KEK] || !there[DB] {
		t.Errorf("got %v, %v", there, err)
	}
	for _, want := range []string{"first", "second one", "third"} {
		if !bytes.Contains(store, []byte(want)) {
			t.Errorf("%q is not there", want)
		}
	}
	if !bytes.Equal(out[72+4096:], before[72+4096:]) {
		t.Error("what is behind the store has changed")
	}
}

func TestEnrolRefuses(t *testing.T) {
	with, err := Enrol(emptyStore(4096), []Enrolled{{PK, []byte("list")}}, enrolDate)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		alter func([]byte) []byte
		want  string
	}{
		{"nothing", func([]byte) []byte { return nil }, "no firmware volume"},
		{"no volume", func(p []byte) []byte { p[volumeSigned] = 0; return p }, "no firmware volume"},
		{"header behind the file", func(p []byte) []byte { p[volumeLength+1] = 0xff; return p }, "no store of authenticated variables"},
		{"another store", func(p []byte) []byte { p[72] ^= 1; return p }, "no store of authenticated variables"},
		{"unhealthy", func(p []byte) []byte { p[72+21] = 0; return p }, "no store of authenticated variables"},
		{"store behind the file", func(p []byte) []byte { p[72+18] = 1; return p }, "a store of"},
		{"broken variable", func(p []byte) []byte { p[72+storeHeader] ^= 1; return p }, "a broken variable at 28"},
		{"variable behind the store", func(p []byte) []byte { p[72+storeHeader+42] = 1; return p }, "a broken variable"},
		{"there already", func(p []byte) []byte { return p }, "PK is there already"},
		{"no room", func([]byte) []byte { return emptyStore(storeHeader + variableHeader + 4) }, "no room for PK"},
		{"full", func([]byte) []byte { return emptyStore(storeHeader) }, "it is full"},
		{"not erased", func([]byte) []byte { p := emptyStore(4096); p[72+storeHeader+10] = 0; return p }, "is not erased"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Enrol(tt.alter(bytes.Clone(with)), []Enrolled{{PK, []byte("list")}}, enrolDate)
			if err == nil || !strings.Contains(err.Error(), tt.want) || (!errors.Is(err, ErrVariables) && !strings.Contains(tt.want, "already")) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzVariables(f *testing.F) {
	with, err := Enrol(emptyStore(400), []Enrolled{{DB, []byte("list")}}, enrolDate)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(emptyStore(400))
	f.Add(with)
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := Enrol(data, []Enrolled{{PK, []byte("list")}}, enrolDate)
		if err != nil {
			return
		}
		if _, err := Enrol(out, []Enrolled{{PK, []byte("list")}}, enrolDate); err == nil || !strings.Contains(err.Error(), "already") {
			t.Fatalf("enrolled, and not there: %v", err)
		}
	})
}
