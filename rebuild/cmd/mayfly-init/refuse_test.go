package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func TestDiskPresent(t *testing.T) {
	clean := func() fstest.MapFS {
		return fstest.MapFS{
			"block/loop0/loop/backing_file":         file("/memfd:root (deleted)\n"),
			"block/loop1/size":                      file("0\n"),
			"bus/pci/devices/0000:00:00.0/class":    file("0x060000\n"),
			"bus/pci/devices/0000:00:02.0/class":    file("0x020000\n"),
			"bus/pci/devices/0000:00:03.0/class":    file("0x00ff00\n"),
			"bus/pci/devices/0000:00:1f.0/revision": file("x"),
			"bus/pci/devices/0000:00:1f.0/class":    file("0x060100\n"),
		}
	}
	tests := []struct {
		name   string
		change func(fstest.MapFS)
		want   string
	}{
		{"clean", func(fstest.MapFS) {}, ""},
		{"nothing at all", func(m fstest.MapFS) { clear(m) }, ""},
		{"disk", func(m fstest.MapFS) { m["block/sda/size"] = file("1") }, codeDisk},
		{"virtio disk", func(m fstest.MapFS) { m["block/vda/size"] = file("1") }, codeDisk},
		{"nvme", func(m fstest.MapFS) { m["block/nvme0n1/size"] = file("1") }, codeDisk},
		{"cd", func(m fstest.MapFS) { m["block/sr0/size"] = file("1") }, codeDisk},
		{"compressed RAM", func(m fstest.MapFS) { m["block/zram0/size"] = file("1") }, codeDisk},
		{"a name that begins like loop", func(m fstest.MapFS) { m["block/loopback/size"] = file("1") }, codeDisk},
		{"loop over a file", func(m fstest.MapFS) { m["block/loop1/loop/backing_file"] = file("/mnt/x\n") }, codeDisk},
		{"controller without a driver", func(m fstest.MapFS) { m["bus/pci/devices/0000:00:1f.2/class"] = file("0x010601\n") }, codeDisk},
		{"host of SD cards", func(m fstest.MapFS) { m["bus/pci/devices/0000:00:1a.0/class"] = file("0x080501\n") }, codeDisk},
		{"flash", func(m fstest.MapFS) { m["class/mtd/mtd0/size"] = file("1") }, codeDisk},
		{"non-volatile DIMM", func(m fstest.MapFS) { m["bus/nd/devices/region0/size"] = file("1") }, codeDisk},
		{"function without a class", func(m fstest.MapFS) { m["bus/pci/devices/0000:00:05.0/vendor"] = file("x") }, codeDisk},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := clean()
			tt.change(m)
			if got := codeOf(diskPresent(m)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func codeOf(err error) string {
	if err == nil {
		return ""
	}
	c, _ := code(err)
	return c
}

func TestSwapActive(t *testing.T) {
	heading := "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	for in, want := range map[string]string{
		heading: "",
		heading + "/dev/zram0 partition 1 0 100\n": codeSwap,
		"":              codeSwap,
		"/dev/sda1 x\n": codeSwap,
	} {
		if got := codeOf(swapActive([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestClockBefore(t *testing.T) {
	if got := codeOf(clockBefore(testNow.Add(-time.Second), testNow)); got != codeClock {
		t.Errorf("got %q, want %q", got, codeClock)
	}
	if err := clockBefore(testNow, testNow); err != nil {
		t.Error(err)
	}
}

func TestCode(t *testing.T) {
	if got := codeOf(errors.New("x")); got != codeUnexpected {
		t.Errorf("got %q", got)
	}
	if got := codeOf(coded(codeMounts, refuse(codeDisk, "x"))); got != codeDisk {
		t.Errorf("got %q, want the first code", got)
	}
	if got := codeOf(coded(codeMounts, errors.New("x"))); got != codeMounts {
		t.Errorf("got %q", got)
	}
}

func TestReadPapersRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := readPapers(dir, testNow); codeOf(err) != codePapers {
		t.Errorf("nothing there: got %v", err)
	}
	for name, data := range map[string]string{"trust.json": "{}", "ticket.json": "{}", "ticket.json.sig": "x", "release.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := readPapers(dir, testNow); p != nil || err == nil {
		t.Errorf("empty papers: got %v, %v", p, err)
	}
}

func TestLockdown(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "there"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lockdown(root, []setting{{"there", "1", true}, {"absent/setting", "1", false}}); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(filepath.Join(root, "there"))
	if err != nil || string(got) != "1" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := lockdown(root, []setting{{"absent/setting", "1", true}}); err == nil {
		t.Error("a needed setting is not there and nobody minds")
	}
	if err := lockdown("/dev", []setting{{"null", "1", true}}); err == nil {
		t.Error("a setting that does not read back is accepted")
	}
	needed := map[string]bool{}
	for _, s := range settings {
		needed[s.name] = s.needed
	}
	for _, name := range []string{"kernel/core_pattern", "kernel/kexec_load_disabled", "kernel/modules_disabled", "kernel/dmesg_restrict"} {
		if !needed[name] {
			t.Errorf("%s is not needed", name)
		}
	}
	if last := settings[len(settings)-1].name; last != "kernel/modules_disabled" {
		t.Errorf("the last setting is %s", last)
	}
}

func TestModuleOrder(t *testing.T) {
	if got, err := moduleOrder([]byte("/lib/modules/x/a.ko\n/lib/modules/x/b.ko\n")); err != nil || len(got) != 2 {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"a.ko\n", "/a/../b.ko\n", "/a.so\n", "\n", strings.Repeat("/a.ko\n", maxModules+1)} {
		if _, err := moduleOrder([]byte(bad)); err == nil {
			t.Errorf("%.20q: accepted", bad)
		}
	}
}

func TestMountTableIsBounded(t *testing.T) {
	for _, m := range mountTable {
		if m.kind == "tmpfs" && (!strings.Contains(m.options, "size=") || !strings.Contains(m.options, "nr_inodes=")) {
			t.Errorf("%s has no bound: %q", m.path, m.options)
		}
	}
}

func TestProcessesOf(t *testing.T) {
	status := func(state, uid string) *fstest.MapFile {
		return file("Name:\tsh\nState:\t" + state + " (x)\nUid:\t" + uid + "\nGid:\t0 0 0 0\n")
	}
	proc := fstest.MapFS{
		"1/status":    status("S", "0\t0\t0\t0"),
		"20/status":   status("S", "2000\t2000\t2000\t2000"),
		"21/status":   status("S", "0\t2000\t0\t0"),
		"22/status":   status("Z", "2000\t2000\t2000\t2000"),
		"23/status":   status("R", "2001\t2001\t2001\t2001"),
		"24/cmdline":  file("gone"),
		"self/status": status("S", "2000\t2000\t2000\t2000"),
	}
	got, err := processesOf(proc, 2000)
	if err != nil || len(got) != 2 || got[0] != 20 || got[1] != 21 {
		t.Errorf("got %v, %v; want 20 and 21", got, err)
	}
}
