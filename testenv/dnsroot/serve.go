package dnsroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/miekg/dns"
)

// maxUDP is the largest answer over UDP (the DNS flag day's figure); a longer one is cut and asked again over TCP.
const maxUDP = 1232

// Server answers from a signed zone.
type Server struct{ zone zone }

// Load reads a zone that Sign made.
func Load(text []byte) (*Server, error) {
	z := zone{}
	parser := dns.NewZoneParser(bytes.NewReader(text), ".", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		if err := z.add(rr); err != nil {
			return nil, err
		}
	}
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("reading the zone: %w", err)
	}
	if len(z["."][dns.TypeSOA]) != 1 || len(z["."][dns.TypeDNSKEY]) == 0 {
		return nil, errors.New("reading the zone: not a signed root zone")
	}
	return &Server{z}, nil
}

// Serve answers on UDP and TCP until the context ends. ready is called when both listen.
func (s *Server) Serve(ctx context.Context, address string, ready func()) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", address, err)
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		packets.Close()
		return fmt.Errorf("listening on %s: %w", address, err)
	}
	udp := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(s.handle)}
	tcp := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(s.handle)}
	failed := make(chan error, 2)
	go func() { failed <- udp.ActivateAndServe() }()
	go func() { failed <- tcp.ActivateAndServe() }()
	if ready != nil {
		ready()
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = nil
	}
	packets.Close()
	listener.Close()
	return err
}

func (s *Server) handle(w dns.ResponseWriter, query *dns.Msg) {
	answer := s.Answer(query)
	size := dns.MaxMsgSize
	if w.LocalAddr().Network() == "udp" {
		size = dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = max(dns.MinMsgSize, min(int(opt.UDPSize()), maxUDP))
		}
	}
	answer.Truncate(size)
	_ = w.WriteMsg(answer) // the asker is gone or asks again
}

// Answer is the answer to one query.
func (s *Server) Answer(query *dns.Msg) *dns.Msg {
	answer := new(dns.Msg)
	answer.SetReply(query)
	answer.Authoritative = true
	answer.Compress = true
	dnssec := false
	if opt := query.IsEdns0(); opt != nil {
		dnssec = opt.Do()
		answer.SetEdns0(maxUDP, dnssec)
	}
	if query.Opcode != dns.OpcodeQuery || len(query.Question) != 1 || query.Question[0].Qclass != dns.ClassINET {
		answer.Authoritative = false
		answer.Rcode = dns.RcodeRefused
		return answer
	}
	name, qtype := dns.CanonicalName(query.Question[0].Name), query.Question[0].Qtype
	sets, exists := s.zone[name]
	if set := sets[qtype]; len(set) > 0 {
		answer.Answer = s.signed(name, qtype, dnssec)
		return answer
	}
	answer.Ns = s.signed(".", dns.TypeSOA, dnssec)
	if exists { // no data of this type
		if dnssec {
			answer.Ns = append(answer.Ns, s.signed(name, dns.TypeNSEC, true)...)
		}
		return answer
	}
	answer.Rcode = dns.RcodeNameError
	if dnssec {
		encloser := parentOf(name)
		for s.zone[encloser] == nil {
			encloser = parentOf(encloser)
		}
		covers := s.before(name)
		answer.Ns = append(answer.Ns, s.signed(covers, dns.TypeNSEC, true)...)
		wildcard := "*." + encloser
		if encloser == "." {
			wildcard = "*."
		}
		if other := s.before(wildcard); other != covers {
			answer.Ns = append(answer.Ns, s.signed(other, dns.TypeNSEC, true)...)
		}
	}
	return answer
}

// signed is a record set, with its signature if asked for.
func (s *Server) signed(name string, t uint16, dnssec bool) []dns.RR {
	set := append([]dns.RR(nil), s.zone[name][t]...)
	if dnssec {
		for _, rr := range s.zone[name][dns.TypeRRSIG] {
			if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == t {
				set = append(set, sig)
			}
		}
	}
	return set
}

// before is the last name of the zone that orders before this one: its NSEC covers it.
func (s *Server) before(name string) string {
	last := "."
	for _, n := range s.zone.names() {
		if compare(n, name) < 0 {
			last = n
		}
	}
	return last
}
