package bastion

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

const goodConfig = `listen = "10.77.0.2:22"
trust = "trust.json"
bundle = "bundle.json"
host_key = "/keys/host_key"
host_certificate = "host_key-cert.pub"
audit = "audit"
`

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bastion.toml")
	if err := os.WriteFile(path, []byte(goodConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "trust.json"); c.Trust != want || c.HostKey != "/keys/host_key" || c.Listen.String() != "10.77.0.2:22" {
		t.Errorf("got %+v, want trust %s", c, want)
	}
}

func TestBadConfig(t *testing.T) {
	for _, test := range []struct{ name, old, new, want string }{
		{"unknown key", "audit =", "colour = 1\naudit =", `b.toml:6: unknown key "colour"`},
		{"duplicate", "audit =", "trust = \"x\"\naudit =", "b.toml:6:"},
		{"wrong type", `"trust.json"`, `7`, "b.toml:2:"},
		{"no port", `"10.77.0.2:22"`, `"10.77.0.2"`, "b.toml:1:"},
		{"a name", `"10.77.0.2:22"`, `"localhost:22"`, "b.toml:1:"},
		{"zone", `"10.77.0.2:22"`, `"[fe80::1%eth0]:22"`, "b.toml:1:"},
		{"no listen", `listen = "10.77.0.2:22"`, ``, "listen is missing"},
		{"audit witness without a key", `audit = "audit"`, "audit = \"audit\"\n[[audit_witness]]\nurl = \"https://witness.example\"", "witness https://witness.example: malformed verifier key"},
		{"audit witness without a URL", `audit = "audit"`, "audit = \"audit\"\n[[audit_witness]]\nkey = \"w+00000000+BA==\"", "want a URL"},
		{"no audit", `audit = "audit"`, ``, "audit is missing"},
		{"empty bundle", `"bundle.json"`, `""`, "bundle is missing"},
		{"not TOML", `audit =`, `audit`, "b.toml:6:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig("b.toml", []byte(strings.Replace(goodConfig, test.old, test.new, 1)))
			if err == nil || !strings.Contains(err.Error(), test.want) || hint.Of(err) == "" {
				t.Errorf("got %v, hint %q, want %q and a hint", err, hint.Of(err), test.want)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte(""))
	f.Add([]byte("listen = 3"))
	f.Add([]byte("[listen]\naudit = []"))
	f.Add([]byte("LISTEN = \"10.77.0.2:22\"\nlisten = \"10.77.0.3:22\""))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig("f.toml", data)
		if err != nil {
			if !reflect.DeepEqual(c, Config{}) || !strings.HasPrefix(err.Error(), "f.toml") {
				t.Errorf("%+v, %v", c, err)
			}
			return
		}
		if !c.Listen.IsValid() || c.Trust == "" || c.Bundle == "" || c.HostKey == "" || c.HostCertificate == "" || c.Audit == "" {
			t.Errorf("something is missing: %+v", c)
		}
	})
}

// TestRebuiltConfig reads what mayfly-init writes for a bastion that is a server of the fleet (its own test has the same text).
func TestRebuiltConfig(t *testing.T) {
	text := `listen = "10.77.0.14:22"
trust = "/run/mayfly/bastion/trust.json"
bundle = "/run/mayfly/bastion/bundle.json"
host_key = "/run/mayfly/bastion/host_key"
host_certificate = "/run/mayfly/bastion/host_key-cert.pub"
audit = "/run/mayfly/bastion/audit"
control = "/run/mayfly/bastion/run/control.sock"
drain_limit = "5s"
audit_replica = "http://127.0.0.1:9101"
audit_life = 7
witnesses = ["http://10.77.0.1:9000", "http://10.77.0.1:9001"]
`
	c, err := parseConfig("bastion.toml", []byte(text))
	if err != nil || c.AuditLife != 7 || c.replica() == nil {
		t.Fatalf("got %+v, %v", c, err)
	}
	for _, bad := range []string{"http://10.77.0.1:9101", "https://127.0.0.1:9101", "http://localhost:9101", "http://127.0.0.1", "http://127.0.0.1:0", "http://127.0.0.1:9101/x", "127.0.0.1:9101", "http://u@127.0.0.1:9101"} {
		_, err := parseConfig("bastion.toml", []byte(strings.Replace(text, "http://127.0.0.1:9101", bad, 1)))
		if err == nil || !strings.Contains(err.Error(), "audit_replica") || hint.Of(err) == "" {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}
