package card

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/hint"
)

const kindDiagnosis = "mayfly-card-doctor/1"

// Health is what a check comes to.
type Health string

const (
	Healthy Health = "ok"
	Warn    Health = "warn" // it works, and somebody should know
	Fails   Health = "fail" // it does not work, or not as meant
)

// Finding is the result of one check.
type Finding struct {
	Check  string `json:"check"`
	Health Health `json:"status"`
	What   string `json:"what"`
	Hint   string `json:"hint,omitempty"` // its mend
}

// Diagnosis is what "bastion-agent doctor" found.
type Diagnosis struct {
	Kind     string    `json:"kind"`
	At       time.Time `json:"at"`
	Findings []Finding `json:"findings"`
	Failures int       `json:"failures"`
	Warnings int       `json:"warnings"`
}

// Machine is what a doctor looks at beside the cards.
type Machine struct {
	System  string                                    // "linux", "darwin"
	Service func() (path string, installed bool)      // pcscd's program
	Socket  func(ctx context.Context) (string, error) // connects to pcscd's socket, and names it
	Holders func() []string                           // programs that are known to keep cards, and run
}

// Errors that Machine.Socket tells apart.
var (
	ErrNoSocket     = errors.New("there is no socket")
	ErrSocketDead   = errors.New("nobody listens")
	ErrSocketDenied = errors.New("permission denied")
	ErrSocketFull   = errors.New("nobody takes the connection")
)

// OurName is the name among Machine.Holders of this program, where another of its processes runs.
const OurName = "bastion-agent"

// fewTries is how many tries left are worth a warning.
const fewTries = 2

// doctor collects findings.
type doctor struct {
	machine  Machine
	reach    Reach
	floor    Version
	found    func(Finding)
	findings []Finding
	foreign  []error // why cards are none with PIV
}

func (d *doctor) note(check string, h Health, mend, format string, args ...any) {
	if h == Healthy {
		mend = ""
	}
	f := Finding{Check: check, Health: h, What: fmt.Sprintf(format, args...), Hint: mend}
	d.findings = append(d.findings, f)
	d.found(f)
}

func (d *doctor) ok(check, format string, args ...any) { d.note(check, Healthy, "", format, args...) }

// fail notes an error with its own hint.
func (d *doctor) fail(check string, err error) { d.note(check, Fails, hint.Of(err), "%v", err) }

// Doctor finds why a card does not answer, or answers less than a fleet asks, and shows each finding as soon as there is one: what comes
// after it may take its time. It changes nothing and tries no PIN. It ends early when ctx does.
func Doctor(ctx context.Context, reach Reach, machine Machine, floor Version, now time.Time, found func(Finding)) Diagnosis {
	d := &doctor{machine: machine, reach: reach, floor: floor, found: found}
	if readers, ok := d.service(ctx); ok {
		d.readers(ctx, readers)
	}
	diagnosis := Diagnosis{Kind: kindDiagnosis, At: now.UTC(), Findings: d.findings}
	for _, f := range d.findings {
		switch f.Health {
		case Fails:
			diagnosis.Failures++
		case Warn:
			diagnosis.Warnings++
		}
	}
	return diagnosis
}

// service looks at the way to readers: this program, pcscd, its socket, and whether it lets us in.
func (d *doctor) service(ctx context.Context) ([]Reader, bool) {
	readers, err := d.reach.Readers(ctx)
	if FaultOf(err) == NotBuilt {
		d.fail("program", err)
		return nil, false
	}
	d.ok("program", "built with smart cards")
	said := d.machine.System == "linux" && d.daemon(ctx, err == nil)
	switch FaultOf(err) {
	case "":
		if err == nil {
			return readers, true
		}
		d.fail("pcsc", err)
	case TooLong:
		d.note("pcsc", Fails, "systemctl restart pcscd.service; pull the card first, if it does the same again", "%v", err)
	case NoService:
		switch {
		case said: // why, and what helps
		case d.machine.System != "linux":
			d.note("pcsc", Fails, "log out and in again, or restart the machine: the system's own service does not answer", "%v", err)
		default:
			d.fail("pcsc", err)
		}
	default:
		d.fail("pcsc", err)
	}
	return nil, false
}

// daemon looks for pcscd, where it is one, and reports whether it said why nobody answers.
func (d *doctor) daemon(ctx context.Context, answers bool) (said bool) {
	before := len(d.findings)
	defer func() {
		said = slices.ContainsFunc(d.findings[before:], func(f Finding) bool { return f.Health == Fails })
	}()
	path, installed := d.machine.Service()
	if installed {
		d.ok("pcscd", "%s", path)
	} else if !answers {
		d.note("pcscd", Fails, "apt-get install pcscd libccid", "pcscd is not installed")
	}
	socket, err := d.machine.Socket(ctx)
	switch {
	case err == nil:
		d.ok("socket", "%s", socket)
	case errors.Is(err, ErrNoSocket) && installed:
		d.note("socket", Fails, "systemctl enable --now pcscd.socket", "%s: pcscd does not run", socket)
	case errors.Is(err, ErrSocketDead):
		d.note("socket", Fails, "systemctl restart pcscd.socket pcscd.service", "%s: pcscd has ended, and left its socket", socket)
	case errors.Is(err, ErrSocketDenied):
		d.note("socket", Fails, "it is for everybody on Debian: look at its mode and at that of its directory; polkit decides who may use cards", "%s: this user may not connect", socket)
	case errors.Is(err, ErrSocketFull):
		d.note("socket", Fails, "systemctl restart pcscd.service; pull the card first, if it does the same again", "%s: pcscd does not answer: too many wait for it already", socket)
	case !errors.Is(err, ErrNoSocket):
		d.note("socket", Fails, "systemctl status pcscd.socket", "%s: %v", socket, err)
	}
	return said
}

// readers looks at each, and at its card.
func (d *doctor) readers(ctx context.Context, readers []Reader) {
	if len(readers) == 0 {
		d.note("reader", Fails, mends[NoReader]+"; libccid is its driver", "there is no reader: a YubiKey is one by itself")
		return
	}
	found, opened := false, false
	for _, r := range readers {
		switch {
		case ctx.Err() != nil:
			d.note("card", Fails, "run it again, and let it end", "%s: not looked at: %v", r.Name, ctx.Err())
			continue
		case !r.Present:
			d.ok("reader", "%s: no card", r.Name) // whether there is one at all is said below
			continue
		case r.Mute:
			d.note("reader", Fails, "pull the card and put it back in, the right way round; clean its contacts", "%s: its card does not answer to being powered", r.Name)
		default:
			d.ok("reader", "%s", r.Name)
			opened = d.card(ctx, r) || opened
		}
		found = true
	}
	for _, err := range d.foreign { // beside a card that is meant there may be one for something else
		d.note("piv", map[bool]Health{true: Warn, false: Fails}[opened], hint.Of(err), "%v", err)
	}
	if !found && ctx.Err() == nil {
		d.note("card", Fails, "put a card in", "there is no card in any reader")
	}
}

// card looks at one card, and reports whether it is one with PIV.
func (d *doctor) card(ctx context.Context, r Reader) bool {
	t, err := d.reach.Open(ctx, r.Name)
	if err != nil {
		d.closed(r, err)
		return false
	}
	serial, err := t.Serial()
	fw := t.Firmware()
	if err != nil {
		t.Close()
		d.fail("card", err)
		return false
	}
	d.ok("card", "%d in %s", serial, r.Name)
	if fw.Before(d.floor) {
		d.note("firmware", Fails, "firmware cannot be changed: take a newer card, or ask whether the fleet's policy has a lower min_firmware", "card %d has firmware %s; fleets ask for %s, unless their policy says otherwise", serial, fw, d.floor)
	} else {
		d.ok("firmware", "%s", fw)
	}
	guarded, answers := d.keys(t, serial)
	if err := t.Close(); !answers {
		return true // it has been said
	} else if err != nil {
		d.fail("card", err)
		return true
	}
	if secrets, err := d.reach.Secrets(ctx, r.Name); err != nil {
		d.closed(r, err)
	} else {
		d.secrets(secrets, serial, guarded)
	}
	return true
}

// closed says why a card could not be opened.
func (d *doctor) closed(r Reader, err error) {
	switch FaultOf(err) {
	case Busy:
	case NoPIV:
		d.foreign = append(d.foreign, err)
		return
	default:
		d.fail("card", err)
		return
	}
	who := "another program"
	if holders := d.machine.Holders(); len(holders) > 0 {
		who = strings.Join(holders, " or ") + ", which runs,"
	}
	how := "has it open"
	if r.Exclusive {
		how = "has it for itself"
	}
	mend := mends[Busy]
	if slices.Contains(d.machine.Holders(), OurName) {
		mend = "a program of ours waits for a touch, or was ended while it did: touch the key, or wait 15 seconds; if that is not it: " + mend
	}
	d.note("card", Fails, mend, "the card in %s is not to be had: %s %s", r.Name, who, how)
}

// secrets looks at PIN, PUK and management key, and says what the keys in the slots that the PIN guards come to.
func (d *doctor) secrets(s Secrets, serial uint32, guarded []Slot) {
	if !s.Known {
		d.note("pin", Warn, "take a card with firmware 5.3 or later", "card %d does not say whether its PIN is the factory's", serial)
		return
	}
	for _, secret := range []struct {
		check, name string
		t           Tries
		blocked     string
		exposed     string
	}{
		{"pin", "PIN", s.PIN, mends[BlockedPIN], exposed(guarded, true, false)},
		{"puk", "PUK", s.PUK, "while the PIN works nothing is lost; to have a PUK again all of PIV is reset: bastion-agent setup --reset-and-destroy-all-piv-keys", exposed(guarded, false, true)},
	} {
		left := fmt.Sprintf("%d of %d tries left", secret.t.Left, secret.t.Total)
		switch {
		case secret.t.Left == 0:
			d.note(secret.check, Fails, secret.blocked, "card %d: the %s is blocked", serial, secret.name)
		case secret.t.Factory && secret.exposed != "":
			d.note(secret.check, Fails, "bastion-agent setup sets one: at once", "card %d: the %s is the factory's: %s", serial, secret.name, secret.exposed)
		case secret.t.Factory:
			d.note(secret.check, Fails, "bastion-agent setup sets one", "card %d: the %s is the factory's, which everybody knows", serial, secret.name)
		case secret.t.Left <= fewTries:
			d.note(secret.check, Warn, "the right one sets it back", "card %d: %s for the %s", serial, left, secret.name)
		default:
			d.ok(secret.check, "%s", left)
		}
	}
	if s.Management {
		d.note("management_key", Fails, "bastion-agent setup sets a random one", "card %d: the management key is the factory's: who has the card in hand for a moment can put another key in", serial)
	} else {
		d.ok("management_key", "not the factory's")
	}
}

// keys looks at those that a fleet could take, and returns the slots of all that the PIN guards, and whether the card answers on.
func (d *doctor) keys(t Token, serial uint32) (guarded []Slot, answers bool) {
	good := 0
	for _, slot := range all() {
		info, err := read(t, slot)
		switch {
		case FaultOf(err) == NoKey:
			continue
		case err != nil && !stays(err):
			d.fail("key", err)
			return guarded, false
		case (err == nil || FaultOf(err) == Garbage) && info.takesPIN():
			guarded = append(guarded, slot)
		}
		switch {
		case !slot.Serves(): // it is another program's
			continue
		case err != nil:
			d.note("key", Fails, hint.Of(err), "slot %s of card %d: %v", slot, serial, err)
			continue
		}
		if fault := info.fault(); fault != "" {
			d.note("key", Fails, "policies and origin of a key never change: bastion-agent setup makes another, in this slot or the next", "slot %s of card %d: %s", slot, serial, fault)
			continue
		}
		good++
		if _, err := t.Certificate(slot); FaultOf(err) == NoKey {
			d.note("key", Warn, "bastion-agent setup finishes it", "slot %s of card %d: no certificate, so that other programs do not find the key", slot, serial)
		} else {
			d.ok("key", "slot %s: %s, touch %s, PIN %s", slot, info.Algorithm, info.Touch, info.PINPolicy)
		}
	}
	if good == 0 {
		d.note("key", Fails, mends[NoKey], "card %d has no key that a fleet would take", serial)
	}
	return guarded, true
}

// fault is what a fleet has against a key, or "".
func (i Info) fault() string {
	switch {
	case i.Algorithm == Other:
		return "a type that no fleet takes"
	case i.Origin == Imported:
		return "it was made elsewhere and imported, so nobody can tell who else has it"
	case i.Touch == Never:
		return "it signs without a touch"
	case i.Touch == Cached:
		return "one touch lets it sign for 15 seconds"
	case i.PINPolicy == Never:
		return "it signs without a PIN"
	case i.Touch != Always:
		return "the card does not say that each signature takes a touch"
	}
	return ""
}
