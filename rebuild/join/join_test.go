package join

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
)

func reason(err error) string {
	if r, ok := IsRefusal(err); ok {
		return r.Reason
	}
	return ""
}

type identity struct {
	key  ed25519.PrivateKey
	csr  []byte
	host string
}

func newIdentity(t testing.TB) identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.Request(key, "se-1.lab.test")
	if err != nil {
		t.Fatal(err)
	}
	hostPub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(hostPub)
	if err != nil {
		t.Fatal(err)
	}
	return identity{key, csr, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub)))}
}

func goodRequest(t testing.TB) Request {
	id := newIdentity(t)
	return Request{
		Ticket: []byte("ticket"), Signature: []byte("sig"), CSR: id.csr, HostKey: id.host,
		TunnelKey: base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 32)), BootID: "5f8c733c-17b7-4f19-a531-eed9d5e7bc00",
	}
}

func TestRequestCheck(t *testing.T) {
	good := goodRequest(t)
	tests := []struct {
		name   string
		change func(*Request)
		want   string
	}{
		{"good", func(*Request) {}, ""},
		{"no ticket", func(r *Request) { r.Ticket = nil }, RequestInvalid},
		{"long ticket", func(r *Request) { r.Ticket = make([]byte, 17<<10) }, RequestInvalid},
		{"no signature", func(r *Request) { r.Signature = nil }, RequestInvalid},
		{"csr", func(r *Request) { r.CSR = []byte("x") }, RequestInvalid},
		{"csr altered", func(r *Request) { r.CSR = bytes.Clone(r.CSR); r.CSR[len(r.CSR)-1] ^= 1 }, RequestInvalid},
		{"host key with options", func(r *Request) { r.HostKey = "no-pty " + r.HostKey }, RequestInvalid},
		{"host key with comment", func(r *Request) { r.HostKey += " me" }, RequestInvalid},
		{"two host keys", func(r *Request) { r.HostKey += "\n" + r.HostKey }, RequestInvalid},
		{"tunnel key short", func(r *Request) { r.TunnelKey = "AAAA" }, RequestInvalid},
		{"tunnel key zero", func(r *Request) { r.TunnelKey = base64.StdEncoding.EncodeToString(make([]byte, 32)) }, RequestInvalid},
		{"boot id", func(r *Request) { r.BootID = "../../etc" }, RequestInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := good
			tt.change(&r)
			if got := reason(r.Check()); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReportCheck(t *testing.T) {
	good := Report{Ticket: []byte("t"), Signature: []byte("s"), Stage: "init", Reason: "disk_present", Detail: "sda"}
	tests := []struct {
		name   string
		change func(*Report)
		want   string
	}{
		{"good", func(*Report) {}, ""},
		{"stage", func(r *Report) { r.Stage = "other" }, RequestInvalid},
		{"reason", func(r *Report) { r.Reason = "Disk present!" }, RequestInvalid},
		{"detail", func(r *Report) { r.Detail = strings.Repeat("x", MaxDetail+1) }, RequestInvalid},
		{"not UTF-8", func(r *Report) { r.Detail = "\xff" }, RequestInvalid},
		{"no ticket", func(r *Report) { r.Ticket = nil }, RequestInvalid},
	}
	for _, tt := range tests {
		r := good
		tt.change(&r)
		if got := reason(r.Check()); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRenewCheck(t *testing.T) {
	now := time.Now()
	caPEM, caKey, err := pki.NewCA("lab.test", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(caPEM, caKey)
	if err != nil {
		t.Fatal(err)
	}
	id, other := newIdentity(t), newIdentity(t)
	chain, _, err := ca.Issue(id.csr, "se-1.lab.test", nil, true, true, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	good := RenewRequest{CSR: id.csr, HostKey: id.host, Current: chain, Proof: ed25519.Sign(id.key, RenewMessage(id.csr, id.host))}
	tests := []struct {
		name   string
		change func(*RenewRequest)
		want   string
	}{
		{"good", func(*RenewRequest) {}, ""},
		{"no proof", func(r *RenewRequest) { r.Proof = nil }, ProofBad},
		{"proof of another key", func(r *RenewRequest) { r.Proof = ed25519.Sign(other.key, RenewMessage(id.csr, id.host)) }, ProofBad},
		{"proof of another host key", func(r *RenewRequest) { r.HostKey = other.host }, ProofBad},
		{"another csr", func(r *RenewRequest) { r.CSR = other.csr }, ProofBad},
		{"no certificate", func(r *RenewRequest) { r.Current = []byte("x") }, CertificateBad},
		{"long certificate", func(r *RenewRequest) { r.Current = make([]byte, MaxCertificate+1) }, RequestInvalid},
	}
	for _, tt := range tests {
		r := good
		tt.change(&r)
		if _, err := r.Check(); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestFrames(t *testing.T) {
	health := `{"health":{"boot_id":"b","ready":true,"services":{"sshd":"running"},"draining":false}}`
	tests := []struct {
		name, in, want string
	}{
		{"health", health + "\n", ""},
		{"drained", `{"drained":{"forced":true}}` + "\n", ""},
		{"login", `{"login":{"number":1,"time":"2030-01-01T00:00:00Z","user":"ana","method":"publickey","key":"SHA256:x","peer":"10.77.0.2:4000"}}` + "\n", ""},
		{"login that could not be read", `{"login":{"number":1,"time":"2030-01-01T00:00:00Z","user":"","method":"","key":"","peer":"","unread":"Accepted x","missed":3}}` + "\n", ""},
		{"login without number", `{"login":{"number":0,"time":"2030-01-01T00:00:00Z","user":"ana","method":"publickey","key":"","peer":"10.77.0.2:4000"}}` + "\n", RequestInvalid},
		{"login without time", `{"login":{"number":1,"time":"0001-01-01T00:00:00Z","user":"ana","method":"publickey","key":"","peer":"10.77.0.2:4000"}}` + "\n", RequestInvalid},
		{"login of another zone", `{"login":{"number":1,"time":"2030-01-01T00:00:00+01:00","user":"ana","method":"publickey","key":"","peer":"10.77.0.2:4000"}}` + "\n", RequestInvalid},
		{"login without user", `{"login":{"number":1,"time":"2030-01-01T00:00:00Z","user":"","method":"publickey","key":"","peer":"10.77.0.2:4000"}}` + "\n", RequestInvalid},
		{"login of two kinds", `{"login":{"number":1,"time":"2030-01-01T00:00:00Z","user":"ana","method":"publickey","key":"","peer":"10.77.0.2:4000","unread":"x"}}` + "\n", RequestInvalid},
		{"login with an escape", `{"login":{"number":1,"time":"2030-01-01T00:00:00Z","user":"a\u001b","method":"publickey","key":"","peer":"10.77.0.2:4000"}}` + "\n", RequestInvalid},
		{"long login", `{"login":{"number":1,"time":"2030-01-01T00:00:00Z","user":"` + strings.Repeat("a", MaxLoginText+1) + `","method":"publickey","key":"","peer":"10.77.0.2:4000"}}` + "\n", RequestInvalid},
		{"none", "{}\n", BodyMalformed},
		{"both", `{"health":{"boot_id":"b","ready":true,"services":{},"draining":false},"drained":{"forced":true}}` + "\n", BodyMalformed},
		{"unknown field", `{"drained":{"forced":true,"x":1}}` + "\n", BodyMalformed},
		{"repeated field", `{"drained":{"forced":true,"forced":true}}` + "\n", BodyMalformed},
		{"other spelling", `{"Drained":{"forced":true}}` + "\n", BodyMalformed},
		{"white space", `{ "drained":{"forced":true}}` + "\n", BodyMalformed},
		{"empty line", "\n", BodyMalformed},
		{"too long", strings.Repeat("x", MaxFromServer+1) + "\n", BodyOversize},
		{"too long, without end", strings.Repeat("x", 4*MaxFromServer), BodyOversize},
	}
	for _, tt := range tests {
		_, err := NewFrames(strings.NewReader(tt.in), MaxFromServer).FromServer()
		if got := reason(err); got != tt.want || (tt.want == "") != (err == nil) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := NewFrames(strings.NewReader(health), MaxFromServer).FromServer(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut line: got %v, want unexpected EOF", err)
	}
	if _, err := NewFrames(strings.NewReader(""), MaxFromServer).FromServer(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: got %v, want EOF", err)
	}
}

func TestFramesToServer(t *testing.T) {
	var b bytes.Buffer
	want := []ToServer{{Logins: &Logins{Through: 3}}, {Drain: &Drain{Limit: time.Minute}}, {Trust: &Trust{Version: 2, File: make([]byte, 1<<20), Sig: []byte("s")}}, {Ledger: &Ledger{Index: 7, Proof: make([]byte, MaxLedgerProof)}}, {Policy: &Policy{Bundle: make([]byte, 1<<20), BundleSig: []byte("s")}}}
	for _, m := range want {
		if err := WriteFrame(&b, m); err != nil {
			t.Fatal(err)
		}
	}
	f := NewFrames(&b, MaxToServer)
	for i := range want {
		got, err := f.ToServer()
		if err != nil {
			t.Fatal(err)
		}
		if (got.Drain == nil) != (want[i].Drain == nil) || (got.Policy == nil) != (want[i].Policy == nil) {
			t.Errorf("message %d: got %+v", i, got)
		}
	}
	for _, limit := range []time.Duration{-1, MaxDrain + 1} {
		line := fmt.Sprintf("{\"drain\":{\"limit_ns\":%d}}\n", limit)
		if _, err := NewFrames(strings.NewReader(line), MaxToServer).ToServer(); reason(err) != RequestInvalid {
			t.Errorf("drain limit %d: got %v, want %s", limit, err, RequestInvalid)
		}
	}
	long, err := Encode(ToServer{Ledger: &Ledger{Index: 7, Proof: make([]byte, MaxLedgerProof+1)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewFrames(strings.NewReader(string(long)+"\n"), MaxToServer).ToServer(); reason(err) != BodyOversize {
		t.Errorf("a proof over its bound: got %v, want %s", err, BodyOversize)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(`{"drained":{"forced":true}}` + "\n"))
	f.Add([]byte(`{"health":{"boot_id":"b","ready":true,"services":{"sshd":"running"},"draining":false}}` + "\n"))
	f.Add([]byte("\n\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames := NewFrames(bytes.NewReader(data), MaxFromServer)
		for {
			m, err := frames.FromServer()
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := WriteFrame(&again, m); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(data, again.Bytes()) {
				t.Fatalf("read %q, which is not in the input", again.Bytes())
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	good, err := Encode(goodRequest(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"ticket":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode[Request](data, MaxRequest)
		if err != nil {
			return
		}
		again, err := Encode(r)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("got %q, %v; want %q", again, err, data)
		}
		if r.Check() == nil && (len(r.Ticket) == 0 || r.BootID == "") {
			t.Fatal("a request without ticket or boot id passed")
		}
	})
}
