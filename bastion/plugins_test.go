package bastion

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/plugin"
	"mayfly/testenv/softkey"
)

// pluginPrograms builds bastion-plugins and the example plugin, where a user of no account can reach them.
func pluginPrograms(t *testing.T) (host, dir, sum string) {
	t.Helper()
	top, err := os.MkdirTemp("", "mayfly-bastion-plugins-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	dir = filepath.Join(top, "plugins")
	for _, path := range []string{top, dir} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	host = filepath.Join(top, "bastion-plugins")
	for out, source := range map[string]string{host: "./cmd/bastion-plugins", filepath.Join(dir, "site"): "../policies/plugin/testdata/site"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "site"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(data)
	return host, dir, hex.EncodeToString(hash[:])
}

// TestPlugins logs in under a policy that pins a plugin, which runs as a user of its own where the test may do that.
func TestPlugins(t *testing.T) {
	host, dir, sum := pluginPrograms(t)
	user, uid := "65534:65534", 65534
	if os.Geteuid() != 0 {
		user, uid = fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()), os.Geteuid()
	}
	f := newFixture(t)
	for _, name := range []string{"evil", "crash", "slow", "who"} { // to whom the example plugin does something
		key, err := softkey.New(constantly(name))
		if err != nil {
			t.Fatal(err)
		}
		f.policy.Engineers = append(f.policy.Engineers, policies.Engineer{Name: name, Keys: []policies.Key{{Public: key.Authorized(), Evidence: "test:softkey"}}})
	}
	f.policy.Plugins = []policies.Plugin{{Name: "site", SHA256: sum, Decides: []string{"login", "target"}}}
	f.policy.Grants[0].Ports = []uint16{22, 23}
	f.writeBundle(2)
	if _, err := load(f.config, seenPolicy{}, time.Now()); err == nil || !strings.Contains(err.Error(), "bastion.toml has no [plugin]") || hint.Of(err) == "" {
		t.Fatalf("without [plugin]: %v", err)
	}
	f.config.Plugin = PluginConfig{Directory: dir, User: user, Host: host}
	f.target("10.77.0.11:22", echo)
	f.target("10.77.0.11:23", echo)
	relay, end, err := startPlugins(f.config.Plugin, true, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	f.startWith(func(s *Server) { s.plugins = relay })
	if v := (&visit{server: &Server{}}).restrict(t.Context(), f.server.ruling.Load(), policies.DecidesLogin, policies.Login{}, policies.Target{}); v.Allow || v.Reason != pluginFailed {
		t.Errorf("without a host: %+v", v)
	}

	// Nobody runs the plugin yet.
	if _, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
		t.Error("somebody got in without the plugin")
	}
	if r := f.closing(); r.Reason != pluginFailed {
		t.Errorf("record: %+v", r)
	}
	f.server.pinPlugins(f.policy)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	var text string
	for deadline := time.Now().Add(patience); ; <-poll.C {
		v := relay.Decide(t.Context(), pins(f.policy, ""), plugin.Request{User: "who"})
		if text = v.Text; v.Outcome == plugin.Denied {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the plugin never ran: %+v", v)
		}
	}
	if want := fmt.Sprintf("uid %d ", uid); !strings.HasPrefix(text, want) {
		t.Errorf("it runs as %q, want %q", text, want)
	}

	anna := f.login("anna", f.anna.Signer(softkey.Always))
	if conn, err := anna.Dial("tcp", "se-1:22"); err != nil {
		t.Errorf("what nobody denies: %v", err)
	} else {
		conn.Close()
	}
	if _, err := anna.Dial("tcp", "se-1:23"); err == nil || !strings.Contains(err.Error(), string(pluginDenied)) {
		t.Errorf("what the plugin denies: %v", err)
	}
	// It is not asked about what the policy denies, and could not allow it.
	if _, err := anna.Dial("tcp", "nl-1:22"); err == nil || !strings.Contains(err.Error(), string(policies.TargetNotGranted)) {
		t.Errorf("what the policy denies: %v", err)
	}
	anna.Close()
	r := f.closing()
	if len(r.Refused) != 2 || r.Refused[0].Reason != pluginDenied || !strings.Contains(r.Refused[0].Detail, "no telnet") {
		t.Errorf("record: %+v", r)
	}
	for _, tt := range []struct {
		user string
		want policies.Reason
	}{{"evil", pluginDenied}, {"slow", pluginLate}, {"crash", pluginFailed}} {
		key, err := softkey.New(constantly(tt.user))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.client(tt.user, key.Signer(softkey.Always)); err == nil {
			t.Errorf("%s got in", tt.user)
		}
		if r := f.closing(); r.Outcome != "refused" || r.Reason != tt.want {
			t.Errorf("%s: record %+v", tt.user, r)
		}
	}
}

// constantly is a source of key material that is the same for the same name.
type constantly string

func (c constantly) Read(b []byte) (int, error) {
	sum := sha256.Sum256([]byte(c))
	for i := range b {
		b[i] = sum[i%len(sum)]
	}
	return len(b), nil
}

// Root, and nobody, are no users for plugins.
func TestPluginUser(t *testing.T) {
	for _, text := range []string{"root", "0:0", "0:1", "1:0", "no-such-user-of-mayfly", "x:y", "-1:5", "5:"} {
		if c, err := pluginUser(text); err == nil || hint.Of(err) == "" {
			t.Errorf("%q: got %+v, %v", text, c, err)
		}
	}
	if c, err := pluginUser("65534:65534"); err != nil || c.Uid != 65534 || c.Gid != 65534 {
		t.Errorf("got %+v, %v", c, err)
	}
	own := PluginConfig{Directory: "/", User: fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())}
	if os.Geteuid() != 0 {
		if _, _, err := startPlugins(own, false, quiet); err == nil || !strings.Contains(err.Error(), "own user") {
			t.Errorf("as the bastion's own user: %v", err)
		}
	}
	for _, tt := range []struct {
		config PluginConfig
		ok     bool
	}{
		{PluginConfig{}, true}, {PluginConfig{Directory: "/plugins", User: "plugins"}, true}, {PluginConfig{Directory: "plugins", User: "plugins"}, false},
		{PluginConfig{Directory: "/plugins"}, false}, {PluginConfig{User: "plugins"}, false}, {PluginConfig{Directory: "/plugins", User: "plugins", Host: "x"}, false},
	} {
		if err := tt.config.check(); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.config, err)
		}
	}
}
