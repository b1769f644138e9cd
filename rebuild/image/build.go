package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mayfly/internal/hint"
	"mayfly/rebuild/cpio"
	"mayfly/rebuild/erofs"
	"mayfly/rebuild/release"
)

// Cmdline is the kernel command line that an image is made for. A panic ends the machine; modules have to be signed by the kernel's
// makers; memory and registers are closed to root as well. Memory is zeroed when it is given out and when it is given back. Nothing is left
// for a later boot: no hibernation, no pstore, no variables of the firmware. The built-in NVMe driver never starts, so that no disk is read.
const Cmdline = "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic lockdown=confidentiality module.sig_enforce=1" +
	" init_on_alloc=1 init_on_free=1 slab_nomerge vsyscall=none debugfs=off" +
	" nohibernate pstore.backend=none efi=noruntime initcall_blacklist=nvme_init"

// listedLargest is how many files Result.Largest holds.
const listedLargest = 15

// Result is what Build made.
type Result struct {
	Kernel  release.Part
	Stub    release.Part
	Root    release.Part
	SBOM    release.Part
	Lock    string // SHA-256 of the lock file, hex
	Profile string
	Cmdline string
	Epoch   time.Time
	Uname   string // the kernel's release, for example "6.1.0-56-cloud-amd64"
	EFIStub []byte `json:"-"` // what a unified kernel image begins with, from the lock's packages; empty when the spec names none
	// NoFirmware lists, as "MODULE: FILE", what drivers of the initramfs may ask for and no package of the lock holds.
	NoFirmware []string `json:",omitempty"`
	Largest    []Entry  // the root's largest files, largest first
}

// Entry is a file of the root.
type Entry struct {
	Path string
	Size int64
}

// Inputs are what an image is made from.
type Inputs struct {
	Lock     []byte
	Store    string            // directory with the packages
	Programs map[string]string // our own, by name: the path of each
	Fresh    bool              // unpack every package, also where the store keeps what it gives
}

// Build makes the image of the default spec. See Spec.Build.
func Build(ctx context.Context, in Inputs, outDir string) (Result, error) {
	return Default().Build(ctx, in, outDir)
}

// Build makes an image from a lock file, the packages in the store and our programs, and writes vmlinuz, stub.cpio, root.erofs and
// image.lock into outDir. The same lock and programs give the same bytes, whatever the directory, user, umask, time, locale or
// number of processors. Nothing is fetched, and no program is run.
func (s Spec) Build(ctx context.Context, in Inputs, outDir string) (Result, error) {
	r, err := s.build(ctx, in, outDir)
	if err != nil {
		return Result{}, fmt.Errorf("building the image: %w", err)
	}
	return r, nil
}

func (s Spec) build(ctx context.Context, in Inputs, outDir string) (Result, error) {
	l, err := ParseLock(in.Lock)
	if err != nil {
		return Result{}, err
	}
	if l.Spec != s.digest {
		return Result{}, hint.New(errors.New("the lock file was made for another image.toml"), "make a new one: fleetctl image lock")
	}
	if s, err = s.Profile(l.Profile); err != nil {
		return Result{}, err
	}
	if err := checkToolchain(l.Go, in.Programs); err != nil {
		return Result{}, err
	}
	own, err := readPrograms(in.Programs)
	if err != nil {
		return Result{}, err
	}
	all, unpacked, err := gather(ctx, l.Packages, in.Store, in.Fresh)
	if err != nil {
		return Result{}, err
	}
	c, err := s.choose(all)
	if err != nil {
		return Result{}, err
	}
	if err := checkUsed(c.taken, l.Packages); err != nil {
		return Result{}, err
	}
	if err := checkContents(l, all, c.taken, unpacked, in.Store); err != nil {
		return Result{}, err
	}
	stub, err := stubFiles(own["mayfly-stub"], c.stub, l.Epoch)
	if err != nil {
		return Result{}, err
	}
	addPrograms(c.root, own)
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	return write(ctx, l, in.Lock, c, stub, outDir)
}

func write(ctx context.Context, l LockFile, lock []byte, c choice, stub []cpio.File, outDir string) (Result, error) {
	sum := sha256.Sum256(lock)
	r := Result{Lock: hex.EncodeToString(sum[:]), Profile: l.Profile, Cmdline: Cmdline, Epoch: time.Unix(l.Epoch, 0).UTC(), Uname: c.uname, EFIStub: c.efiStub,
		NoFirmware: c.lacking, Largest: largest(c.root)}
	if err := os.MkdirAll(outDir, 0o755); err != nil {
		return Result{}, err
	}
	var err error
	if r.Kernel, err = writePart(outDir, release.KernelFile, func(w io.Writer) error { _, err := w.Write(c.kernel); return err }); err != nil {
		return Result{}, err
	}
	if r.Stub, err = writePart(outDir, release.StubFile, func(w io.Writer) error { return cpio.Write(w, stub) }); err != nil {
		return Result{}, err
	}
	if r.Root, err = writePart(outDir, release.RootFile, func(w io.Writer) error { return writeEROFS(ctx, w, c.root, l.Epoch) }); err != nil {
		return Result{}, err
	}
	if _, err = writePart(outDir, release.LockFile, func(w io.Writer) error { _, err := w.Write(lock); return err }); err != nil {
		return Result{}, err
	}
	own := map[string]bool{}
	for _, at := range programPlaces {
		own[mergeUsr(at)] = true
	}
	p := parts{lock: l, kernel: c.kernel, root: c.root, owners: c.owners(own),
		sums: map[string]string{release.KernelFile: r.Kernel.SHA256, release.StubFile: r.Stub.SHA256, release.RootFile: r.Root.SHA256}}
	p.stub = tree{}
	for _, f := range stub {
		p.stub["/"+f.Path] = &node{mode: f.Mode, data: f.Data}
	}
	bill, err := p.sbom()
	if err != nil {
		return Result{}, err
	}
	r.SBOM, err = writePart(outDir, release.SBOMFile, func(w io.Writer) error { _, err := w.Write(bill); return err })
	return r, err
}

// writePart writes a file of the image whole or not at all, and hashes it.
func writePart(dir, name string, fill func(io.Writer) error) (release.Part, error) {
	f, err := os.CreateTemp(dir, "."+name+".*.tmp")
	if err != nil {
		return release.Part{}, err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	part, err := func() (release.Part, error) {
		h := sha256.New()
		out := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<20)
		if err := errors.Join(fill(out), out.Flush()); err != nil {
			return release.Part{}, err
		}
		n, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return release.Part{}, err
		}
		return release.Part{Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, errors.Join(f.Chmod(0o644), f.Sync())
	}()
	if err := errors.Join(err, f.Close()); err != nil {
		return release.Part{}, fmt.Errorf("writing %s: %w", name, err)
	}
	return part, os.Rename(f.Name(), filepath.Join(dir, name))
}

// writeEROFS writes the tree in the order of its paths. Every time in it is the epoch.
func writeEROFS(ctx context.Context, out io.Writer, t tree, epoch int64) error {
	var files []erofs.File
	for _, p := range t.paths() {
		name := strings.TrimPrefix(p, "/")
		if name == "" {
			name = "."
		}
		files = append(files, erofs.File{Path: name, Mode: t[p].mode, Data: t[p].payload()})
	}
	return erofs.Write(ctx, out, files, epoch)
}

func checkToolchain(want string, programs map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		info, err := buildinfo.ReadFile(programs[name])
		if err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		if info.GoVersion != want {
			return hint.New(fmt.Errorf("program %s was built with %s, the lock file says %s", name, info.GoVersion, want), "build with that version, or make a new lock file")
		}
	}
	return nil
}

func largest(t tree) []Entry {
	var all []Entry
	for _, p := range t.paths() {
		if t[p].mode.IsRegular() {
			all = append(all, Entry{Path: p, Size: int64(len(t[p].data))})
		}
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return int(b.Size - a.Size) })
	return all[:min(len(all), listedLargest)]
}
