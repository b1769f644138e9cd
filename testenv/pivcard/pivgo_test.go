package pivcard

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mayfly/testenv/cgobuild"
	"mayfly/testenv/debian"
	"mayfly/testenv/pcscd"
)

// inReader puts a card into a reader of a real pcscd and returns the place of the daemon.
func inReader(t *testing.T, ctx context.Context, card *Card) *pcscd.Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "pivcard-") // short, for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, err := pcscd.Start(ctx, pcscd.Place{Dir: dir, Readers: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	slot := NewSlot(card, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, 0) }, true)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- slot.Run(run) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := d.AwaitCard(ctx, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

// wrongHere are tests of piv-go's that must fail: a virtual card does not come from Yubico, and Go makes no RSA keys of 512 bits.
var wrongHere = []string{"TestSetRSAPrivateKey", "TestYubiKeyAttestation"}

// TestPIVGo runs piv-go's own tests, which are made for a real YubiKey and wipe it, against a virtual one of each generation. They find it, and no other,
// through the socket that is named in their environment.
func TestPIVGo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	if missing := debian.Missing(slices.Concat(pcscd.Needs, cgobuild.Needs(cgobuild.PCSC))); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	program := filepath.Join(t.TempDir(), "piv-go.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "github.com/go-piv/piv-go/v2/piv")
	build.Env = cgobuild.Environ(nil)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building piv-go's tests: %v: %s", err, out)
	}
	result := regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\w+)`)
	for _, tt := range []struct {
		firmware Firmware
		passed   int
		wrong    []string // beside wrongHere
	}{
		{fw574, 48, nil},
		{fw543, 46, []string{"TestYubiKeyX25519ECDH"}}, // it does not ask for the version that has X25519
		{fw435, 44, []string{"TestYubiKeyX25519ECDH"}},
	} {
		t.Run(tt.firmware.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
			defer cancel()
			c := newCard(t, tt.firmware)
			if err := c.card.Touch.SetMode(TouchAuto); err != nil {
				t.Fatal(err)
			}
			d := inReader(t, ctx, c.card)
			// Go takes up to half a minute for a key of 4096 bits, and these tests make ten of them.
			cmd := d.Command(ctx, program, "-test.v", "-wipe-yubikey", "-test.skip=/(rsa|RSA|Generated_rsa|Imported_rsa)_?4096")
			cmd.Dir = t.TempDir()
			out, _ := cmd.CombinedOutput() // it fails, as it must
			passed := 0
			var failed []string
			for _, m := range result.FindAllStringSubmatch(string(out), -1) {
				switch m[1] {
				case "PASS":
					passed++
				case "FAIL":
					failed = append(failed, m[2])
				}
			}
			slices.Sort(failed)
			want := slices.Sorted(slices.Values(append(slices.Clone(wrongHere), tt.wrong...)))
			if passed < tt.passed || !slices.Equal(failed, want) {
				t.Errorf("got %d passed and %q failed, want %d or more and %q\n%s", passed, failed, tt.passed, want, out)
			}
			for _, said := range []string{"certificate signed by unknown authority", "512-bit keys are insecure"} {
				if !strings.Contains(string(out), said) {
					t.Errorf("piv-go's tests do not say %q", said)
				}
			}
		})
	}
}
