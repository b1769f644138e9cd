package main

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/input-event-codes.h.
const (
	eventKey = 1
	keyPower = 116
)

const inputEventSize = int(unsafe.Sizeof(unix.Timeval{})) + 8

// watchButtons calls pressed when an input device says that the power button was pressed.
func watchButtons(dir string, pressed func()) error {
	devices, err := filepath.Glob(filepath.Join(dir, "event*"))
	if err != nil {
		return err
	}
	var failed error
	for _, path := range devices {
		f, err := os.Open(path)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		go readButton(f, pressed)
	}
	return failed
}

// readButton reads events until the device is gone.
func readButton(f *os.File, pressed func()) {
	defer f.Close()
	buf := make([]byte, 64*inputEventSize)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		for e := buf[:n]; len(e) >= inputEventSize; e = e[inputEventSize:] {
			if powerPressed(e[:inputEventSize]) {
				pressed()
			}
		}
	}
}

// powerPressed reads one struct input_event.
func powerPressed(e []byte) bool {
	b := e[inputEventSize-8:]
	return binary.NativeEndian.Uint16(b) == eventKey && binary.NativeEndian.Uint16(b[2:]) == keyPower && binary.NativeEndian.Uint32(b[4:]) == 1
}
