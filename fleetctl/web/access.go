package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/policies"
)

// Why somebody does not get the page. Specification: reason codes of the page's audit records; who has a certificate of the operators' CA reads
// the last four as well, others see the connection end.
const (
	NoCertificate   = "page_no_certificate"   // none was shown
	OtherCA         = "page_other_ca"         // it is not of the operators' CA: a server's, for one
	NotForClients   = "page_not_for_clients"  // the CA is right, and the certificate is for something else
	Ended           = "page_expired"          // or it has not begun
	NamesNobody     = "page_malformed"        // it names no engineer, or no hardware key
	EngineerUnknown = "page_engineer_unknown" // is not in the signed policy any more
	KeyUnknown      = "page_key_unknown"      // the hardware key that asked for it is not enrolled any more, or its evidence is not accepted any more
	NotOperator     = "page_not_allowed"      // the policy has operators, and none of this name for the page
	NoPolicy        = "page_no_policy"        // no signed policy is in force
	NoAudit         = "page_no_audit"         // the visit could not be put on record
)

// ActionPage is the word of [[operator]] actions for a certificate of the page.
const ActionPage = "page"

// Refused is why somebody does not get the page.
type Refused struct{ Code, Text string }

func (r *Refused) Error() string { return r.Code + ": " + r.Text }

// sentences are what the one who asks may read; the detail is in the audit log.
var sentences = map[string]string{
	NoCertificate: "This page takes a certificate of the operators' CA.", OtherCA: "This page takes a certificate of the operators' CA.", NotForClients: "This certificate is for something else.",
	Ended: "This certificate has ended: ask for a new one with fleetctl page-certificate.", NamesNobody: "This certificate names no engineer.",
	EngineerUnknown: "The signed policy has no engineer of this name any more.", KeyUnknown: "The hardware key that asked for this certificate is not accepted any more: ask for a new one.",
	NotOperator: "The signed policy does not let you see this page.", NoPolicy: "No signed policy is in force.",
	NoAudit: "This visit could not be put on record: the controller's disk needs somebody.",
}

// Visit is an audit record: somebody who was let in, once a connection, or was not.
type Visit struct {
	Engineer string `json:"engineer,omitempty"`
	Key      string `json:"key,omitempty"`    // SHA-256 of the hardware key that asked for the certificate
	Serial   string `json:"serial,omitempty"` // of the certificate, hex
	From     string `json:"from"`
	Code     string `json:"code,omitempty"` // why not; "" for one that was let in
	Detail   string `json:"detail,omitempty"`
	Policy   uint64 `json:"policy"` // version of the signed policy that decided
	Test     bool   `json:"test"`
}

// Access decides who gets the page.
type Access struct {
	CA     *x509.CertPool                                      // the operators' CA alone; nil lets nobody in
	Policy func() (p policies.Policy, version uint64, ok bool) // the signed one in force, verified
	Test   bool                                                // a test fleet: one without [[operator]] lets its engineers do what they ask
	Record func(Visit) error                                   // keeps an audit record, durably
	Now    func() time.Time
}

// Certificate decides what a certificate says by itself, during the handshake. What comes with it is nobody's chain: the CA signs end certificates
// alone.
func (a Access) Certificate(shown []*x509.Certificate) *Refused {
	if len(shown) == 0 {
		return &Refused{NoCertificate, "no client certificate was shown"}
	}
	if a.CA == nil {
		return &Refused{OtherCA, "there is no operators' CA"}
	}
	cert, now := shown[0], a.Now()
	verify := func(at time.Time, use x509.ExtKeyUsage) error {
		_, err := cert.Verify(x509.VerifyOptions{Roots: a.CA, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	switch err := verify(now, x509.ExtKeyUsageClientAuth); {
	case err == nil:
	case verify(cert.NotBefore, x509.ExtKeyUsageClientAuth) == nil:
		return &Refused{Ended, fmt.Sprintf("the certificate is good from %s to %s", cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))}
	case verify(cert.NotBefore, x509.ExtKeyUsageAny) == nil:
		return &Refused{NotForClients, "the certificate is for something else"}
	default:
		return &Refused{OtherCA, "the certificate is not of the operators' CA"}
	}
	if cert.IsCA || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(cert.DNSNames)+len(cert.IPAddresses) > 0 {
		return &Refused{NotForClients, "the certificate is for more than a client"}
	}
	if _, _, err := pki.Operator(cert); err != nil {
		return &Refused{NamesNobody, err.Error()}
	}
	return nil
}

// Decide decides by the signed policy of now, for each request.
func (a Access) Decide(shown []*x509.Certificate) (engineer string, version uint64, refused *Refused) {
	if r := a.Certificate(shown); r != nil {
		return "", 0, r
	}
	name, key, _ := pki.Operator(shown[0])
	p, version, ok := a.Policy()
	if !ok {
		return name, 0, &Refused{NoPolicy, "no signed policy is in force"}
	}
	i := slices.IndexFunc(p.Engineers, func(e policies.Engineer) bool { return e.Name == name })
	if i < 0 {
		return name, version, &Refused{EngineerUnknown, fmt.Sprintf("%s is no engineer of policy %d", name, version)}
	}
	enrolled := ""
	for _, k := range p.Engineers[i].Keys {
		if hashOf(k.Public) == key {
			enrolled = k.Public
		}
	}
	if enrolled == "" {
		return name, version, &Refused{KeyUnknown, fmt.Sprintf("the hardware key that asked for this certificate is no key of %s in policy %d", name, version)}
	}
	if _, v := p.Owner(enrolled); !v.Allow {
		return name, version, &Refused{KeyUnknown, string(v.Reason) + ": " + v.Detail}
	}
	tables := p.OperatorsOf(ActionPage)
	if !slices.ContainsFunc(tables, func(o policies.Operator) bool { return slices.Contains(o.Engineers, name) }) && !(a.Test && len(p.Operators) == 0) {
		return name, version, &Refused{NotOperator, fmt.Sprintf("no [[operator]] table of policy %d lets %s see the page", version, name)}
	}
	return name, version, nil
}

// hashOf is how a certificate names a key of the policy; "" for one that cannot be read.
func hashOf(public string) string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil {
		return ""
	}
	return pki.SSHKeyHash(key.Marshal())
}

// visit is the record of a decision.
func (a Access) visit(shown []*x509.Certificate, from, engineer string, version uint64, r *Refused) Visit {
	v := Visit{Engineer: engineer, From: from, Policy: version, Test: a.Test}
	if len(shown) > 0 {
		v.Serial = shown[0].SerialNumber.Text(16)
		if _, key, err := pki.Operator(shown[0]); err == nil {
			v.Key = key
		}
	}
	if r != nil {
		v.Code, v.Detail = r.Code, clean(r.Text, maxText)
	}
	return v
}

// config is the TLS configuration: 1.3, and no connection without a certificate of the operators' CA.
func (a Access) config(own tls.Certificate) *tls.Config {
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequestClientCert, // verified below, so that a refusal has its reason
		ClientCAs:              a.CA,
		SessionTicketsDisabled: true, // each connection shows its certificate
		NextProtos:             []string{"h2", "http/1.1"},
		VerifyConnection:       func(tls.ConnectionState) error { return errors.New("a connection that nobody has judged") },
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		from := hello.Conn.RemoteAddr().String()
		c := base.Clone()
		c.GetConfigForClient = nil
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if r := a.Certificate(state.PeerCertificates); r != nil {
				return errors.Join(r, a.Record(a.visit(state.PeerCertificates, from, "", 0, r)))
			}
			return nil
		}
		return c, nil
	}
	return base
}

type contextKey int

const (
	engineerKey contextKey = iota
	decisionKey
	connectionKey
)

// connection remembers what was put on record of it: one visit, and one refusal of each code.
type connection struct{ said chan map[string]bool }

func newConnection() *connection {
	c := &connection{make(chan map[string]bool, 1)}
	c.said <- map[string]bool{}
	return c
}

// first reports whether this is the first time.
func (c *connection) first(what string) bool {
	fresh := false
	c.once(what, func() error { fresh = true; return nil })
	return fresh
}

// once does something the first time, and reports whether it was done; what failed is tried again.
func (c *connection) once(what string, do func() error) bool {
	if c == nil {
		return do() == nil
	}
	m := <-c.said
	defer func() { c.said <- m }()
	if !m[what] {
		m[what] = do() == nil
	}
	return m[what]
}

func engineerOf(ctx context.Context) string {
	name, _ := ctx.Value(engineerKey).(string)
	return name
}

// decisionOf asks again whether the one who asked still gets the page.
func decisionOf(ctx context.Context) func() bool {
	f, _ := ctx.Value(decisionKey).(func() bool)
	return f
}

// guard lets those pass whom the policy lets pass now.
func (a Access) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		harden(w.Header())
		var shown []*x509.Certificate
		if r.TLS != nil {
			shown = r.TLS.PeerCertificates
		}
		name, version, refused := a.Decide(shown)
		c, _ := r.Context().Value(connectionKey).(*connection)
		if refused != nil {
			if c.first(refused.Code) {
				a.Record(a.visit(shown, r.RemoteAddr, name, version, refused)) // whoever keeps records says that they cannot be kept; it is refused either way
			}
			refuse(w, r, http.StatusForbidden, refused.Code, sentences[refused.Code])
			return
		}
		if !c.once("", func() error { return a.Record(a.visit(shown, r.RemoteAddr, name, version, nil)) }) {
			refuse(w, r, http.StatusServiceUnavailable, NoAudit, sentences[NoAudit])
			return
		}
		ctx := context.WithValue(r.Context(), engineerKey, name)
		ctx = context.WithValue(ctx, decisionKey, func() bool { _, _, r := a.Decide(shown); return r == nil })
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
