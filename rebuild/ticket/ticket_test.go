package ticket

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

var testNow = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func testKey(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testTrust(t testing.TB, key ssh.Signer) *trust.Trust {
	t.Helper()
	return &trust.Trust{Fleet: "lab", TicketKeys: []string{trust.FormatKey(key.PublicKey())}}
}

func testTicket(t testing.TB) Ticket {
	t.Helper()
	ca, _, err := pki.NewCA("lab.test", testNow)
	if err != nil {
		t.Fatal(err)
	}
	tk, err := New(Ticket{
		Fleet: "lab", Domain: "lab.test", Server: "se-1", Epoch: 3,
		Release: strings.Repeat("00", 32), Mirrors: []string{"http://10.77.0.1:8080/releases/7/"}, Network: Network{Mode: Static}, TPM: TPMOff, Disks: DisksRefuse, Deadline: testNow.Add(time.Hour),
		Address: netip.MustParsePrefix("10.77.0.11/24"), Gateway: netip.MustParseAddr("10.77.0.1"),
		Controller: "10.77.0.1:8443", Name: "controller.lab.test", CA: string(ca), NotAfter: testNow.Add(5 * time.Minute), MaxAge: 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

func sign(t testing.TB, key ssh.Signer, namespace string, data []byte) []byte {
	t.Helper()
	sig, err := sshsig.Sign(key, namespace, data)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func marshal(t testing.TB, tk Ticket) []byte {
	t.Helper()
	data, err := tk.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func reason(err error) string {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	return ""
}

func TestNewAndOpen(t *testing.T) {
	key := testKey(t, 1)
	tk := testTicket(t)
	data := marshal(t, tk)
	got, err := Open(testTrust(t, key), data, sign(t, key, Namespace, data), testNow)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*got, tk) {
		t.Errorf("got %+v, want %+v", *got, tk)
	}
	if got.ServerName() != "se-1.lab.test" || got.Controller != "10.77.0.1:8443" || got.Mirrors[0] != "http://10.77.0.1:8080/releases/7/" {
		t.Errorf("got %s, %s, %s", got.ServerName(), got.Controller, got.Mirrors)
	}
	if other := testTicket(t); other.Secret == tk.Secret || Hash(marshal(t, other)) == Hash(data) {
		t.Error("two tickets have the same secret or hash")
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Ticket{Server: "se-9", Epoch: 1}); err == nil {
		t.Error("got a ticket with empty fields")
	}
}

func TestOpenRefuses(t *testing.T) {
	key, other := testKey(t, 1), testKey(t, 2)
	good := testTicket(t)
	data := marshal(t, good)
	sig := sign(t, key, Namespace, data)
	signed := func(change func(*Ticket)) ([]byte, []byte) {
		tk := good
		change(&tk)
		d := marshal(t, tk)
		return d, sign(t, key, Namespace, d)
	}
	raw := func(from, to string) ([]byte, []byte) {
		d := []byte(strings.Replace(string(data), from, to, 1))
		if bytes.Equal(d, data) {
			t.Fatalf("%q is not in the ticket", from)
		}
		return d, sign(t, key, Namespace, d)
	}
	tests := []struct {
		name string
		make func() (data, sig []byte)
		now  time.Time
		want string
	}{
		{"flipped byte", func() ([]byte, []byte) { d := bytes.Clone(data); d[40] ^= 1; return d, sig }, testNow, Unsigned},
		{"other key", func() ([]byte, []byte) { return data, sign(t, other, Namespace, data) }, testNow, Unsigned},
		{"other namespace", func() ([]byte, []byte) { return data, sign(t, key, "mayfly-release", data) }, testNow, Unsigned},
		{"no signature", func() ([]byte, []byte) { return data, nil }, testNow, Unsigned},
		{"long signature", func() ([]byte, []byte) { return data, make([]byte, MaxSignatureBytes+1) }, testNow, Unsigned},
		{"empty", func() ([]byte, []byte) { return nil, sig }, testNow, Malformed},
		{"long", func() ([]byte, []byte) { d := make([]byte, MaxBytes+1); return d, sign(t, key, Namespace, d) }, testNow, Malformed},
		{"expired", func() ([]byte, []byte) { return data, sig }, testNow.Add(6 * time.Minute), Expired},
		{"other fleet", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Fleet = "prod" }) }, testNow, OtherFleet},
		{"unknown field", func() ([]byte, []byte) { return raw(`"epoch"`, `"epoc"`) }, testNow, Malformed},
		{"repeated field", func() ([]byte, []byte) { return raw(`  "epoch": 3,`, "  \"epoch\": 3,\n  \"epoch\": 3,") }, testNow, Malformed},
		{"other spelling", func() ([]byte, []byte) { return raw(`"epoch"`, `"Epoch"`) }, testNow, Malformed},
		{"data after", func() ([]byte, []byte) {
			d := append(bytes.Clone(data), '{', '}')
			return d, sign(t, key, Namespace, d)
		}, testNow, Malformed},
		{"kind", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Kind = "mayfly-ticket/1" }) }, testNow, Malformed},
		{"server", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Server = "../se-1" }) }, testNow, Malformed},
		{"domain", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Domain = "lab..test" }) }, testNow, Malformed},
		{"epoch 0", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Epoch = 0 }) }, testNow, Malformed},
		{"short secret", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Secret = "00" }) }, testNow, Malformed},
		{"upper-case hash", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Release = strings.Repeat("A", 64) }) }, testNow, Malformed},
		{"address", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Address = netip.Prefix{} }) }, testNow, Malformed},
		{"controller is a name", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Controller = "controller:8443" }) }, testNow, Malformed},
		{"controller's name", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Name = "evil.lab.test" }) }, testNow, Malformed},
		{"url without slash", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Mirrors = []string{strings.TrimSuffix(t.Mirrors[0], "/")} })
		}, testNow, Malformed},
		{"url with dots", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Mirrors = []string{"http://10.77.0.1:8080/../x/"} })
		}, testNow, Malformed},
		{"url with a name", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Mirrors = []string{"http://boot:8080/x/"} })
		}, testNow, Malformed},
		{"ftp", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Mirrors = []string{"ftp://10.77.0.1:21/r/"} })
		}, testNow, Malformed},
		{"no mirror", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Mirrors = nil }) }, testNow, Malformed},
		{"mirror twice", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Mirrors = append(t.Mirrors, t.Mirrors[0]) })
		}, testNow, Malformed},
		{"too many mirrors", func() ([]byte, []byte) {
			return signed(func(t *Ticket) {
				t.Mirrors = nil
				for i := range MaxMirrors + 1 {
					t.Mirrors = append(t.Mirrors, fmt.Sprintf("http://10.77.0.1:%d/", i+1))
				}
			})
		}, testNow, Malformed},
		{"witness with a path", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Witnesses = []string{"http://10.77.0.1:1/x"} })
		}, testNow, Malformed},
		{"witness over https", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Witnesses = []string{"https://10.77.0.1:1"} })
		}, testNow, Malformed},
		{"network mode", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Network.Mode = "" }) }, testNow, Malformed},
		{"bond of one", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Network.Bond = LACP }) }, testNow, Malformed},
		{"two devices and no bond", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Network.MACs = []string{"52:54:00:00:00:01", "52:54:00:00:00:02"} })
		}, testNow, Malformed},
		{"hardware address", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Network.MACs = []string{"eth0"} }) }, testNow, Malformed},
		{"vlan", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Network.VLAN = 4095 }) }, testNow, Malformed},
		{"gateway of the other family", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.Gateway = netip.MustParseAddr("2001:db8::1") })
		}, testNow, Malformed},
		{"tpm", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.TPM = "" }) }, testNow, Malformed},
		{"disks", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Disks = "use" }) }, testNow, Malformed},
		{"no deadline", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.Deadline = time.Time{} }) }, testNow, Malformed},
		{"ca", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.CA = "none" }) }, testNow, Malformed},
		{"two cas", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.CA += t.CA }) }, testNow, Malformed},
		{"no age", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.MaxAge = 0 }) }, testNow, Malformed},
		{"age beyond bound", func() ([]byte, []byte) { return signed(func(t *Ticket) { t.MaxAge = int64(MaxAge/time.Second) + 1 }) }, testNow, Malformed},
		{"time not in UTC", func() ([]byte, []byte) {
			return signed(func(t *Ticket) { t.NotAfter = t.NotAfter.In(time.FixedZone("", 3600)) })
		}, testNow, Malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, s := tt.make()
			got, err := Open(testTrust(t, key), d, s, tt.now)
			if got != nil || reason(err) != tt.want {
				t.Errorf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
	for name, tr := range map[string]*trust.Trust{"nil": nil, "zero": {}, "no key": {Fleet: "lab"}} {
		if got, err := Open(tr, data, sig, testNow); got != nil || reason(err) != Unsigned {
			t.Errorf("trust %s: got %v, %v; want %s", name, got, err, Unsigned)
		}
	}
}

func FuzzOpen(f *testing.F) {
	key := testKey(f, 1)
	good := marshal(f, testTicket(f))
	f.Add(good)
	f.Add([]byte("{}"))
	f.Add(bytes.Replace(good, []byte("mayfly-ticket/2"), []byte("mayfly-ticket/9"), 1))
	tr := testTrust(f, key)
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := Open(tr, data, []byte("x"), testNow); got != nil || err == nil {
			t.Fatal("believed an unsigned ticket")
		}
		got, err := Open(tr, data, sign(t, key, Namespace, data), testNow)
		if (got == nil) != (err != nil) {
			t.Fatalf("got %v, %v", got, err)
		}
		if got != nil && !bytes.Equal(marshal(t, *got), data) {
			t.Fatal("what was read does not marshal to what was signed")
		}
	})
}
