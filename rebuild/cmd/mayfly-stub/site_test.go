package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
)

// A machine with QEMU's user network: the host's loopback is the guest's gateway.
const (
	guestAddress = "10.0.2.15/24"
	guestGateway = "10.0.2.2"
)

// site is where machines boot: a controller and its mirrors, reached at one address.
type site struct {
	fleet  inventory.Fleet
	ca     []byte
	listen func() (net.Listener, error)
	http   string // the mirrors' "http://ADDRESS:PORT"
	https  string

	mu      sync.Mutex                  // guards the rest
	files   map[string]http.HandlerFunc // by path
	reports map[string]chan join.Report // by ticket
}

// newSite runs the ports of a controller at gateway, for a machine with this address.
func newSite(t *testing.T, address netip.Prefix, gateway netip.Addr, at func() (net.Listener, error)) *site {
	t.Helper()
	s := &site{listen: at, files: map[string]http.HandlerFunc{}, reports: map[string]chan join.Report{}}
	s.fleet = inventory.Fleet{Name: "demo", Domain: "demo.test"}
	s.fleet.Network.Gateway = gateway
	s.fleet.Controller.Address = gateway
	s.fleet.Servers = []inventory.Server{{Name: "vm", Address: address}}

	files := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		f := s.files[r.URL.Path]
		s.mu.Unlock()
		if f == nil {
			f = http.NotFound
		}
		f(w, r)
	})
	reports := http.NewServeMux()
	reports.HandleFunc("POST "+join.PathReport, func(w http.ResponseWriter, r *http.Request) {
		var report join.Report
		if err := json.NewDecoder(io.LimitReader(r.Body, join.MaxFrame)).Decode(&report); err != nil {
			t.Errorf("report: %v", err)
		}
		answer, err := join.Encode(struct{}{})
		if err != nil {
			t.Errorf("report: %v", err)
		}
		w.Write(answer)
		s.mu.Lock()
		defer s.mu.Unlock()
		if c := s.reports[string(report.Ticket)]; c != nil {
			c <- report
		} else {
			t.Errorf("a report with a ticket that nobody made: %+v", report)
		}
	})
	var certificate tls.Certificate
	s.ca, certificate = certificates(t, "controller.demo.test", gateway.AsSlice())
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	s.fleet.Controller.BootPort = s.serve(t, files, nil)
	s.fleet.Controller.JoinPort = s.serve(t, reports, config)
	at2 := func(port uint16) string { return net.JoinHostPort(gateway.String(), strconv.Itoa(int(port))) }
	s.http, s.https = "http://"+at2(s.fleet.Controller.BootPort), "https://"+at2(s.serve(t, files, config))
	return s
}

// onLoopback is the site of machines with QEMU's user network.
func onLoopback(t *testing.T) *site {
	return newSite(t, netip.MustParsePrefix(guestAddress), netip.MustParseAddr(guestGateway), func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
}

// expectReports makes a place for the reports with this ticket.
func (s *site) expectReports(ticket []byte) <-chan join.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan join.Report, 10)
	s.reports[string(ticket)] = c
	return c
}

func (s *site) put(path string, handler http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = handler
}

// serve runs a server until the test ends, and returns its port.
func (s *site) serve(t *testing.T, handler http.Handler, config *tls.Config) uint16 {
	t.Helper()
	l, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: handler, ErrorLog: discardLog}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return port
}

var discardLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)

// certificates makes a CA and a server's certificate of it.
func certificates(t *testing.T, name string, ips ...net.IP) (ca []byte, certificate tls.Certificate) {
	t.Helper()
	key := func() (ed25519.PublicKey, ed25519.PrivateKey) {
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return pub, priv
	}
	caPub, caKey := key()
	pub, priv := key()
	now := time.Now()
	parent := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, parent, parent, caPub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: ips, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, pub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}
}

// A mirror's behaviour: how it serves one file of a release.
type behaviour func(name string, data []byte) http.HandlerFunc

func honest(_ string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	}
}

// flaky fails first with a status, then in the middle.
func flaky(_ string, data []byte) http.HandlerFunc {
	var mu sync.Mutex
	asked := 0
	return func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		asked++
		n := asked
		mu.Unlock()
		if n == 1 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		if n == 2 {
			w.Write(data[:len(data)/2]) // the server then breaks the connection
			return
		}
		w.Write(data)
	}
}

// altered serves one file with a changed byte, and the others as they are.
func altered(file string) behaviour {
	return changed(file, func(data []byte) []byte {
		data[len(data)/2] ^= 1
		return data
	})
}

func changed(file string, change func([]byte) []byte) behaviour {
	return func(name string, data []byte) http.HandlerFunc {
		if name == file {
			data = change(bytes.Clone(data))
		}
		return honest(name, data)
	}
}

// without does not have one file.
func without(file string) behaviour {
	return func(name string, data []byte) http.HandlerFunc {
		if name == file {
			return http.NotFound
		}
		return honest(name, data)
	}
}

// stalls sends half of it and then nothing more.
func stalls(_ string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:len(data)/2])
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func resets(string, []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}
}

// endless sends bytes as long as somebody reads them.
func endless(string, []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, err := w.Write(make([]byte, 1<<16)); err == nil; {
			_, err = w.Write(make([]byte, 1<<16))
		}
	}
}

func redirects(string, []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }
}

// breaksInTheMiddle serves the root once by halves: it says when the first is sent and waits before the second.
func breaksInTheMiddle(half chan<- struct{}, goOn <-chan struct{}) behaviour {
	return func(name string, data []byte) http.HandlerFunc {
		if name != release.RootFile {
			return honest(name, data)
		}
		var once sync.Once
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			rest := data
			once.Do(func() {
				w.Write(data[:len(data)/2])
				http.NewResponseController(w).Flush()
				close(half)
				select {
				case <-goOn:
				case <-r.Context().Done():
				}
				rest = data[len(data)/2:]
			})
			w.Write(rest)
		}
	}
}
