package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// closed is one thing that the kernel says of itself, below /. What the kernel does not have is closed as well, unless needed.
type closed struct {
	code, path, want string
	part             bool // want is one of the file's words
	needed           bool
}

// closedKernel is what a server's kernel has to say before anybody is let in. Most of it follows from the command line, which the
// release fixes; it is read back because a command line can be taken no notice of.
var closedKernel = []closed{
	{code: codeNoLockdown, path: "sys/kernel/security/lockdown", want: "[confidentiality]", part: true, needed: true},
	{code: codeHibernation, path: "sys/power/disk", want: "[disabled]", part: true},
	{code: codeKexec, path: "sys/kernel/kexec_loaded", want: "0"},
	{code: codeKexec, path: "sys/kernel/kexec_crash_loaded", want: "0"},
	{code: codeKexec, path: "sys/kernel/kexec_crash_size", want: "0"},
	{code: codePstore, path: "sys/module/pstore/parameters/backend", want: "none", needed: true},
	{code: codeModuleSigs, path: "sys/module/module/parameters/sig_enforce", want: "Y", needed: true},
}

// memoryMounts are the kinds of file systems that may be mounted: all of them end with the machine. The root is EROFS over sealed RAM;
// what loop devices lie over is looked at with the disks.
var memoryMounts = []string{"proc", "sysfs", "cgroup2", "devtmpfs", "devpts", "tmpfs", "erofs", "rootfs", "ramfs", "securityfs"}

const securityDir = "/sys/kernel/security"

// harden gives up what a server never needs, and refuses to go on where the kernel is more open than the release says.
func harden(cmdline string) error {
	// No child of this process leaves its memory behind, whatever becomes of core_pattern.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return refuse(codeLockdown, "forbidding core dumps: %w", err)
	}
	// It is what lockdown is read from, and stays: what it shows is root's, and nothing can be loosened there.
	there, err := mountPoint(securityDir)
	if err == nil && !there {
		err = unix.Mount("securityfs", securityDir, "securityfs", quiet, "")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refuse(codeNoLockdown, "mounting %s: %w", securityDir, err)
	}
	return kernelClosed(os.DirFS("/"), cmdline)
}

// kernelClosed reads back what the kernel says of itself.
func kernelClosed(root fs.FS, cmdline string) error {
	running, err := fs.ReadFile(root, "proc/cmdline")
	if err != nil {
		return refuse(codeCmdline, "reading the command line: %w", err)
	}
	if err := cmdlineHolds(string(running), cmdline); err != nil {
		return err
	}
	for _, c := range closedKernel {
		data, err := fs.ReadFile(root, c.path)
		if errors.Is(err, fs.ErrNotExist) && !c.needed {
			continue
		}
		if err != nil {
			return refuse(c.code, "%w", err)
		}
		got := strings.TrimSpace(string(data))
		if got != c.want && !(c.part && slices.Contains(strings.Fields(got), c.want)) {
			return refuse(c.code, "/%s is %.100q, not %s", c.path, got, c.want)
		}
	}
	mounts, err := fs.ReadFile(root, "proc/mounts")
	if err != nil {
		return refuse(codeMount, "reading the mounts: %w", err)
	}
	return onlyMemory(string(mounts))
}

// onlyMemory refuses a mount of any file system that could keep something: of a disk, of pstore, of EFI variables, of another machine.
func onlyMemory(mounts string) error {
	for line := range strings.Lines(mounts) {
		words := strings.Fields(line)
		if len(words) < 3 {
			return refuse(codeMount, "/proc/mounts is not what it should be")
		}
		if !slices.Contains(memoryMounts, words[2]) {
			return refuse(codeMount, "a file system of type %.32q is mounted on %.100q", words[2], words[1])
		}
	}
	return nil
}

// weakening are parameters that take something away which no word of the signed command line gives back, or which add to lists. A boot loader
// has no business with them.
var weakening = []string{"lsm", "security", "selinux", "apparmor", "mitigations", "nosmep", "nosmap", "nopti", "pti", "nokaslr", "no_hash_pointers", "slub_debug",
	"slab_debug", "slab_merge", "slub_merge", "initcall_blacklist", "module_blacklist", "init", "rdinit", "crashkernel", "kgdboc", "earlycon", "resume",
	"nospectre_v1", "nospectre_v2", "spectre_v2", "mds", "tsx", "iommu", "intel_iommu", "kasan", "page_owner", "memmap", "mem", "trace_buf_size", "ftrace_dump_on_oops"}

// cmdlineHolds wants every word of the signed command line in the one that the kernel was started with, and no later word that says
// otherwise. A boot loader may add words of its own.
func cmdlineHolds(running, signed string) error {
	have := strings.Fields(running)
	for _, w := range have {
		switch key, _, _ := strings.Cut(w, "="); {
		case strings.ContainsRune(w, '"'), w == "--": // what the kernel reads differs from what stands there
			return refuse(codeCmdline, "the kernel was started with %.60q, which hides words", w)
		case slices.Contains(weakening, strings.ReplaceAll(key, "-", "_")) && !slices.Contains(strings.Fields(signed), w):
			return refuse(codeCmdline, "the kernel was started with %.60q, which the release does not say", w)
		}
	}
	last := map[string]string{}
	for _, w := range have {
		key, value, _ := strings.Cut(w, "=")
		last[strings.ReplaceAll(key, "-", "_")] = value // the kernel takes one for the other
	}
	for _, w := range strings.Fields(signed) {
		key, value, _ := strings.Cut(w, "=")
		switch {
		case !slices.Contains(have, w):
			return refuse(codeCmdline, "the kernel was started without %q, which the release says", w)
		case key != "console" && last[strings.ReplaceAll(key, "-", "_")] != value:
			return refuse(codeCmdline, "the kernel was started with %s=%.60s after the release's %q", key, last[strings.ReplaceAll(key, "-", "_")], w)
		}
	}
	return nil
}

// stopProbing keeps every bus from giving a device to a driver by itself from now on: what is plugged in later is seen, and read by nothing.
func stopProbing(buses string) error {
	list, err := os.ReadDir(buses)
	if err != nil {
		return refuse(codeProbing, "listing buses: %w", err)
	}
	for _, b := range list {
		path := filepath.Join(buses, b.Name(), "drivers_autoprobe")
		err := os.WriteFile(path, []byte("0"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return refuse(codeProbing, "keeping bus %s from probing: %w", b.Name(), err)
		}
		got, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(got)) != "0" {
			return refuse(codeProbing, "bus %s still probes: %w", b.Name(), errors.Join(fmt.Errorf("%q", got), err))
		}
	}
	return nil
}
