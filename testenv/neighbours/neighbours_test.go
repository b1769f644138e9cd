package neighbours

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/canonical"
	"mayfly/rebuild/extension"
	"mayfly/rebuild/join"
	"mayfly/rebuild/order"
	"mayfly/rebuild/ticket"
)

// update writes what the present code says. It is for the first commit after a release, which is when this release becomes the one before:
// run in a tree of that release, and copied.
var update = flag.Bool("update", false, "write testdata")

// before is the release whose words are kept: the tree of 4a926b0.
const before = "testdata/before"

var at = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// message is one thing that is said, and how it is read.
type message struct {
	name string
	said any
	read func([]byte) (any, error)
}

func body[T any](limit int) func([]byte) (any, error) {
	return func(data []byte) (any, error) { return join.Decode[T](data, limit) }
}

func fromServer(data []byte) (any, error) {
	return join.NewFrames(bytes.NewReader(append(bytes.Clone(data), '\n')), join.MaxFromServer).FromServer()
}

func toServer(data []byte) (any, error) {
	return join.NewFrames(bytes.NewReader(append(bytes.Clone(data), '\n')), join.MaxToServer).ToServer()
}

func signed[T any](limit int) func([]byte) (any, error) {
	return func(data []byte) (any, error) {
		var v T
		err := canonical.Parse(data, limit, &v)
		return v, err
	}
}

// messages are all that the two say, with every field that is ever set.
func messages() []message {
	certificates := join.Certificates{TLS: []byte("pem"), Host: "ssh-ed25519-cert-v01@openssh.com AAAA", NotAfter: at, Ledger: &join.Ledger{Index: 7, Proof: []byte("proof")}}
	quote := &join.Attestation{Nonce: []byte("n"), EK: []byte("e"), AK: []byte("a"), Secret: []byte("s"), Quote: []byte("q"), Signature: []byte("g"), PCRs: []byte("p"), EventLog: []byte("l")}
	return []message{
		{"join", join.Request{Ticket: []byte("ticket"), Signature: []byte("sig"), CSR: []byte("csr"), HostKey: "ssh-ed25519 AAAA", TunnelKey: "AAAA", BootID: "01234567-89ab-cdef-0123-456789abcdef"}, body[join.Request](join.MaxJoin)},
		{"join-attested", join.Request{Ticket: []byte("ticket"), Signature: []byte("sig"), CSR: []byte("csr"), HostKey: "ssh-ed25519 AAAA", TunnelKey: "AAAA", BootID: "b", Attestation: quote}, body[join.Request](join.MaxJoin)},
		{"joined", join.Response{Admission: join.Admission{Certificates: certificates, Evidence: "attested"}, Bundle: []byte("{}"), BundleSig: []byte("sig")}, body[join.Response](join.MaxFrame)},
		{"challenge-request", join.ChallengeRequest{Ticket: []byte("t"), Signature: []byte("s"), EK: []byte("e"), AK: []byte("a")}, body[join.ChallengeRequest](join.MaxRequest)},
		{"challenge", join.Challenge{Nonce: []byte("n"), Blob: []byte("b"), Encrypted: []byte("e")}, body[join.Challenge](join.MaxRequest)},
		{"renew", join.RenewRequest{CSR: []byte("csr"), HostKey: "ssh-ed25519 AAAA", Current: []byte("pem"), Proof: []byte("proof")}, body[join.RenewRequest](join.MaxRequest)},
		{"renewed", certificates, body[join.Certificates](join.MaxRequest)},
		{"report", join.Report{Ticket: []byte("t"), Signature: []byte("s"), Stage: "init", Reason: "disk_present", Detail: "vda"}, body[join.Report](join.MaxRequest)},
		{"refusal", join.Refusal{Reason: join.TicketUsed, Detail: "twice"}, body[join.Refusal](join.MaxRequest)},
		{"health", join.FromServer{Health: &join.Health{BootID: "b", Ready: true, Services: map[string]string{"sshd": "running", "tunnel": "starting"}, Draining: true, Warnings: []string{"no watchdog"}}}, fromServer},
		{"drained", join.FromServer{Drained: &join.Drained{Forced: true}}, fromServer},
		{"login", join.FromServer{Login: &join.Login{Number: 3, Time: at, User: "alice", Method: "publickey", Key: "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Peer: netip.MustParseAddrPort("10.77.0.2:4711"), Missed: 1}}, fromServer},
		{"drain", join.ToServer{Drain: &join.Drain{Limit: 20 * time.Second}}, toServer},
		{"policy", join.ToServer{Policy: &join.Policy{Bundle: []byte("{}"), BundleSig: []byte("sig")}}, toServer},
		{"logins", join.ToServer{Logins: &join.Logins{Through: 3}}, toServer},
		{"trust", join.ToServer{Trust: &join.Trust{Version: 2, File: []byte("{}"), Sig: []byte("sig")}}, toServer},
		{"ledger", join.ToServer{Ledger: &join.Ledger{Index: 7, Proof: []byte("proof")}}, toServer},
		{"extension-frame", join.ToServer{Extension: &join.Signed{File: []byte("{}"), Sig: []byte("sig")}}, toServer},
		{"order-frame", join.ToServer{Order: &join.Signed{File: []byte("{}"), Sig: []byte("sig")}}, toServer},
		{"ticket", ticket.Ticket{Kind: ticket.Kind, Fleet: "lab", Domain: "lab.test", Server: "se-1", Epoch: 4, Secret: strings.Repeat("ab", ticket.SecretBytes), Release: strings.Repeat("0", 64),
			Mirrors: []string{"http://10.77.0.1:8080/releases/7/"}, Network: ticket.Network{Mode: ticket.Static, MACs: []string{"52:54:00:00:00:11", "52:54:00:00:00:12"}, Bond: ticket.LACP, VLAN: 5},
			Address: netip.MustParsePrefix("10.77.0.11/24"), Gateway: netip.MustParseAddr("10.77.0.1"), Witnesses: []string{"http://10.77.0.1:8700"}, TPM: ticket.TPMRequired, Disks: ticket.DisksRefuse,
			Controller: "10.77.0.1:8443", Name: "controller.lab.test", CA: "pem", NotAfter: at, MaxAge: 86400, Deadline: at.Add(24 * time.Hour)}, signed[ticket.Ticket](ticket.MaxBytes)},
		{"extension", extension.Extension{Kind: extension.Kind, Fleet: "lab", Server: "se-1", Epoch: 4, Until: at.Add(time.Hour), Reason: "mirror down", Made: at}, signed[extension.Extension](extension.MaxBytes)},
		{"order", order.Order{Kind: order.Kind, Fleet: "lab", Server: "se-1", Epoch: 4, Do: order.Restart, Nonce: strings.Repeat("0f", 16), Made: at, NotAfter: at.Add(time.Hour)}, signed[order.Order](order.MaxBytes)},
	}
}

func (m message) bytes(t *testing.T) []byte {
	t.Helper()
	switch m.name {
	case "ticket", "extension", "order":
		data, err := canonical.Marshal(m.said)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	data, err := join.Encode(m.said)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSaidBefore: what the release before said is understood now, and what is said now is what it said: so it is understood there.
func TestSaidBefore(t *testing.T) {
	for _, m := range messages() {
		t.Run(m.name, func(t *testing.T) {
			path := filepath.Join(before, m.name+".json")
			now := m.bytes(t)
			if *update {
				if err := os.WriteFile(path, now, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			then, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.read(then)
			if err != nil {
				t.Fatalf("the release before said %s, and it is refused: %v", then, err)
			}
			if !reflect.DeepEqual(got, m.said) {
				t.Errorf("got %+v\nwant %+v", got, m.said)
			}
			if !bytes.Equal(now, then) {
				t.Errorf("now  %s\nthen %s\nthe release before refuses other bytes", now, then)
			}
		})
	}
	kept, err := filepath.Glob(filepath.Join(before, "*.json"))
	if err != nil || len(kept) != len(messages()) {
		t.Errorf("%d messages are kept, %d are said, %v", len(kept), len(messages()), err)
	}
}

// fields lists every field of a message's type, with its type.
func fields(prefix string, r reflect.Type, into *[]string) {
	for r.Kind() == reflect.Pointer {
		r = r.Elem()
	}
	if r.Kind() != reflect.Struct || r.PkgPath() == "time" || r.PkgPath() == "net/netip" {
		*into = append(*into, prefix+" "+r.String())
		return
	}
	for i := range r.NumField() {
		f := r.Field(i)
		name := f.Tag.Get("json")
		if f.Anonymous && name == "" {
			fields(prefix, f.Type, into)
			continue
		}
		fields(prefix+"."+name, f.Type, into)
	}
}

// TestFields: no message has a field that the release before does not know, set or not.
func TestFields(t *testing.T) {
	var now []string
	for _, m := range messages() {
		fields(m.name, reflect.TypeOf(m.said), &now)
	}
	slices.Sort(now)
	now = slices.Compact(now)
	path := filepath.Join(before, "fields.txt")
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(now, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	then := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, f := range now {
		if !slices.Contains(then, f) {
			t.Errorf("%s: the release before refuses a message that has it", f)
		}
	}
	for _, f := range then {
		if !slices.Contains(now, f) {
			t.Errorf("%s: the release before says it, and it is unknown now", f)
		}
	}
}

// TestUnknownFieldIsRefused is why: both sides read strictly.
func TestUnknownFieldIsRefused(t *testing.T) {
	for _, m := range messages() {
		data := m.bytes(t)
		more := fmt.Appendf(nil, `%s,"zz_new":1}`, bytes.TrimSuffix(bytes.TrimSpace(data), []byte("}")))
		if !json.Valid(more) {
			t.Fatalf("%s: the test's own message is no JSON: %s", m.name, more)
		}
		if _, err := m.read(more); err == nil {
			t.Errorf("%s: got nil for a field that nobody knows, want a refusal", m.name)
		}
	}
}

// TestProtocol: the names under which the two speak.
func TestProtocol(t *testing.T) {
	got := strings.Join([]string{join.StreamProtocol, join.PathJoin, join.PathChallenge, join.PathRenew, join.PathAudit, join.PathReport, ticket.Kind, extension.Kind, order.Kind}, " ")
	const want = "mayfly-stream/1 /v1/join /v1/challenge /v1/renew /v1/audit /v1/report mayfly-ticket/2 mayfly-extension/1 mayfly-order/1"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
