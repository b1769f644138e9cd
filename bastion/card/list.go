package card

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
)

const kindListing = "mayfly-cards/1"

// Listing is what "bastion-agent keys" finds.
type Listing struct {
	Kind  string   `json:"kind"`
	Cards []Listed `json:"cards"`
}

// Listed is a card with its keys, or why it does not answer.
type Listed struct {
	Reader   string      `json:"reader"`
	Serial   uint32      `json:"serial,omitempty"`
	Firmware string      `json:"firmware,omitempty"`
	Keys     []ListedKey `json:"keys"`
	Fault    Fault       `json:"fault,omitempty"`
	Error    string      `json:"error,omitempty"`
	Hint     string      `json:"hint,omitempty"`
}

// ListedKey is a key on a card, as the card says: only an attestation proves it.
type ListedKey struct {
	Slot        string    `json:"slot"`
	Type        Algorithm `json:"type"`
	PINPolicy   string    `json:"pin_policy"`
	Touch       string    `json:"touch"`
	Origin      string    `json:"origin"`
	Certificate bool      `json:"certificate"` // there is one, for other programs to find the key by
	Public      string    `json:"public,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Error       string    `json:"error,omitempty"`
}

// List looks at each card.
func List(ctx context.Context, reach Reach) (Listing, error) {
	readers, err := reach.Readers(ctx)
	if err != nil {
		return Listing{}, err
	}
	l := Listing{Kind: kindListing, Cards: []Listed{}}
	for _, r := range readers {
		if !r.Present {
			continue
		}
		c := Listed{Reader: r.Name, Keys: []ListedKey{}}
		if err := c.read(ctx, reach); err != nil {
			c.Fault, c.Error, c.Hint = FaultOf(err), err.Error(), hint.Of(err)
		}
		l.Cards = append(l.Cards, c)
	}
	return l, nil
}

func (c *Listed) read(ctx context.Context, reach Reach) error {
	t, err := reach.Open(ctx, c.Reader)
	if err != nil {
		return err
	}
	defer t.Close()
	c.Firmware = t.Firmware().String()
	if c.Serial, err = t.Serial(); err != nil {
		return err
	}
	for _, slot := range all() {
		info, err := read(t, slot)
		if FaultOf(err) == NoKey {
			continue
		}
		k := ListedKey{Slot: slot.String(), Type: Other, PINPolicy: Unknown, Touch: Unknown, Origin: Unknown}
		if err != nil {
			if !stays(err) {
				return err
			}
			k.Error = err.Error()
			c.Keys = append(c.Keys, k)
			continue
		}
		k.Type, k.PINPolicy, k.Touch, k.Origin = info.Algorithm, info.PINPolicy, info.Touch, info.Origin
		if public, err := SSHKey(info.Public); err == nil {
			k.Public, k.Fingerprint = line(public, comment(c.Serial, slot)), ssh.FingerprintSHA256(public)
		}
		if _, err := t.Certificate(slot); err == nil {
			k.Certificate = true
		} else if !stays(err) {
			return err
		}
		c.Keys = append(c.Keys, k)
	}
	return nil
}

// stays reports whether an error is about one slot, and the card answers on.
func stays(err error) bool {
	switch FaultOf(err) {
	case NoKey, Refused, Garbage:
		return true
	}
	return false
}

// read is what the card says of a slot's key. Before firmware 5.3 only its attestation, or its certificate, names the key.
func read(t Token, slot Slot) (Info, error) {
	info := Info{PINPolicy: Unknown, Touch: Unknown, Origin: Unknown}
	if !t.Firmware().Before(firmwareMetadata) {
		var err error
		if info, err = t.Info(slot); err != nil {
			return Info{}, err
		}
	} else {
		der, err := t.Attest(slot)
		if err != nil {
			if der, err = t.Certificate(slot); err != nil {
				return Info{}, err
			}
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return Info{}, fault(Garbage, fmt.Errorf("the certificate of slot %s: %w", slot, err))
		}
		info.Public = c.PublicKey
	}
	if info.Public == nil {
		return Info{}, fault(Garbage, fmt.Errorf("the card names no key in slot %s", slot))
	}
	if a := algorithmOf(info.Public); info.Algorithm != a && info.Algorithm != "" {
		return Info{}, fault(Garbage, fmt.Errorf("the card says that the key in slot %s is %s, and it is %s", slot, info.Algorithm, a))
	} else {
		info.Algorithm = a
	}
	return info, nil
}

// comment is what stands behind a public key.
func comment(serial uint32, slot Slot) string { return fmt.Sprintf("card-%d-slot-%s", serial, slot) }

// bare is a public key as "TYPE BASE64".
func bare(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}

// line is a public key as in authorized_keys.
func line(key ssh.PublicKey, comment string) string { return bare(key) + " " + comment }

// Find opens the card that is meant: the one with the serial number, or the only one.
func Find(ctx context.Context, reach Reach, serial uint32) (Token, Reader, error) {
	readers, err := reach.Readers(ctx)
	if err != nil {
		return nil, Reader{}, err
	}
	if len(readers) == 0 {
		return nil, Reader{}, fault(NoReader, errors.New(Says(NoReader)))
	}
	var (
		found Token
		in    Reader
		seen  []string
		errs  []error
	)
	for _, r := range readers {
		if !r.Present {
			continue
		}
		t, err := reach.Open(ctx, r.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n, err := t.Serial()
		if err != nil || serial != 0 && n != serial {
			t.Close()
			errs = append(errs, err)
			seen = append(seen, fmt.Sprint(n))
			continue
		}
		seen = append(seen, fmt.Sprint(n))
		if found != nil {
			t.Close()
			found.Close()
			return nil, Reader{}, hint.New(fmt.Errorf("there are several cards: %s", strings.Join(seen, ", ")), "--serial says which")
		}
		found, in = t, r
	}
	err = errors.Join(errs...)
	switch {
	case found != nil && serial == 0 && FaultOf(err) == Busy:
		found.Close()
		return nil, Reader{}, hint.New(fmt.Errorf("there are several cards: %s, and one that another program has for itself", strings.Join(seen, ", ")), "--serial says which")
	case found != nil:
		return found, in, nil
	case err != nil:
		return nil, Reader{}, err
	case len(seen) > 0:
		return nil, Reader{}, hint.New(fmt.Errorf("no card has the serial number %d: there is %s", serial, strings.Join(seen, ", ")), "bastion-agent keys lists the cards")
	}
	return nil, Reader{}, fault(Removed, errors.New("there is no card in any reader"))
}

// nameOf is what people call the card in a reader, as far as the reader's name tells.
func nameOf(reader string) string {
	if strings.Contains(strings.ToLower(reader), "yubikey") {
		return "YubiKey"
	}
	return ""
}
