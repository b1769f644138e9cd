package pivcard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"mayfly/internal/command"
	"mayfly/internal/durable"
)

const disclaimer = "The card is software: it proves nothing, and its certificates say TEST."

// Verbs are the commands "pivcard issuer", "pivcard serve" and those that hold a served card in the hand.
func Verbs() []command.Verb {
	verbs := []command.Verb{{
		Name:    "pivcard issuer",
		Args:    "FILE",
		Summary: "make, or show, a test maker of virtual cards: roots and intermediates with their keys",
		Help:    "Prints the certificates that sign device certificates, as a policy's [[hardware.test_issuer]] takes them.\n" + disclaimer,
		Run:     runIssuer,
	}, {
		Name:    "pivcard serve",
		Args:    "--card FILE --issuer FILE --reader ADDRESS --control SOCKET [flags]",
		Summary: "run one virtual YubiKey in a reader of vpcd's",
		Help: "Runs until interrupted and prints a line on stderr when it is in the reader. FILE is made if it is not there, and keeps the card's\n" +
			"keys, PIN and counters; flags about the card itself are for a new one.\n" + disclaimer,
		Run: runServe,
	}}
	for _, v := range []struct{ name, args, summary string }{
		{"show", "", "show the card: slots, counters, touches asked and given"},
		{"touch", "[--wait]", "touch the card, which has to ask for it"},
		{"refuse", "[--wait]", "let the card's wait for a touch end without one"},
		{"mode", "[--window DURATION] manual|auto|refused|late", "say what becomes of touches from now on"},
		{"pull", "", "take the card out of the reader"},
		{"insert", "", "put the card into the reader"},
		{"generate", "[--pin POLICY] [--touch POLICY] SLOT ALGORITHM", "make a key in a slot"},
		{"import", "[--pin POLICY] [--touch POLICY] SLOT PEM-FILE", "put a key that was made elsewhere into a slot"},
		{"faults", "[flags]", "make attestations wrong on purpose; without flags right again"},
		{"firmware", "VERSION", "make the card one of another version"},
		{"replace", "[--chain CHAIN] ISSUER-FILE", "give the card an attestation key of another chain or issuer"},
	} {
		verbs = append(verbs, command.Verb{
			Name: "pivcard " + v.name, Args: strings.TrimSpace("--control SOCKET " + v.args), Summary: v.summary, Help: disclaimer,
			Run: func(ctx context.Context, c *command.Call) error { return runAsk(ctx, c, v.name) },
		})
	}
	return verbs
}

func runIssuer(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	format := fs.String("o", "table", "`FORMAT`: table, json, or pem (the roots)")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 1 || !slices.Contains([]string{"table", "json", "pem"}, *format) {
		return command.Usagef("want one file, and -o table, json or pem")
	}
	issuer, err := LoadOrNewIssuer(fs.Arg(0))
	if err != nil {
		return err
	}
	switch *format {
	case "pem":
		_, err = c.Stdout.Write(slices.Concat(issuer.PIVRoot.PEM(), issuer.Root.PEM()))
	case "json":
		err = json.NewEncoder(c.Stdout).Encode(issuer.DeviceIssuers())
	default:
		for _, i := range issuer.DeviceIssuers() {
			if _, err = fmt.Fprintf(c.Stdout, "[[hardware.test_issuer]]\nname = %q\napplet = %q\ncertificate = %q\n", i.Name, i.Applet, i.Certificate); err != nil {
				break
			}
		}
	}
	return err
}

func runServe(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	file := fs.String("card", "", "the card's `FILE`")
	issuerFile := fs.String("issuer", "", "the maker's `FILE`, of pivcard issuer; made if it is not there")
	address := fs.String("reader", "", "vpcd's `ADDRESS`, as 127.0.0.1:35963")
	socket := fs.String("control", "", "listen at this `SOCKET` for the other verbs")
	outside := fs.Bool("outside", false, "begin outside of the reader")
	mode := fs.String("touch", string(TouchManual), "what becomes of touches, `MODE`: manual, auto, refused or late")
	config := Config{Firmware: DefaultFirmware}
	fs.TextVar(&config.Firmware, "firmware", DefaultFirmware, "`VERSION` of a new card")
	serial := fs.Uint("serial", 0, fmt.Sprintf("`NUMBER` of a new card, from %d to %d; 0 draws one", FirstSerial, LastSerial))
	chain := fs.String("chain", "", "which authority certifies a new card, `CHAIN`: piv-root, piv or fido; the firmware's own if not given")
	form := fs.Uint("form-factor", 0, "Yubico's `NUMBER` of a new card's form; a USB-C keychain if not given")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if *file == "" || *issuerFile == "" || *address == "" || *socket == "" || fs.NArg() > 0 || *form > 0xFF || *serial > uint(LastSerial) {
		return command.Usagef("want --card, --issuer, --reader and --control, and numbers in range")
	}
	if err := NewTouch().SetMode(TouchMode(*mode)); err != nil {
		return command.Usagef("%v", err)
	}
	config.Serial, config.Chain, config.FormFactor = uint32(*serial), Chain(*chain), byte(*form)
	var err error
	if config.Issuer, err = LoadOrNewIssuer(*issuerFile); err != nil {
		return err
	}
	card, err := LoadOrNew(*file, config)
	if err != nil {
		return err
	}
	if err := card.Touch.SetMode(TouchMode(*mode)); err != nil {
		return err
	}
	l, err := ListenControl(*socket)
	if err != nil {
		return err
	}
	slot := NewSlot(card, DialTCP(*address), !*outside)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return slot.Run(ctx) })
	group.Go(func() error { return (&Control{Card: card, Slot: slot}).Serve(ctx, l) })
	group.Go(func() error {
		if err := slot.Wait(ctx, !*outside); err != nil {
			return nil // interrupted before the reader was there
		}
		_, err := fmt.Fprintf(c.Stderr, "pivcard: software card %d, firmware %s, ready at %s\n", card.Serial(), card.Firmware(), *socket)
		return err
	})
	return group.Wait()
}

// maxImport bounds a key's file.
const maxImport = 16 << 10

// runAsk is every verb that asks a card's control socket.
func runAsk(ctx context.Context, c *command.Call, what string) error {
	fs := c.Flags()
	socket := fs.String("control", "", "the card's control `SOCKET`")
	format := fs.String("o", "table", "`FORMAT`: table or json")
	r := Request{Do: what}
	var plan KeyPlan
	var faults Faults
	words := 0
	var without string
	var wrongSerial uint
	switch what {
	case "touch", "refuse":
		fs.BoolVar(&r.Wait, "wait", false, "wait until the card asks")
	case "mode":
		words = 1
		fs.StringVar(&r.Window, "window", "", "how long the card waits, `DURATION`")
	case "generate", "import":
		words = 2
		fs.StringVar(&plan.PIN, "pin", "", "`POLICY`: never, once or always; the slot's own if not given")
		fs.StringVar(&plan.Touch, "touch", "", "`POLICY`: never, always or cached; never if not given")
	case "faults":
		fs.StringVar(&without, "without", "", "leave out these extensions: `LIST` of firmware,serial,policy,formfactor")
		fs.StringVar(&faults.Slot, "slot", "", "name this `SLOT`")
		fs.StringVar(&faults.Firmware, "firmware", "", "say this `VERSION`")
		fs.UintVar(&wrongSerial, "serial", 0, "say this `NUMBER`")
		fs.StringVar(&faults.Touch, "touch", "", "say this touch `POLICY`")
		fs.StringVar(&faults.PIN, "pin", "", "say this PIN `POLICY`")
		fs.BoolVar(&faults.Expired, "expired", false, "say that it was valid long ago")
		fs.BoolVar(&faults.Imported, "imported", false, "attest imported keys as well")
	case "firmware":
		words = 1
	case "replace":
		words = 1
		fs.StringVar((*string)(&r.Chain), "chain", "", "`CHAIN`: piv-root, piv or fido")
	}
	if err := c.Parse(fs); err != nil {
		return err
	}
	if *socket == "" || fs.NArg() != words || *format != "table" && *format != "json" || wrongSerial > uint(^uint32(0)) {
		return command.Usagef("want --control SOCKET and %d words, and -o table or json", words)
	}
	if err := r.fill(fs.Args(), plan, faults, without, uint32(wrongSerial)); err != nil {
		return err
	}
	reply, err := Ask(ctx, *socket, r)
	if err != nil {
		return err
	}
	if *format == "json" {
		return json.NewEncoder(c.Stdout).Encode(reply)
	}
	if what != "show" {
		return nil
	}
	return reply.table(c)
}

// fill puts a verb's words into its request.
func (r *Request) fill(words []string, plan KeyPlan, faults Faults, without string, serial uint32) error {
	switch r.Do {
	case "mode":
		r.Mode = words[0]
	case "generate":
		plan.Slot, plan.Algorithm = words[0], words[1]
		r.Key = &plan
	case "import":
		data, err := durable.ReadFile(words[1], maxImport)
		if err != nil {
			return err
		}
		plan.Slot = words[0]
		r.Key, r.PEM = &plan, string(data)
	case "faults":
		if without != "" {
			faults.Without = strings.Split(without, ",")
		}
		faults.Serial = serial
		r.Faults = &faults
	case "firmware":
		r.Firmware = words[0]
	case "replace":
		r.Issuer = words[0]
	}
	return nil
}

// table shows a card to a person.
func (r Reply) table(c *command.Call) error {
	card := r.Card
	if card == nil {
		return errors.New("the card's answer shows no card")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "serial      %d (software)\nfirmware    %s\nin reader   %v %s\n", card.Serial, card.Firmware, r.Inside, r.Why)
	fmt.Fprintf(&b, "tries left  PIN %d, PUK %d\nmanagement  %s\n", card.PINLeft, card.PUKLeft, card.Management)
	t := card.Touch
	fmt.Fprintf(&b, "touch       %s, window %s, waiting %v\n", t.Mode, t.Window, t.Waiting)
	fmt.Fprintf(&b, "touches     asked %d, given %d, refused %d, late %d, pulled %d, cached %d\n", t.Asked, t.Given, t.Refused, t.Late, t.Pulled, t.Cached)
	fmt.Fprintf(&b, "signatures  %d\n", card.Signatures)
	names := []string{}
	for name := range card.Slots {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		k := card.Slots[name]
		origin := "generated"
		if k.Imported {
			origin = "imported"
		}
		fmt.Fprintf(&b, "slot %s     %s, PIN %s, touch %s, %s\n", name, k.Algorithm, k.PIN, k.Touch, origin)
	}
	_, err := c.Stdout.Write([]byte(b.String()))
	return err
}
