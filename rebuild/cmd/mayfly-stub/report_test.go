package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// A controller that cannot be reached for a while hears of it in the end; one that wants none of it is left in peace.
func TestKeepTelling(t *testing.T) {
	down := errors.New("connection refused")
	for _, tt := range []struct {
		name  string
		tries []error // in turn; the last goes on
		asked int
		says  string
	}{
		{"taken", []error{nil}, 1, "reported\n"},
		{"down for a while", []error{down, down, down, down, down, down, down, down, nil}, 9, "reported\n"},
		{"busy", []error{&join.Refusal{Reason: join.Busy}, &join.Refusal{Reason: join.ControllerFailed}, nil}, 3, "reported\n"},
		{"not wanted", []error{down, &join.Refusal{Reason: join.RateLimited}}, 2, "rate_limited"},
		{"down for good", []error{down}, 0, "connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				console := new(bytes.Buffer)
				b := &boot{console: console}
				began, asked := time.Now(), 0
				b.keepTelling(func() error {
					asked++
					return tt.tries[min(asked, len(tt.tries))-1]
				})
				took := time.Since(began)
				if tt.asked > 0 && asked != tt.asked || !strings.Contains(console.String(), tt.says) {
					t.Errorf("asked %d times in %s; console: %s", asked, took, console)
				}
				if tt.asked == 0 && (took < reportFor || took > reportFor+reportLongest || asked < 180 || asked > 400) {
					t.Errorf("gave up after %s and %d tries", took, asked)
				}
			})
		})
	}
}

// A machine whose clock is years off, which no witness set right, can tell the controller all the same.
func TestTellWithAnotherClock(t *testing.T) {
	report := join.Report{Ticket: []byte("t"), Signature: []byte("s"), Stage: "stub", Reason: "witness_missing", Detail: "x"}
	for _, tt := range []struct {
		name string
		made time.Duration // the ticket's making and the controller's certificate, from the machine's clock
	}{{"right", -time.Minute}, {"ahead", -14 * 365 * 24 * time.Hour}, {"behind", 14 * 365 * 24 * time.Hour}} {
		t.Run(tt.name, func(t *testing.T) {
			at := time.Now().Add(tt.made).Truncate(time.Second)
			ca, certificate := certificateAt(t, at.Add(-time.Hour), at.Add(24*time.Hour))
			answer, err := join.Encode(struct{}{})
			if err != nil {
				t.Fatal(err)
			}
			asked := 0
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				io.Copy(io.Discard, r.Body)
				w.Write(answer)
			}))
			s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
			s.Config.ErrorLog = discardLog
			s.StartTLS()
			defer s.Close()
			k := &ticket.Ticket{Controller: s.Listener.Addr().String(), Name: "controller.demo.test", CA: string(ca),
				NotAfter: at.Add(10 * time.Minute), Deadline: at.Add(time.Hour), MaxAge: 3600}
			client, err := join.NewClient(k)
			if err != nil {
				t.Fatal(err)
			}
			if err := tell(client, k, report); err != nil || asked != 1 {
				t.Errorf("%v, asked %d times", err, asked)
			}
			// The time alone is forgiven.
			k.Name = "else.demo.test"
			if client, err = join.NewClient(k); err != nil {
				t.Fatal(err)
			}
			if err := tell(client, k, report); err == nil {
				t.Error("a controller of another name was told")
			}
		})
	}
}

func certificateAt(t *testing.T, from, until time.Time) (ca []byte, certificate tls.Certificate) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: from, NotAfter: until, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"controller.demo.test"}}
	der, err := x509.CreateCertificate(rand.Reader, own, own, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}
}
