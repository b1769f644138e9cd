package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"mayfly/rebuild/ticket"
)

// Limits of looking for disks.
const (
	maxEntries = 4096
	diskEvery  = time.Minute
	maxUnbinds = 64 // rounds of taking drivers off: one may uncover what another hid
)

// sdHost is the PCI class of hosts of SD cards and eMMC.
const sdHost = "0x0805"

// lasting are where other memory that keeps its content shows, once a driver has it: flash, non-volatile DIMMs, tapes.
var lasting = []string{"class/mtd", "bus/nd/devices", "class/scsi_tape", "class/mmc_host"}

// storage is what could keep data.
type storage struct {
	blocks    []string // block devices that are no RAM: names in /sys/block
	functions []string // PCI functions of class 01, mass storage, and hosts of SD cards
	driven    []string // those of them that have a driver
	strange   error    // a loop device that does not lie over RAM, or memory of another kind: nothing that can be taken off
}

// findStorage looks for anything that could keep data: a block device other than a loop device over sealed RAM (so also MD, device mapper,
// NBD, zram, a CD-ROM), or a PCI function of class 01, with or without a driver. sys is the root of /sys.
func findStorage(sys fs.FS) (storage, error) {
	var s storage
	blocks, err := fs.ReadDir(sys, "block")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, refuse(codeDisk, "listing block devices: %w", err)
	}
	functions, err := fs.ReadDir(sys, "bus/pci/devices")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, refuse(codeDisk, "listing PCI functions: %w", err)
	}
	if len(blocks) > maxEntries || len(functions) > maxEntries {
		return s, refuse(codeDisk, "more devices than can be looked at")
	}
	for _, b := range blocks {
		if !loopDevice(b.Name()) {
			s.blocks = append(s.blocks, b.Name())
			continue
		}
		backing, err := fs.ReadFile(sys, "block/"+b.Name()+"/loop/backing_file")
		switch {
		case errors.Is(err, fs.ErrNotExist): // not in use
		case err != nil:
			return s, refuse(codeDisk, "looking at %s: %w", b.Name(), err)
		case !strings.HasPrefix(string(backing), "/memfd:"):
			s.strange = errors.Join(s.strange, fmt.Errorf("%s lies over %q, not over RAM", b.Name(), strings.TrimSpace(string(backing))))
		}
	}
	for _, f := range functions {
		at := "bus/pci/devices/" + f.Name()
		class, err := fs.ReadFile(sys, at+"/class")
		if errors.Is(err, fs.ErrNotExist) {
			if _, gone := fs.Stat(sys, at); gone != nil {
				continue // pulled out while it was looked at
			}
		}
		if err != nil {
			return s, refuse(codeDisk, "looking at PCI function %s: %w", f.Name(), err)
		}
		if !strings.HasPrefix(string(class), "0x01") && !strings.HasPrefix(string(class), sdHost) {
			continue
		}
		s.functions = append(s.functions, f.Name())
		if _, err := fs.Stat(sys, at+"/driver"); err == nil {
			s.driven = append(s.driven, f.Name())
		}
	}
	for _, dir := range lasting {
		list, err := fs.ReadDir(sys, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s, refuse(codeDisk, "listing %s: %w", dir, err)
		}
		if len(list) > 0 {
			s.strange = errors.Join(s.strange, fmt.Errorf("%s/%s keeps what is written to it", dir, list[0].Name()))
		}
	}
	return s, nil
}

// diskPresent refuses any storage at all.
func diskPresent(sys fs.FS) error {
	s, err := findStorage(sys)
	switch {
	case err != nil:
		return err
	case s.strange != nil:
		return refuse(codeDisk, "%w", s.strange)
	case len(s.blocks) > 0:
		return refuse(codeDisk, "block device %s", s.blocks[0])
	case len(s.functions) > 0:
		return refuse(codeDisk, "PCI function %s is mass storage", s.functions[0])
	}
	return nil
}

// takeOff takes the driver off everything that could keep data, so that nothing can read or write it, and proves it gone: no block
// device is left, and no PCI function of mass storage has a driver. It returns what is there without one. sys is the path of /sys.
func takeOff(sys string) (idle []string, err error) {
	tree := os.DirFS(sys)
	for range maxUnbinds {
		s, err := findStorage(tree)
		switch {
		case err != nil:
			return nil, err
		case s.strange != nil:
			return nil, refuse(codeNotUnbound, "%w", s.strange)
		case len(s.driven) == 0 && len(s.blocks) == 0:
			return s.functions, nil
		}
		// Whole controllers first: that takes most block devices along.
		at := ""
		if len(s.driven) > 0 {
			at, err = filepath.EvalSymlinks(filepath.Join(sys, "bus/pci/devices", s.driven[0]))
		} else {
			at, err = owner(sys, s.blocks[0])
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(at, "driver", "unbind"), []byte(filepath.Base(at)), 0)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // pulled out meanwhile
			return nil, refuse(codeNotUnbound, "%w", err)
		}
	}
	return nil, refuse(codeNotUnbound, "drivers come back, or do not go: tried %d times", maxUnbinds)
}

// owner is the device above a block device whose driver made it: the PCI function, else the nearest device with a driver.
func owner(sys, block string) (string, error) {
	at, err := filepath.EvalSymlinks(filepath.Join(sys, "block", block))
	if err != nil {
		return "", err
	}
	top, err := filepath.EvalSymlinks(sys)
	if err != nil {
		return "", err
	}
	nearest := ""
	for dir := path.Dir(at); strings.HasPrefix(dir, top+"/"); dir = path.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "driver")); err != nil {
			continue
		}
		if nearest == "" {
			nearest = dir
		}
		if bus, err := os.Readlink(filepath.Join(dir, "subsystem")); err == nil && path.Base(bus) == "pci" {
			return dir, nil
		}
	}
	if nearest == "" {
		return "", fmt.Errorf("block device %s has no driver that could be taken off", block)
	}
	return nearest, nil
}

// disks does what the ticket says about what could keep data, and returns what there is without a driver.
func disks(sys, rule string) (idle []string, err error) {
	if rule == ticket.DisksUnbind {
		return takeOff(sys)
	}
	return nil, diskPresent(os.DirFS(sys))
}

// loopDevice reports whether name is "loop" and a number.
func loopDevice(name string) bool {
	n, ok := strings.CutPrefix(name, "loop")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}

// noSwap refuses swap, whatever it lies on. No file of /proc: the kernel has none.
func noSwap(path string) error {
	swaps, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refuse(codeSwap, "%w", err)
	}
	return swapActive(swaps)
}

// watchDisks looks again and again, and calls lost once with what must not be there.
func watchDisks(ctx context.Context, every time.Duration, look func() error, lost func(error)) {
	for sleep(ctx, every) {
		if err := look(); err != nil {
			lost(err)
			return
		}
	}
}
