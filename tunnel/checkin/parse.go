package checkin

import (
	"fmt"
	"net/netip"
	"time"

	"mayfly/internal/canonical"
	"mayfly/policies/trust"
)

// Kind is List.Kind.
const Kind = "mayfly-list/1"

// Limits of a list.
const (
	MaxList    = 4 << 20          // bytes
	MaxServers = 20000            // entries
	MaxLife    = 24 * time.Hour   // from Issued to Expires
	MaxAhead   = 10 * time.Minute // how far a signer's clock may be before ours
)

// Marshal returns the list's canonical bytes, which are what is signed.
func (l *List) Marshal() ([]byte, error) { return canonical.Marshal(l) }

// Parse reads a list strictly: canonical JSON, known fields only, every entry sound. It does not look at signature or time.
func Parse(data []byte) (*List, error) {
	if len(data) > MaxList {
		return nil, refuse(TooLarge, "%d bytes, at most %d", len(data), MaxList)
	}
	var l List
	if err := canonical.Parse(data, MaxList, &l); err != nil {
		return nil, refuse(Malformed, "reading the server list: %w", err)
	}
	if err := l.check(); err != nil {
		return nil, refuse(Malformed, "reading the server list: %w", err)
	}
	return &l, nil
}

func (l *List) check() error {
	switch {
	case l.Kind != Kind:
		return fmt.Errorf("kind %q, want %q", l.Kind, Kind)
	case !label(l.Fleet):
		return fmt.Errorf("fleet %q is not a lower-case DNS label", l.Fleet)
	case l.Issued.IsZero() || !l.Expires.After(l.Issued):
		return fmt.Errorf("issued %s, expires %s", l.Issued.Format(time.RFC3339), l.Expires.Format(time.RFC3339))
	case l.Expires.Sub(l.Issued) > MaxLife:
		return fmt.Errorf("valid for %s, at most %s", l.Expires.Sub(l.Issued), MaxLife)
	case len(l.Servers) > MaxServers:
		return fmt.Errorf("%d servers, at most %d", len(l.Servers), MaxServers)
	}
	seen := map[string]bool{}
	for i, s := range l.Servers {
		switch {
		case !label(s.Name):
			return fmt.Errorf("server %d: name %q is not a lower-case DNS label", i, s.Name)
		case seen[s.Name]:
			return fmt.Errorf("server %q twice", s.Name)
		case !label(s.Region):
			return fmt.Errorf("server %q: region %q is not a lower-case DNS label", s.Name, s.Region)
		case !unicast(s.Address):
			return fmt.Errorf("server %q: address %q is not one of a host", s.Name, s.Address)
		case s.Register == 0:
			return fmt.Errorf("server %q: no registration port", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

// Open verifies a signed list and then reads it. seen is the Issued of the newest list that the caller has believed, or zero.
func Open(c ClientConfig, s Signed, now, seen time.Time) (*List, error) {
	if len(s.List) > MaxList {
		return nil, refuse(TooLarge, "%d bytes, at most %d", len(s.List), MaxList)
	}
	if err := trust.VerifyAny(c.ListKeys, Namespace, s.List, s.Signature); err != nil {
		return nil, refuse(Unsigned, "verifying the server list: %w", err)
	}
	l, err := Parse(s.List)
	if err != nil {
		return nil, err
	}
	switch {
	case l.Fleet != c.Fleet:
		return nil, refuse(OtherFleet, "the list is of fleet %q, want %q", l.Fleet, c.Fleet)
	case !now.Before(l.Expires):
		return nil, refuse(Expired, "the list expired %s ago", now.Sub(l.Expires).Round(time.Second))
	case l.Issued.After(now.Add(MaxAhead)):
		return nil, refuse(NotYet, "the list is issued %s from now: is this clock right?", l.Issued.Sub(now).Round(time.Second))
	case l.Issued.Before(seen):
		return nil, refuse(Older, "the list is %s older than one seen before", seen.Sub(l.Issued).Round(time.Second))
	}
	return l, nil
}

// label tells a lower-case DNS label.
func label(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
}
