package dnsroot

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var records = []string{
	"a.root-lab. 300 IN A 203.0.113.53",
	`root-lab. 300 IN TXT "a root of our own"`,
	`lab. 300 IN TXT "names of the lab"`,
	"web.lab. 300 IN A 203.0.113.10",
}

func server(t *testing.T) (*Server, *dns.DNSKEY) {
	t.Helper()
	signed, err := Sign(records, "a.root-lab.", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(signed.Zone)
	if err != nil {
		t.Fatal(err)
	}
	key := s.zone["."][dns.TypeDNSKEY][0].(*dns.DNSKEY)
	if got := key.ToDS(dns.SHA256).String(); got != signed.Anchor {
		t.Fatalf("got key %q, want the anchor's %q", got, signed.Anchor)
	}
	return s, key
}

func ask(s *Server, name string, qtype uint16, dnssec bool) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	if dnssec {
		q.SetEdns0(4096, true)
	}
	return s.Answer(q)
}

func TestAnswers(t *testing.T) {
	s, key := server(t)
	tests := []struct {
		name  string
		qtype uint16
		rcode int
		data  string // in the answer section
		proof []string
	}{
		{"web.lab.", dns.TypeA, dns.RcodeSuccess, "203.0.113.10", nil},
		{"WEB.lab.", dns.TypeA, dns.RcodeSuccess, "203.0.113.10", nil},
		{".", dns.TypeNS, dns.RcodeSuccess, "a.root-lab.", nil},
		{".", dns.TypeDNSKEY, dns.RcodeSuccess, "257", nil},
		{"web.lab.", dns.TypeAAAA, dns.RcodeSuccess, "", []string{"web.lab."}},
		{"lab.", dns.TypeNS, dns.RcodeSuccess, "", []string{"lab."}},
		{"nothere.lab.", dns.TypeA, dns.RcodeNameError, "", []string{"lab."}},
		{"zz.lab.", dns.TypeA, dns.RcodeNameError, "", []string{"web.lab.", "lab."}},
		{"com.", dns.TypeA, dns.RcodeNameError, "", []string{"."}},
		{"a.b.c.", dns.TypeA, dns.RcodeNameError, "", []string{"."}},
		{"zzz.", dns.TypeA, dns.RcodeNameError, "", []string{"a.root-lab.", "."}},
	}
	for _, test := range tests {
		t.Run(test.name+dns.TypeToString[test.qtype], func(t *testing.T) {
			m := ask(s, test.name, test.qtype, true)
			if m.Rcode != test.rcode {
				t.Errorf("got %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[test.rcode])
			}
			got := ""
			for _, rr := range m.Answer {
				got += rr.String()
			}
			if (test.data == "") != (got == "") || !strings.Contains(got, test.data) {
				t.Errorf("got answer %q, want %q in it", got, test.data)
			}
			var proof []string
			for _, rr := range m.Ns {
				if nsec, ok := rr.(*dns.NSEC); ok {
					proof = append(proof, nsec.Hdr.Name)
				}
			}
			if g, w := strings.Join(proof, " "), strings.Join(test.proof, " "); g != w {
				t.Errorf("got proof %q, want %q", g, w)
			}
			verifyAll(t, key, append(m.Answer, m.Ns...))
		})
	}
}

// verifyAll checks that every record set has a signature that counts now.
func verifyAll(t *testing.T, key *dns.DNSKEY, all []dns.RR) {
	t.Helper()
	sets := map[string][]dns.RR{}
	var sigs []*dns.RRSIG
	for _, rr := range all {
		if sig, ok := rr.(*dns.RRSIG); ok {
			sigs = append(sigs, sig)
			continue
		}
		id := rr.Header().Name + dns.TypeToString[rr.Header().Rrtype]
		sets[id] = append(sets[id], rr)
	}
	if len(sets) != len(sigs) {
		t.Errorf("got %d signatures of %d sets", len(sigs), len(sets))
	}
	for _, sig := range sigs {
		id := sig.Hdr.Name + dns.TypeToString[sig.TypeCovered]
		if err := sig.Verify(key, sets[id]); err != nil || !sig.ValidityPeriod(time.Now()) {
			t.Errorf("signature of %s: %v", id, err)
		}
	}
}

func TestPlainQuestionGetsNoSignatures(t *testing.T) {
	s, _ := server(t)
	for _, rr := range append(ask(s, "web.lab.", dns.TypeA, false).Answer, ask(s, "x.", dns.TypeA, false).Ns...) {
		if h := rr.Header().Rrtype; h == dns.TypeRRSIG || h == dns.TypeNSEC {
			t.Errorf("got %s without asking for it", rr)
		}
	}
}

func TestOtherOperationsAreRefused(t *testing.T) {
	s, _ := server(t)
	q := new(dns.Msg)
	q.SetUpdate(".")
	if got := s.Answer(q).Rcode; got != dns.RcodeRefused {
		t.Errorf("got %s, want REFUSED", dns.RcodeToString[got])
	}
}

func TestSignRefuses(t *testing.T) {
	base := []string{"ns. 300 IN A 203.0.113.53"}
	for _, test := range []struct{ record, want string }{
		{"deep.down. 300 IN A 203.0.113.1", "has nothing at"},
		{"*.x. 300 IN A 203.0.113.1", "wildcards"},
		{"x. 300 IN CNAME y.", "aliases"},
		{"x. 300 IN NS ns.", "delegations"},
		{"this is no record", "reading record"},
	} {
		if _, err := Sign(append(base, test.record), "ns.", time.Now()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Sign with %q: got %v, want %q", test.record, err, test.want)
		}
	}
	if _, err := Sign(nil, "ns.", time.Now()); err == nil {
		t.Error("got nil, want an error: the root server has no address")
	}
}

func TestServe(t *testing.T) {
	s, _ := server(t)
	probe, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.LocalAddr().String()
	probe.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Serve(ctx, address, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		q := new(dns.Msg)
		q.SetQuestion("web.lab.", dns.TypeA)
		client := dns.Client{Net: network, Timeout: 5 * time.Second}
		m, _, err := client.Exchange(q, address)
		if err != nil || len(m.Answer) != 1 {
			t.Errorf("%s: got %v, %v, want one record", network, m, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v at the end, want nil", err)
	}
}
