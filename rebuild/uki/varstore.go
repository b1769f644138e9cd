package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf16"
)

// Specification constants: a firmware volume (PI specification, volume 3) with EDK2's store of authenticated variables, which is what
// the file OVMF_VARS.fd holds.
const (
	volumeSignature = "_FVH"
	volumeSigned    = 40 // where the signature is
	volumeLength    = 48 // where the length of its header is
	volumeMinimum   = 56
	storeHeader     = 28
	storeFormatted  = 0x5a
	storeHealthy    = 0xfe
	variableHeader  = 60
	variableStart   = 0x55aa
	variableAdded   = 0x3f
	variableAlign   = 4
	erased          = 0xff
)

// MaxVariables bounds a file of variables, in bytes.
const MaxVariables = 16 << 20

// guidStore marks a store of authenticated variables.
var guidStore = guid{0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92}

// ErrVariables is wrapped by every complaint about a file of variables.
var ErrVariables = errors.New("not a file of OVMF's variables")

// Enrolled is a key variable and its value.
type Enrolled struct {
	Variable Variable
	List     []byte // EFI_SIGNATURE_LIST
}

// Enrol writes key variables into a virtual machine's file of variables (OVMF_VARS.fd), as if its firmware had taken signed updates
// of that date. With PK among them Secure Boot is on from the first boot. A variable that is there already is refused.
func Enrol(file []byte, variables []Enrolled, at time.Time) ([]byte, error) {
	out, err := enrol(bytes.Clone(file), variables, at.UTC())
	if err != nil {
		return nil, fmt.Errorf("enrolling keys: %w", err)
	}
	return out, nil
}

func enrol(file []byte, variables []Enrolled, at time.Time) ([]byte, error) {
	if len(file) < volumeMinimum || len(file) > MaxVariables || string(file[volumeSigned:volumeSigned+4]) != volumeSignature {
		return nil, fmt.Errorf("%w: no firmware volume", ErrVariables)
	}
	get := binary.LittleEndian
	start := int(get.Uint16(file[volumeLength:]))
	if start < volumeMinimum || start+storeHeader > len(file) || guid(file[start:start+16]) != guidStore ||
		file[start+20] != storeFormatted || file[start+21] != storeHealthy {
		return nil, fmt.Errorf("%w: no store of authenticated variables", ErrVariables)
	}
	size := int64(get.Uint32(file[start+16:]))
	if size < storeHeader || int64(start)+size > int64(len(file)) {
		return nil, fmt.Errorf("%w: a store of %d bytes", ErrVariables, size)
	}
	store := file[start : start+int(size)]
	free, there, err := walk(store)
	if err != nil {
		return nil, err
	}
	if bytes.Count(store[free:], []byte{erased}) != len(store)-free {
		return nil, fmt.Errorf("%w: what follows the variables is not erased", ErrVariables)
	}
	for _, v := range variables {
		if there[v.Variable] {
			return nil, fmt.Errorf("%s is there already", v.Variable.Name)
		}
		there[v.Variable] = true
		entry := variable(v, at)
		if len(entry)+variableHeader > len(store)-free { // the end of the variables has to be seen
			return nil, fmt.Errorf("%w: no room for %s", ErrVariables, v.Variable.Name)
		}
		free += copy(store[free:], entry)
	}
	return file, nil
}

// walk finds the end of the variables, and which are there.
func walk(store []byte) (free int, there map[Variable]bool, err error) {
	there = map[Variable]bool{}
	get := binary.LittleEndian
	for free = storeHeader; ; {
		if free+variableHeader > len(store) {
			return 0, nil, fmt.Errorf("%w: it is full", ErrVariables)
		}
		h := store[free:]
		if h[0] == erased && h[1] == erased {
			return free, there, nil
		}
		name, data := int64(get.Uint32(h[36:])), int64(get.Uint32(h[40:]))
		end := int64(free) + variableHeader + name + data
		if get.Uint16(h) != variableStart || name%2 != 0 || end > int64(len(store)) {
			return 0, nil, fmt.Errorf("%w: a broken variable at %d", ErrVariables, free)
		}
		if h[2] == variableAdded {
			units := make([]uint16, name/2)
			for i := range units {
				units[i] = get.Uint16(h[variableHeader+2*i:])
			}
			text := string(utf16.Decode(units))
			there[Variable{Name: text[:max(0, len(text)-1)], vendor: guid(h[44:60])}] = true
		}
		free = int(alignUp(uint64(end), variableAlign))
	}
}

// variable is one entry of the store.
func variable(v Enrolled, at time.Time) []byte {
	put := binary.LittleEndian
	name := append(utf16.Encode([]rune(v.Variable.Name)), 0)
	out := make([]byte, variableHeader)
	put.PutUint16(out, variableStart)
	out[2] = variableAdded
	put.PutUint32(out[4:], VariableAttributes)
	copy(out[16:], timestamp(at))
	put.PutUint32(out[36:], uint32(2*len(name)))
	put.PutUint32(out[40:], uint32(len(v.List)))
	copy(out[44:], v.Variable.vendor[:])
	for _, unit := range name {
		out = put.AppendUint16(out, unit)
	}
	out = append(out, v.List...)
	for len(out)%variableAlign != 0 {
		out = append(out, erased)
	}
	return out
}
