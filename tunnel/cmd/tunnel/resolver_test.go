package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestResolver shows what is refused before unbound starts, and that a good configuration is rendered first.
func TestResolver(t *testing.T) {
	good := `{"address":"10.64.1.1","network":"10.64.1.0/24","private":["10.77.0.0/24"],"root":{"roots":null,"trust_anchors":null}}`
	cases := []struct{ name, config, want string }{
		{"address outside", strings.Replace(good, "10.64.1.1", "10.65.1.1", 1), "is not in network"},
		{"no network", `{"address":"10.64.1.1"}`, "is not in network"},
		{"the world", `{"address":"10.64.1.1","network":"0.0.0.0/0"}`, "from /16 to /29"},
		{"unknown key", `{"addres":"10.64.1.1"}`, "addres"},
		{"good, but no such program", good, "no such file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			config, conf := filepath.Join(dir, "resolver.json"), filepath.Join(dir, "unbound.conf")
			if err := os.WriteFile(config, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			args := []string{"resolver", "--config", config, "--conf", conf, "--unbound", filepath.Join(dir, "unbound")}
			if code := run(args, strings.NewReader(""), &stdout, &stderr); code != 1 {
				t.Errorf("got exit %d, want 1", code)
			}
			if !strings.Contains(stderr.String(), c.want) {
				t.Errorf("got %q, want it to say %q", stderr.String(), c.want)
			}
			_, err := os.Stat(conf)
			if rendered := err == nil; rendered != strings.HasPrefix(c.name, "good") {
				t.Errorf("unbound.conf was written: %v", rendered)
			}
		})
	}
}
