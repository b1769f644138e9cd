package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// Limits of what is read from /sys and /proc.
const maxEntries = 4096

// diskPresent looks for anything that could keep data: a block device other than a loop device over sealed RAM, or a PCI
// function of class 01 (mass storage), with or without a driver. sys is the root of /sys.
func diskPresent(sys fs.FS) error {
	blocks, err := fs.ReadDir(sys, "block")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refuse(codeDisk, "listing block devices: %w", err)
	}
	for _, b := range blocks {
		if !loopDevice(b.Name()) {
			return refuse(codeDisk, "block device %s", b.Name())
		}
		backing, err := fs.ReadFile(sys, "block/"+b.Name()+"/loop/backing_file")
		if errors.Is(err, fs.ErrNotExist) {
			continue // not in use
		}
		if err != nil {
			return refuse(codeDisk, "looking at %s: %w", b.Name(), err)
		}
		if !strings.HasPrefix(string(backing), "/memfd:") {
			return refuse(codeDisk, "%s lies over %q, not over RAM", b.Name(), strings.TrimSpace(string(backing)))
		}
	}
	functions, err := fs.ReadDir(sys, "bus/pci/devices")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refuse(codeDisk, "listing PCI functions: %w", err)
	}
	if len(blocks) > maxEntries || len(functions) > maxEntries {
		return refuse(codeDisk, "more devices than can be looked at")
	}
	for _, f := range functions {
		class, err := fs.ReadFile(sys, "bus/pci/devices/"+f.Name()+"/class")
		if err != nil {
			return refuse(codeDisk, "looking at PCI function %s: %w", f.Name(), err)
		}
		if strings.HasPrefix(string(class), "0x01") {
			return refuse(codeDisk, "PCI function %s is mass storage, class %s", f.Name(), strings.TrimSpace(string(class)))
		}
	}
	return nil
}

// loopDevice reports whether name is "loop" and a number.
func loopDevice(name string) bool {
	n, ok := strings.CutPrefix(name, "loop")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}

// swapActive reads /proc/swaps: a heading, and a line for each swap area.
func swapActive(swaps []byte) error {
	lines := strings.Split(strings.TrimSpace(string(swaps)), "\n")
	switch {
	case !strings.HasPrefix(lines[0], "Filename"):
		return refuse(codeSwap, "/proc/swaps is not what it should be")
	case len(lines) > 1:
		return refuse(codeSwap, "%d swap areas", len(lines)-1)
	}
	return nil
}

// clockBefore refuses a clock that is earlier than the release: certificates and expiries would mean nothing.
func clockBefore(now, notBefore time.Time) error {
	if now.Before(notBefore) {
		return refuse(codeClock, "it is %s, the release begins at %s", now.Format(time.RFC3339), notBefore.Format(time.RFC3339))
	}
	return nil
}

// code is the reason code of any error of a boot.
func code(err error) (string, string) {
	var r *refusal
	if errors.As(err, &r) {
		return r.code, r.detail.Error()
	}
	return codeUnexpected, fmt.Sprint(err)
}
