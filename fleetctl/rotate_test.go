package main

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
	"mayfly/internal/pki"
)

// TestAnswers: only who shows a certificate of the fleet's CA for the controller's name, in TLS 1.3, is the controller.
func TestAnswers(t *testing.T) {
	const name = "controller.lab.test"
	caPEM, caKey, err := pki.NewCA("lab", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	otherPEM, otherKey, err := pki.NewCA("lab", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := func(certPEM, keyPEM []byte, name string, newest uint16) *tls.Config {
		ca, err := pki.LoadCA(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		key, csrFor, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := csrFor(name)
		if err != nil {
			t.Fatal(err)
		}
		chain, _, err := ca.Issue(csr, name, nil, true, false, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: newest}
	}
	for _, tt := range []struct {
		name   string
		config *tls.Config // none: hangs up
		want   bool
	}{
		{"the controller", server(caPEM, caKey, name, 0), true},
		{"TLS 1.2", server(caPEM, caKey, name, tls.VersionTLS12), false},
		{"another name", server(caPEM, caKey, "checkin.lab.test", 0), false},
		{"another CA", server(otherPEM, otherKey, name, 0), false},
		{"no TLS", nil, false},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if tt.config != nil {
				_ = tls.Server(conn, tt.config).Handshake() // the client's verdict is what counts
			}
			conn.Close()
		}()
		err = answers(t.Context(), netip.MustParseAddrPort(l.Addr().String()), pki.VerifyName(caPEM, name))
		if (err == nil) != tt.want {
			t.Errorf("%s: got %v, want it taken for the controller: %v", tt.name, err, tt.want)
		}
		if err != nil && !strings.Contains(hint.Of(err), "end what listens there") {
			t.Errorf("%s: got hint %q", tt.name, hint.Of(err))
		}
		l.Close()
		<-done
	}
}
