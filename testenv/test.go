package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/testenv/cgobuild"
	"mayfly/testenv/debian"
	"mayfly/testenv/pcscd"
	"mayfly/testenv/skprovider"
)

// testNeeds are what tests use beside what the demo uses.
var testNeeds = slices.Concat(demoNeeds, engineNeeds[inventory.EngineDocker], engineNeeds[inventory.EnginePodman], pcscd.Needs, cgobuild.Needs(cgobuild.PCSC), []debian.Need{ // the race detector takes a compiler too
	{Name: "iperf3", Package: "iperf3"},
	{Name: "unshare", Package: "util-linux"},
	{Name: "cpio", Package: "cpio"}, // reads our archives
	{Name: "fsck.erofs", Package: "erofs-utils"},
	{Name: "debootstrap", Package: "debootstrap"}, // a Debian 13, to build images in // and our images
	{Name: "git", Package: "git"},
	{Name: "mkfs.ext4", Package: "e2fsprogs"}, // disks that servers have to leave alone
	{Name: "plink", Package: "putty-tools"},   // the bastion's peers
	{Name: "dbclient", Package: "dropbear-bin"},
	{Name: "/usr/lib/python3/dist-packages/asyncssh", Package: "python3-asyncssh"},
	{Name: "/usr/lib/python3/dist-packages/paramiko", Package: "python3-paramiko"},
	{Name: "ssh-audit", Package: "ssh-audit"},
	{Name: "systemd-analyze", Package: "systemd"}, // judges units
	{Name: "promtool", Package: "prometheus"},     // alert rules and the dashboard
	{Name: "zsh", Package: "zsh"},                 // shells that fleetctl completes in
	{Name: "fish", Package: "fish"},
	sshdNeed,                                              // of the benchmark and of a bastion alone
	{Name: "yubico-piv-tool", Package: "yubico-piv-tool"}, // the virtual card's peers
	{Name: ykcs11, Package: "ykcs11"},
	{Name: openscPKCS11, Package: "opensc-pkcs11"},
	{Name: "pkcs11-tool", Package: "opensc"},
	{Name: "openssl", Package: "openssl"},
	{Name: "pinentry-curses", Package: "pinentry-curses"}, // bastion-agent's peers
	{Name: "dbus-daemon", Package: "dbus-daemon"},
	{Name: "sbverify", Package: "sbsigntool"}, // peers of what UEFI firmware boots
	{Name: "sig-list-to-certs", Package: "efitools"},
	{Name: "mcopy", Package: "mtools"},
	{Name: "fsck.vfat", Package: "dosfstools"},
	{Name: "xorriso", Package: "xorriso"},
	{Name: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", Package: "ovmf"},
	{Name: "dnsmasq", Package: "dnsmasq-base"}, // DHCP and router advertisements
	{Name: "etcd", Package: "etcd-server"},     // the store of several controllers
	{Name: "strace", Package: "strace"},        // has system calls fail
	{Name: "swtpm", Package: "swtpm"},          // TPMs
	{Name: "ipmi_sim", Package: "openipmi"},    // a BMC that drives a machine
	{Name: efiStub, Package: "systemd-boot-efi"},
	{Name: "chromium", Package: "chromium"}, // the status page, as people see it
	{Name: "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", Package: "fonts-dejavu-core"},
	{Name: "npm", Package: "npm"}, // fetches axe-core, by hash
})

// Debian's PKCS #11 libraries that read PIV cards, and systemd-stub. The pattern is for the architecture.
const (
	ykcs11       = "/usr/lib/*-linux-gnu/libykcs11.so"
	efiStub      = "/usr/lib/systemd/boot/efi/linux*.efi.stub"
	openscPKCS11 = "/usr/lib/*-linux-gnu/opensc-pkcs11.so"
)

// testLimit is for one `go test`, on a machine that is slow and not ours alone.
const testLimit = "35m"

// wholeTests are too slow under the race detector to run at their full size: every fleet of the simulation, every point at which a
// rotation can be killed. They run a second time without it.
var wholeTests = []string{"-run=^(TestPromises|TestKilledAnywhere)$", "./fleetctl/plan", "./fleetctl/rotate"}

var testVerb = command.Verb{
	Name:    "test",
	Args:    "[flags]",
	Summary: "run every check and test",
	Help: `Runs go vet, staticcheck, a build without cgo, and all tests with the race detector, those of packages with smart cards with the tag
pcsc as well; two that are cut short under the race detector run whole without it; the tests of whole fleets, in QEMU, come last and alone. It prints go test's own lines, and at the end what was skipped and why. As root with CI=true a skipped test is a failure.
The flags are go test's own and go to it. With one of them the two are not run a second time.`,
	Run: runTest,
}

func runTest(ctx context.Context, c *command.Call) error {
	flags, err := goTestFlags(c)
	if err != nil {
		return err
	}
	ctx, cancel := lifeline(ctx, c.Stdin)
	defer cancel()
	began := time.Now()
	e, err := newEnvironment()
	if err != nil {
		return err
	}
	if done, err := e.asRoot(ctx, c, "test", testNeeds, nil); done || err != nil {
		return err
	}
	cache, err := os.MkdirTemp("", "mayfly-test-")
	if err != nil {
		return fmt.Errorf("making the tests' cache: %w", err)
	}
	defer os.RemoveAll(cache)
	env := append(os.Environ(), "PATH="+debian.Path(os.Getenv("PATH")), envTestCache+"="+cache)
	if e.owner.set {
		env = append(env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -buildvcs=false")) // the clone is another user's
	}
	defer e.giveCaches(ctx)
	results := &results{out: c.Stdout}
	run := func(extra []string, args ...string) error {
		fmt.Fprintf(c.Stdout, "testenv: %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Env = e.module, append(slices.Clone(env), extra...)
		// go test hands no signal on to the tests that it runs: they get it themselves.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
		cmd.WaitDelay = commandWait
		cmd.Stderr = c.Stderr
		if args[1] != "test" {
			cmd.Stdout = c.Stdout
			return cmd.Run()
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		return errors.Join(results.read(out), cmd.Wait())
	}
	tagged, err := cgobuild.Packages(ctx, e.module, env, cgobuild.PCSC)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		env  []string
		args []string
	}{
		{nil, []string{"go", "vet", "./..."}},
		{nil, []string{"go", "tool", "staticcheck", "./..."}},
		{[]string{"CGO_ENABLED=0"}, []string{"go", "build", "./..."}},
		{cgobuild.Environ([]string{}), append([]string{"go", "vet", "-tags=" + cgobuild.PCSC}, tagged...)},
		{cgobuild.Environ([]string{}), append([]string{"go", "tool", "staticcheck", "-tags=" + cgobuild.PCSC}, tagged...)},
		{cgobuild.Environ([]string{}), []string{"go", "vet", "-tags=" + skprovider.Tag, "./testenv/skprovider/..."}},
		{cgobuild.Environ([]string{}), []string{"go", "tool", "staticcheck", "-tags=" + skprovider.Tag, "./testenv/skprovider/..."}},
	} {
		if err := run(step.env, step.args...); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(step.args, " "), err)
		}
	}
	packages, err := e.packages(ctx, env)
	if err != nil {
		return err
	}
	test := append([]string{"go", "test", "-race", "-count=1", "-json", "-timeout=" + testLimit}, flags...)
	err = run(nil, append(slices.Clone(test), packages...)...)
	if ctx.Err() == nil {
		err = errors.Join(err, run(cgobuild.Environ([]string{}), slices.Concat(test, []string{"-tags=" + cgobuild.PCSC}, tagged)...))
	}
	if ctx.Err() == nil && len(flags) == 0 {
		err = errors.Join(err, run(nil, append([]string{"go", "test", "-count=1", "-json", "-timeout=" + testLimit}, wholeTests...)...))
	}
	if ctx.Err() == nil {
		err = errors.Join(err, run(nil, append(slices.Clone(test), "./testenv")...))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	results.summary(c.Stdout)
	fmt.Fprintf(c.Stdout, "testenv: %d tests passed, %d failed, %d skipped, %s in all\n", results.passed, results.failed, len(results.skipped), took(began))
	if err != nil || results.failed > 0 {
		return errors.Join(errors.New("tests failed"), err)
	}
	if len(results.skipped) > 0 && debian.Root() && os.Getenv("CI") == "true" {
		return fmt.Errorf("%d tests were skipped, and as root in CI none may be", len(results.skipped))
	}
	return nil
}

// goTestFlags reads the flags that go on to go test, so that a mistake is told before anything is installed or run.
func goTestFlags(c *command.Call) (flags []string, err error) {
	fs := c.Flags()
	run := fs.String("run", "", "run the tests that `REGEXP` matches")
	skip := fs.String("skip", "", "leave out the tests that `REGEXP` matches")
	count := fs.Uint("count", 1, "run each test `N` times")
	timeout := fs.Duration("timeout", 0, "of one package's tests; "+testLimit+" if it is not given")
	fs.Bool("short", false, "leave out what takes long")
	fs.Bool("v", false, "go test's -v")
	fs.Bool("failfast", false, "start no more tests of a package after one has failed")
	if err := c.Parse(fs); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, command.Usagef("test takes no words, got %q: it runs the tests of all packages", fs.Arg(0))
	}
	for _, pattern := range []string{*run, *skip} {
		if _, err := regexp.Compile(pattern); err != nil {
			return nil, command.Usagef("-run or -skip %q: %v", pattern, err)
		}
	}
	if *count == 0 || *timeout < 0 {
		return nil, command.Usagef("want a -count of at least 1, and no negative -timeout")
	}
	fs.Visit(func(f *flag.Flag) { flags = append(flags, "-"+f.Name+"="+f.Value.String()) })
	return flags, nil
}

// packages are all packages but this one, whose tests run machines and want the processors for themselves.
func (e *environment) packages(ctx context.Context, env []string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "./...")
	cmd.Dir, cmd.Env = e.module, env
	out, err := outputOf(cmd, nil)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Fields(out), func(p string) bool { return p == "mayfly/testenv" }), nil
}

// giveCaches hands what root put into the user's Go caches back to the user, also when ctx has ended.
func (e *environment) giveCaches(ctx context.Context) {
	if !e.owner.set {
		return
	}
	ctx = context.WithoutCancel(ctx)
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		if dir, err := goEnv(ctx, name); err == nil && filepath.IsAbs(dir) {
			_ = e.owner.give(dir) // the build cache mends itself
		}
	}
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// results is what tests did. It prints go test's own lines: of packages, of results, and all that a failed test said.
type results struct {
	out            io.Writer
	passed, failed int
	skipped        []string
	said           map[string][]string // by package and test, until its result is known
	failing        map[string]bool     // packages with a failed test
}

// maxKept bounds the lines kept of one test.
const maxKept = 2000

func (r *results) read(in io.Reader) error {
	if r.said == nil {
		r.said, r.failing = map[string][]string{}, map[string]bool{}
	}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var e event
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, scanner.Text()) // a build's error, for example
			continue
		}
		r.note(e)
	}
	return scanner.Err()
}

func (r *results) note(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		switch trimmed := strings.TrimSpace(e.Output); {
		case e.Test == "":
			if trimmed != "PASS" && trimmed != "" {
				fmt.Fprint(r.out, e.Output)
			}
		case strings.HasPrefix(trimmed, "--- ") && !strings.Contains(e.Test, "/"):
			fmt.Fprint(r.out, e.Output)
		case strings.HasPrefix(trimmed, "=== "):
		case len(r.said[key]) < maxKept:
			r.said[key] = append(r.said[key], e.Output)
		}
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			if e.Action == "fail" && !r.failing[e.Package] {
				r.failed++ // it did not build, or ended before a test did
			}
			return
		}
		switch e.Action {
		case "pass":
			r.passed++
		case "fail":
			r.failed++
			r.failing[e.Package] = true
			for _, line := range r.said[key] {
				fmt.Fprint(r.out, line)
			}
		case "skip":
			r.skipped = append(r.skipped, fmt.Sprintf("%s: %s", key, oneLine(strings.Join(r.said[key], " "))))
		}
		delete(r.said, key)
	}
}

// summary names each skipped test and why.
func (r *results) summary(w io.Writer) {
	if len(r.skipped) == 0 {
		fmt.Fprintln(w, "testenv: nothing was skipped")
	}
	for _, s := range r.skipped {
		fmt.Fprintf(w, "testenv: skipped: %s\n", s)
	}
}
