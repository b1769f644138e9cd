package attest_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/tpm"
	"mayfly/testenv/swtpm"
)

var ticketFile = []byte("ticket.json\n")

const (
	statement   = "release.json\n"
	trustPolicy = "trust.json\n"
)

func digest(s string) attest.Digest { return sha256.Sum256([]byte(s)) }

var (
	uki, kernel = digest("the image"), digest("its kernel")
	firmware    = swtpm.Firmware(uki, kernel)
	calling     = firmware[3]
	separator4  = firmware[4]
	returning   = swtpm.Told(4, swtpm.Action, "Returning from EFI Application from Boot Option")
	again       = swtpm.Told(4, swtpm.Action, "Calling EFI Application from Boot Option")
)

// beside is a boot with the ticket beside the image.
var beside = append(replace(firmware, digest("initrd"), swtpm.Told(9, 6, "initrd with files")), swtpm.Hashed(12, swtpm.IPL, digest("files"), ""))

// holds is what a register holds after these.
func holds(events []swtpm.Event, pcr int) (v attest.Digest) {
	for _, e := range events {
		if e.PCR == pcr {
			v = sha256.Sum256(append(v[:], e.Digest[:]...))
		}
	}
	return v
}

// with adds events.
func with(more ...swtpm.Event) []swtpm.Event {
	return append(append([]swtpm.Event{}, firmware...), more...)
}

// replace puts other events where the first of this hash is.
func replace(events []swtpm.Event, at attest.Digest, with ...swtpm.Event) []swtpm.Event {
	for i, e := range events {
		if e.Digest == at {
			return append(append(append([]swtpm.Event{}, events[:i]...), with...), events[i+1:]...)
		}
	}
	panic("no such event")
}

// world is a machine with its TPM, and what the signer knows of it.
type world struct {
	t      testing.TB
	chip   *swtpm.TPM
	id     *tpm.Identity
	events []swtpm.Event
	want   attest.Expected
	got    attest.Evidence
}

// boot starts a machine whose firmware measures events and whose stub measures these three, and asks it a challenge up to the quote.
func boot(t testing.TB, chip *swtpm.TPM, events []swtpm.Event, measured ...string) *world {
	t.Helper()
	w := &world{t: t, chip: chip, events: events}
	chip.Measure(events)
	for _, m := range measured {
		chip.Extend(attest.ReleasePCR, digest(m))
	}
	id, err := tpm.New(chip.Dial(), tpm.P256)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := id.Close(); err != nil {
			t.Error(err)
		}
	})
	w.id = id
	w.want = attest.Expected{
		EndorsementKey: attest.EndorsementHash(id.EK),
		Nonce:          random(32), Secret: random(32),
		Bound:   attest.Bound{Ticket: ticketFile, CSR: []byte("csr"), HostKey: []byte("host"), TunnelKey: []byte("tunnel")},
		Release: digest(statement), Trusts: []attest.Digest{digest("an older trust.json"), digest(trustPolicy)},
		UKI: uki, Kernel: kernel, Extras: digest("files"), Drivers: []attest.Digest{digest("option ROM")},
		Sections: holds(firmware, 11), LoadedAlone: holds(firmware, 9), Loaded: holds(beside, 9),
	}
	return w
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// answer has the machine answer the challenge.
func (w *world) answer() *world {
	w.t.Helper()
	blob, encrypted, err := attest.MakeCredential(rand.Reader, w.id.EK, w.id.AK, w.want.Secret)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, err := w.id.Activate(blob, encrypted)
	if err != nil {
		w.t.Fatal(err)
	}
	w.quote(attest.Qualifying(w.want.Nonce, secret, w.want.Bound))
	w.got.Secret = secret
	return w
}

// quote fills in all but the secret.
func (w *world) quote(extra attest.Digest) {
	w.t.Helper()
	q, err := w.id.Quote(extra)
	if err != nil {
		w.t.Fatal(err)
	}
	w.got = attest.Evidence{
		EK: w.id.EK, AK: w.id.AK, Secret: w.want.Secret,
		Quote: q.Quote, Signature: q.Signature, PCRs: q.PCRs, EventLog: swtpm.Log(w.events),
	}
}

var good = []string{statement, trustPolicy, string(ticketFile)}

func reason(err error) string {
	if r, ok := errors.AsType[*attest.Refusal](err); ok {
		return r.Reason
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// Each way in which a machine can be another one, run otherwise, or lie.
func TestVerify(t *testing.T) {
	tests := []struct {
		name     string
		firmware []swtpm.Event // nil: the good one
		measured []string      // nil: the good ones
		change   func(*world)
		want     string
	}{
		{name: "good"},
		{name: "no quote", change: func(w *world) { w.got = attest.Evidence{} }, want: attest.Missing},
		{name: "no challenge", change: func(w *world) { w.want.Nonce, w.want.Secret, w.got.Secret = nil, nil, nil }, want: attest.SecretWrong},
		{name: "wrong TPM", change: func(w *world) { w.want.EndorsementKey = hex.EncodeToString(random(32)) }, want: attest.EKUnknown},
		{name: "inventory names no TPM", change: func(w *world) { w.want.EndorsementKey = "" }, want: attest.EKUnknown},
		{name: "attestation key in place of the endorsement key", change: func(w *world) { w.got.EK = w.got.AK }, want: attest.EKMalformed},
		{name: "endorsement key in place of the attestation key", change: func(w *world) { w.got.AK = w.got.EK }, want: attest.AKRefused},
		{name: "attestation key with another attribute", change: func(w *world) { w.got.AK = flip(w.got.AK, 5) }, want: attest.AKRefused},
		{name: "attestation key off its curve", change: func(w *world) { w.got.AK = flip(w.got.AK, len(w.got.AK)-1) }, want: attest.AKRefused},
		{name: "secret wrong", change: func(w *world) { w.got.Secret = random(32) }, want: attest.SecretWrong},
		{name: "secret missing", change: func(w *world) { w.got.Secret = nil }, want: attest.SecretWrong},
		{name: "replayed quote", change: func(w *world) { w.want.Nonce = random(32) }, want: attest.NonceWrong},
		{name: "relayed quote: other TLS key", change: func(w *world) { w.want.Bound.CSR = []byte("other") }, want: attest.NonceWrong},
		{name: "relayed quote: other host key", change: func(w *world) { w.want.Bound.HostKey = []byte("other") }, want: attest.NonceWrong},
		{name: "relayed quote: other tunnel key", change: func(w *world) { w.want.Bound.TunnelKey = []byte("other") }, want: attest.NonceWrong},
		{name: "quote for another ticket", change: func(w *world) { w.want.Bound.Ticket = []byte("other") }, want: attest.NonceWrong},
		{name: "altered quote", change: func(w *world) { w.got.Quote = flip(w.got.Quote, len(w.got.Quote)-1) }, want: attest.BadSignature},
		{name: "altered signature", change: func(w *world) { w.got.Signature = flip(w.got.Signature, len(w.got.Signature)-1) }, want: attest.BadSignature},
		{name: "signature with data after it", change: func(w *world) { w.got.Signature = append(w.got.Signature, 0) }, want: attest.BadSignature},
		{name: "oversized signature", change: func(w *world) { w.got.Signature = make([]byte, attest.MaxSignature+1) }, want: attest.BadSignature},
		{name: "other registers", change: func(w *world) { w.got.PCRs = flip(w.got.PCRs, 0) }, want: attest.Malformed},
		{name: "registers missing", change: func(w *world) { w.got.PCRs = w.got.PCRs[32:] }, want: attest.Malformed},
		{name: "faked reboot", change: func(w *world) { w.before(0) }, want: attest.NotRestarted},
		{name: "reset count of an earlier time", change: func(w *world) { w.before(1) }, want: attest.NotRestarted},
		{name: "restarted once since", change: func(w *world) { w.before(-1) }},

		{name: "nothing measured", measured: []string{}, want: attest.Release},
		{name: "other release", measured: []string{"evil", trustPolicy, string(ticketFile)}, want: attest.Release},
		{name: "other trust policy", measured: []string{statement, "evil", string(ticketFile)}, want: attest.Release},
		{name: "older trust policy of the fleet", measured: []string{statement, "an older trust.json", string(ticketFile)}},
		{name: "other ticket", measured: []string{statement, trustPolicy, "evil"}, want: attest.Release},
		{name: "other order", measured: []string{trustPolicy, statement, string(ticketFile)}, want: attest.Release},
		{name: "measured twice", measured: append(append([]string{}, good...), good...), want: attest.Release},
		{name: "no trust policy known", change: func(w *world) { w.want.Trusts = nil }, want: attest.Release},

		{name: "event log missing", change: func(w *world) { w.got.EventLog = nil }, want: attest.Firmware},
		{name: "event log truncated", change: func(w *world) { w.got.EventLog = w.got.EventLog[:len(w.got.EventLog)-1] }, want: attest.LogRefused},
		{name: "event log oversized", change: func(w *world) { w.got.EventLog = make([]byte, attest.MaxEventLog+1) }, want: attest.LogRefused},
		{name: "event log with an altered hash", change: func(w *world) { w.edit(uki, swtpm.Started(digest("else"))) }, want: attest.LogRefused},
		{name: "event log that leaves out an event", change: func(w *world) { w.edit(uki) }, want: attest.LogRefused},
		{name: "event log that adds an event", change: func(w *world) { w.edit(uki, swtpm.Started(uki), swtpm.Started(uki)) }, want: attest.LogRefused},
		{name: "event log with events of PCR 14", change: func(w *world) {
			w.got.EventLog = swtpm.Log(append(w.events, swtpm.Told(14, swtpm.IPL, "MokList")))
		}, want: attest.LogRefused},

		{name: "evil stub that measures well", firmware: replace(firmware, uki, swtpm.Started(digest("evil"))), want: attest.Firmware},
		{name: "evil stub, told as an action", firmware: replace(firmware, calling.Digest, swtpm.Hashed(4, swtpm.Action, digest("evil"), "Calling EFI Application from Boot Option")), want: attest.Firmware},
		{name: "evil stub, told as a separator", firmware: replace(firmware, calling.Digest, swtpm.Hashed(4, swtpm.Separator, digest("evil"), "\x00\x00\x00\x00")), want: attest.Firmware},
		{name: "evil stub, told as no action", firmware: replace(firmware, uki, swtpm.Started(digest("evil")), swtpm.Started(uki)), change: func(w *world) {
			w.edit(digest("evil"), swtpm.Hashed(4, swtpm.NoAction, digest("evil"), ""))
		}, want: attest.LogRefused},
		{name: "program that explains its hash", firmware: replace(firmware, calling.Digest, swtpm.Told(4, swtpm.Action, "MZ\x90\x00")), want: attest.Firmware},
		{name: "driver started", firmware: replace(firmware, uki, swtpm.Hashed(4, swtpm.Driver, digest("driver"), ""), swtpm.Started(uki)), want: attest.Firmware},
		{name: "another application before", firmware: replace(firmware, uki, swtpm.Started(digest("shell")), swtpm.Started(uki)), want: attest.Firmware},
		{name: "another application after", firmware: with(swtpm.Started(digest("evil"))), want: attest.Firmware},
		{name: "kernel without image", firmware: replace(firmware, uki), want: attest.Firmware},
		{name: "application before the separator", firmware: replace(firmware, calling.Digest, swtpm.Started(digest("evil"))), want: attest.Firmware},
		{name: "kernel that the firmware did not see", firmware: replace(firmware, kernel), want: attest.Firmware},
		{name: "boot option before that started nothing", firmware: replace(firmware, uki, returning, again, swtpm.Started(uki))},
		{name: "image that returned, and its kernel from elsewhere", firmware: replace(firmware, kernel, returning, again, swtpm.Started(kernel)), want: attest.Firmware},
		{name: "image that returned, and its kernel with another initramfs", firmware: replace(replace(firmware, kernel, returning, again, swtpm.Started(kernel)),
			digest("initrd"), swtpm.Told(9, 6, "evil initrd")), want: attest.Firmware},
		{name: "image that returned, and nothing", firmware: replace(firmware, kernel, returning), want: attest.Firmware},
		{name: "kernel that returned", firmware: with(returning), want: attest.Firmware},
		{name: "separator after the image", firmware: with(swtpm.Told(4, swtpm.Separator, "\x00\x00\x00\x00")), want: attest.Firmware},
		{name: "kernel twice", firmware: with(swtpm.Started(kernel)), want: attest.Firmware},
		{name: "image twice", firmware: replace(firmware, uki, swtpm.Started(uki), swtpm.Started(uki)), want: attest.Firmware},
		{name: "other initramfs", firmware: replace(firmware, digest("initrd"), swtpm.Told(9, 6, "evil initrd")), want: attest.Image},
		{name: "initramfs that the kernel did not measure", firmware: replace(firmware, digest("initrd")), want: attest.Image},
		{name: "initramfs of a boot with files, without them", firmware: replace(firmware, digest("initrd"), swtpm.Told(9, 6, "initrd with files")), want: attest.Image},
		{name: "other command line for the kernel", firmware: replace(firmware, digest("command line"), swtpm.Told(9, 6, "init=/evil")), want: attest.Image},
		{name: "good initramfs measured after another command line", firmware: with(swtpm.Told(9, 6, "command line"), swtpm.Told(9, 6, "initrd")), want: attest.Image},
		{name: "nothing loaded", firmware: replace(replace(firmware, digest("initrd")), digest("command line")), want: attest.Image},
		{name: "other section", firmware: replace(firmware, digest(".linux"), swtpm.Told(11, swtpm.IPL, "evil")), want: attest.Image},
		{name: "further section", firmware: with(swtpm.Told(11, swtpm.IPL, ".dtb")), want: attest.Image},
		{name: "image whose sections nobody computed", firmware: replace(firmware, digest(".linux")), change: func(w *world) { w.want.Sections = attest.Digest{} }, want: attest.Firmware},
		{name: "image whose loading nobody computed", firmware: replace(replace(firmware, digest("initrd")), digest("command line")), change: func(w *world) { w.want.LoadedAlone = attest.Digest{} }, want: attest.Firmware},
		{name: "EFI driver from a medium", firmware: with(swtpm.Hashed(2, swtpm.Driver, digest("evil driver"), "")), want: attest.Driver},
		{name: "EFI driver from a medium, told as an action", firmware: with(swtpm.Hashed(2, swtpm.Action, digest("evil driver"), "a")), want: attest.Driver},
		{name: "EFI driver that explains its hash", firmware: with(swtpm.Told(2, swtpm.Driver, "MZ")), want: attest.Driver},
		{name: "EFI driver left out of the log", firmware: with(swtpm.Hashed(2, swtpm.Driver, digest("evil driver"), "")), change: func(w *world) { w.edit(digest("evil driver")) }, want: attest.LogRefused},
		{name: "EFI driver that the inventory names", firmware: with(swtpm.Hashed(2, swtpm.Driver, digest("option ROM"), ""))},
		{name: "firmware without measurements", firmware: []swtpm.Event{}, want: attest.Firmware},
		{name: "firmware with an error", firmware: replace(firmware, separator4.Digest, swtpm.Told(4, swtpm.Separator, "\x01\x00\x00\x00")), want: attest.Firmware},
		{name: "release without an image", change: func(w *world) { w.want.UKI, w.want.Kernel = attest.Digest{}, attest.Digest{} }, want: attest.Firmware},
		{name: "ticket from beside the image", firmware: beside},
		{name: "ticket from beside the image, not handed over", firmware: with(swtpm.Hashed(12, swtpm.IPL, digest("files"), "")), want: attest.Image},
		{name: "ticket twice", firmware: with(swtpm.Hashed(12, swtpm.IPL, digest("files"), ""), swtpm.Hashed(12, swtpm.IPL, digest("files"), "")), want: attest.Cmdline},
		{name: "other files from beside the image", firmware: with(swtpm.Hashed(12, swtpm.IPL, digest("more files"), "")), want: attest.Cmdline},
		{name: "changed command line", firmware: with(swtpm.Told(12, swtpm.IPL, "init=/bin/sh")), want: attest.Cmdline},
	}
	chip := swtpm.Start(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			chip.Restart()
			events, measured := tt.firmware, tt.measured
			if events == nil {
				events = firmware
			}
			if measured == nil {
				measured = good
			}
			w := boot(t, chip, events, measured...).answer()
			if tt.change != nil {
				tt.change(w)
			}
			got, err := attest.Verify(w.got, w.want)
			if reason(err) != tt.want {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if err == nil && (!got.Measured || got.SecureBoot || got.Resets == 0) {
				t.Errorf("got %+v", got)
			}
			if err != nil && got != (attest.Result{}) {
				t.Errorf("refused, and got %+v", got)
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 1
	return c
}

// before says that the server's last life was at this many resets more than now.
func (w *world) before(more int) {
	w.t.Helper()
	got, err := attest.Verify(w.got, w.want)
	if err != nil {
		w.t.Fatal(err)
	}
	n := uint32(int(got.Resets) + more)
	w.want.Before = &n
}

// edit changes the log, but not what was measured.
func (w *world) edit(at attest.Digest, with ...swtpm.Event) {
	w.got.EventLog = swtpm.Log(replace(w.events, at, with...))
}
