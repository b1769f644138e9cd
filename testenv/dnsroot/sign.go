package dnsroot

import (
	"bytes"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	ttl = 300
	// life is how long the signatures count. The environment is torn down long before.
	life = 30 * 24 * time.Hour
	// skew is how far back they count, for a machine whose clock is late.
	skew = time.Hour
)

// Signed is a signed root zone.
type Signed struct {
	Zone   []byte // presentation form
	Anchor string // DS record of its key, presentation form
}

// Sign makes a root zone of these records (presentation form, absolute names) with SOA, NS, DNSKEY, NSEC and RRSIG. server is the
// root server's name and must have an address record among them. The key exists only while Sign runs.
func Sign(records []string, server string, now time.Time) (Signed, error) {
	all := []string{
		fmt.Sprintf(". %d IN SOA %s hostmaster.%s %d 3600 600 86400 60", ttl, server, server, now.Unix()&0xffffffff),
		fmt.Sprintf(". %d IN NS %s", ttl, server),
	}
	zone := zone{}
	for _, text := range append(all, records...) {
		rr, err := dns.NewRR(text)
		if err != nil {
			return Signed{}, fmt.Errorf("reading record %q: %w", text, err)
		}
		if rr == nil {
			return Signed{}, fmt.Errorf("reading record %q: empty", text)
		}
		if err := zone.add(rr); err != nil {
			return Signed{}, err
		}
	}
	if len(zone[dns.CanonicalName(server)][dns.TypeA]) == 0 {
		return Signed{}, fmt.Errorf("root server %q has no address record in the zone", server)
	}

	key := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: ".", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: ttl},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		return Signed{}, fmt.Errorf("making the zone's key: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return Signed{}, fmt.Errorf("making the zone's key: %T cannot sign", private)
	}
	if err := zone.add(key); err != nil {
		return Signed{}, err
	}
	if err := zone.chain(); err != nil {
		return Signed{}, err
	}

	var out bytes.Buffer
	for _, name := range zone.names() {
		for _, t := range zone.types(name) {
			set := zone[name][t]
			sig := &dns.RRSIG{
				Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: ttl},
				Algorithm:  key.Algorithm,
				Inception:  uint32(now.Add(-skew).Unix()),
				Expiration: uint32(now.Add(life).Unix()),
				KeyTag:     key.KeyTag(),
				SignerName: ".",
			}
			if err := sig.Sign(signer, set); err != nil {
				return Signed{}, fmt.Errorf("signing %s %s: %w", name, dns.TypeToString[t], err)
			}
			for _, rr := range append(slices.Clone(set), sig) {
				fmt.Fprintln(&out, rr.String())
			}
		}
	}
	return Signed{Zone: out.Bytes(), Anchor: key.ToDS(dns.SHA256).String()}, nil
}

// zone is records by canonical owner name and type.
type zone map[string]map[uint16][]dns.RR

func (z zone) add(rr dns.RR) error {
	h := rr.Header()
	h.Name = dns.CanonicalName(h.Name)
	switch {
	case h.Rrtype == dns.TypeCNAME || h.Rrtype == dns.TypeDNAME || strings.Contains(h.Name, "*"):
		return fmt.Errorf("record %q: neither aliases nor wildcards are served", rr)
	case h.Rrtype == dns.TypeNS && h.Name != ".":
		return fmt.Errorf("record %q: delegations are not served", rr)
	}
	if z[h.Name] == nil {
		z[h.Name] = map[uint16][]dns.RR{}
	}
	z[h.Name][h.Rrtype] = append(z[h.Name][h.Rrtype], rr)
	return nil
}

// chain adds the NSEC records. A name that exists only because something lies below it would need a proof of its own: refused.
func (z zone) chain() error {
	names := z.names()
	for i, name := range names {
		for parent := parentOf(name); name != "." && parent != "."; parent = parentOf(parent) {
			if z[parent] == nil {
				return fmt.Errorf("name %q has nothing at %q: give it a record", name, parent)
			}
		}
		types := append(z.types(name), dns.TypeRRSIG, dns.TypeNSEC)
		slices.Sort(types)
		err := z.add(&dns.NSEC{
			Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60},
			NextDomain: names[(i+1)%len(names)],
			TypeBitMap: types,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// names in canonical order (RFC 4034, section 6.1).
func (z zone) names() []string {
	names := make([]string, 0, len(z))
	for name := range z {
		names = append(names, name)
	}
	slices.SortFunc(names, compare)
	return names
}

func (z zone) types(name string) []uint16 {
	types := make([]uint16, 0, len(z[name]))
	for t := range z[name] {
		types = append(types, t)
	}
	slices.Sort(types)
	return types
}

// compare orders names by their labels from the right (RFC 4034, section 6.1).
func compare(a, b string) int {
	x, y := dns.SplitDomainName(a), dns.SplitDomainName(b)
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}

func parentOf(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return dns.Fqdn(parent)
}
