package attest_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/machine"
	"mayfly/testenv/swtpm"
)

var ticketFile = []byte("ticket.json\n")

const (
	statement   = "release.json\n"
	trustPolicy = "trust.json\n"
)

func digest(s string) attest.Digest { return sha256.Sum256([]byte(s)) }

// logged is one event for a log that a test makes.
type logged struct {
	pcr    int
	kind   uint32
	digest attest.Digest
	data   []byte
}

const (
	kindNoAction    = 3
	kindSeparator   = 4
	kindIPL         = 0xd
	kindVariable    = 0x80000001
	kindApplication = 0x80000003
	kindDriver      = 0x80000004
	kindAction      = 0x80000007
	kindAuthority   = 0x800000e0
)

// told is an event whose data is what was measured.
func told(pcr int, kind uint32, data string) logged {
	return logged{pcr, kind, digest(data), []byte(data)}
}

func started(hash attest.Digest) logged {
	return logged{4, kindApplication, hash, []byte("where it lies")}
}

// encode writes a log with one algorithm.
func encode(events []logged) []byte {
	b := make([]byte, 8+20, 1024)
	binary.LittleEndian.PutUint32(b[4:], kindNoAction)
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(spec))), spec...)
	for _, e := range events {
		b = binary.LittleEndian.AppendUint32(b, uint32(e.pcr))
		b = binary.LittleEndian.AppendUint32(b, e.kind)
		b = binary.LittleEndian.AppendUint32(b, 1)
		b = binary.LittleEndian.AppendUint16(b, 0x0b)
		b = append(b, e.digest[:]...)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e.data))), e.data...)
	}
	return b
}

var (
	uki, kernel = digest("the image"), digest("its kernel")
	calling     = told(4, kindAction, "Calling EFI Application from Boot Option")
	separator4  = told(4, kindSeparator, "\x00\x00\x00\x00")
)

// firmware is what a good firmware measures.
func firmware() []logged {
	return []logged{
		{0, kindNoAction, attest.Digest{}, []byte("StartupLocality\x00\x03")},
		told(0, 8, "version"), told(7, kindSeparator, "\x00\x00\x00\x00"),
		calling, separator4, started(uki),
		told(11, kindIPL, ".linux"), started(kernel),
		told(9, 6, "initrd"),
	}
}

// replace puts other events where the first of this hash is.
func replace(events []logged, at attest.Digest, with ...logged) []logged {
	for i, e := range events {
		if e.digest == at {
			return append(append(append([]logged{}, events[:i]...), with...), events[i+1:]...)
		}
	}
	panic("no such event")
}

// world is a machine with its TPM, and what the signer knows of it.
type world struct {
	t      testing.TB
	tpm    *swtpm.TPM
	id     *machine.Identity
	events []logged
	want   attest.Expected
	got    attest.Evidence
}

// boot starts a machine whose firmware measures events and whose stub measures these three, and asks it a challenge up to the quote.
func boot(t testing.TB, tpm *swtpm.TPM, events []logged, measured ...string) *world {
	t.Helper()
	w := &world{t: t, tpm: tpm, events: events}
	for _, e := range events {
		if e.kind != kindNoAction {
			tpm.Extend(e.pcr, e.digest)
		}
	}
	for _, m := range measured {
		tpm.Extend(attest.ReleasePCR, digest(m))
	}
	id, err := machine.New(tpm.Dial(), machine.P256)
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
		UKI: uki, Kernel: kernel, Extras: digest("files"),
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
		Quote: q.Quote, Signature: q.Signature, PCRs: q.PCRs, EventLog: encode(w.events),
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
		firmware []logged // nil: the good one
		measured []string // nil: the good ones
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

		{name: "event log missing", change: func(w *world) { w.got.EventLog = nil }, want: attest.LogRefused},
		{name: "event log truncated", change: func(w *world) { w.got.EventLog = w.got.EventLog[:len(w.got.EventLog)-1] }, want: attest.LogRefused},
		{name: "event log oversized", change: func(w *world) { w.got.EventLog = make([]byte, attest.MaxEventLog+1) }, want: attest.LogRefused},
		{name: "event log with an altered hash", change: func(w *world) { w.edit(uki, started(digest("else"))) }, want: attest.LogRefused},
		{name: "event log that leaves out an event", change: func(w *world) { w.edit(uki) }, want: attest.LogRefused},
		{name: "event log that adds an event", change: func(w *world) { w.edit(uki, started(uki), started(uki)) }, want: attest.LogRefused},
		{name: "event log with events of PCR 14", change: func(w *world) {
			w.got.EventLog = encode(append(w.events, told(14, kindIPL, "MokList")))
		}, want: attest.LogRefused},

		{name: "evil stub that measures well", firmware: replace(firmware(), uki, started(digest("evil"))), want: attest.Firmware},
		{name: "evil stub, told as an action", firmware: replace(firmware(), calling.digest, logged{4, kindAction, digest("evil"), []byte("Calling EFI Application from Boot Option")}), want: attest.Firmware},
		{name: "evil stub, told as a separator", firmware: replace(firmware(), calling.digest, logged{4, kindSeparator, digest("evil"), []byte{0, 0, 0, 0}}), want: attest.Firmware},
		{name: "evil stub, told as no action", firmware: replace(firmware(), uki, started(digest("evil")), started(uki)), change: func(w *world) {
			w.edit(digest("evil"), logged{4, kindNoAction, digest("evil"), nil})
		}, want: attest.LogRefused},
		{name: "program that explains its hash", firmware: replace(firmware(), calling.digest, told(4, kindAction, "MZ\x90\x00")), want: attest.Firmware},
		{name: "driver started", firmware: replace(firmware(), uki, logged{4, kindDriver, digest("driver"), nil}, started(uki)), want: attest.Firmware},
		{name: "another application before", firmware: replace(firmware(), uki, started(digest("shell")), started(uki)), want: attest.Firmware},
		{name: "another application after", firmware: append(firmware(), started(digest("evil"))), want: attest.Firmware},
		{name: "kernel without image", firmware: replace(firmware(), uki), want: attest.Firmware},
		{name: "application before the separator", firmware: replace(firmware(), calling.digest, started(digest("evil"))), want: attest.Firmware},
		{name: "kernel that the firmware did not see", firmware: replace(firmware(), kernel)},
		{name: "firmware without measurements", firmware: []logged{}, want: attest.Firmware},
		{name: "firmware with an error", firmware: replace(firmware(), separator4.digest, told(4, kindSeparator, "\x01\x00\x00\x00")), want: attest.Firmware},
		{name: "release without an image", change: func(w *world) { w.want.UKI, w.want.Kernel = attest.Digest{}, attest.Digest{} }, want: attest.Firmware},
		{name: "ticket from beside the image", firmware: append(firmware(), logged{12, kindIPL, digest("files"), nil})},
		{name: "ticket twice", firmware: append(firmware(), logged{12, kindIPL, digest("files"), nil}, logged{12, kindIPL, digest("files"), nil}), want: attest.Cmdline},
		{name: "other files from beside the image", firmware: append(firmware(), logged{12, kindIPL, digest("more files"), nil}), want: attest.Cmdline},
		{name: "changed command line", firmware: append(firmware(), told(12, kindIPL, "init=/bin/sh")), want: attest.Cmdline},
	}
	tpm := swtpm.Start(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tpm.Restart()
			events, measured := tt.firmware, tt.measured
			if events == nil {
				events = firmware()
			}
			if measured == nil {
				measured = good
			}
			w := boot(t, tpm, events, measured...).answer()
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
func (w *world) edit(at attest.Digest, with ...logged) {
	w.got.EventLog = encode(replace(w.events, at, with...))
}
