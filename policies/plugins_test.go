package policies

import (
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
)

const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// TestWitnessAndPlugins adds a table to the good file, and asks for what it means or why it is refused.
func TestWitnessAndPlugins(t *testing.T) {
	good, fleet := read(t), lab(t)
	plugin := func(lines ...string) string { return "[[plugin]]\n" + strings.Join(lines, "\n") + "\n" }
	const name, hash, decides = `name = "site"`, `sha256 = "` + sum + `"`, `decides = ["login"]`
	for _, tt := range []struct{ name, add, want string }{
		{"grace", "[witness]\ngrace = \"10m\"\n", ""},
		{"grace too long", "[witness]\ngrace = \"25h\"\n", "at most 24h"},
		{"grace as a number", "[witness]\ngrace = 10\n", "must be a string"},
		{"grace negative", "[witness]\ngrace = \"-1h\"\n", "not negative"},
		{"unknown key of witness", "[witness]\nurl = \"x\"\n", "unknown key"},
		{"plugin", plugin(name, hash, decides), ""},
		{"plugin with a deadline", plugin(name, hash, `deadline = "2s"`, `decides = ["login", "target"]`), ""},
		{"two plugins", plugin(name, hash, decides) + plugin(`name = "other"`, hash, decides), ""},
		{"plugin without a name", plugin(hash, decides), "no lower-case word"},
		{"plugin that is a path", plugin(`name = "../site"`, hash, decides), "no lower-case word"},
		{"plugin twice", plugin(name, hash, decides) + plugin(name, hash, decides), "there twice"},
		{"plugin without a hash", plugin(name, decides), "no SHA-256"},
		{"short hash", plugin(name, `sha256 = "e3b0"`, decides), "no SHA-256"},
		{"upper-case hash", plugin(name, `sha256 = "`+strings.ToUpper(sum)+`"`, decides), "no SHA-256"},
		{"deadline too long", plugin(name, hash, decides, `deadline = "3s"`), "at most 2s"},
		{"deadline as a number", plugin(name, hash, decides, `deadline = 1`), "must be a string"},
		{"plugin that decides nothing", plugin(name, hash), "decides nothing"},
		{"plugin that decides what nobody asks", plugin(name, hash, `decides = ["reboot"]`), "which nobody asks"},
		{"plugin that decides twice", plugin(name, hash, `decides = ["login", "login"]`), "twice"},
		{"too many plugins", strings.Repeat(plugin(name, hash, decides), MaxPlugins+1), "5 plugins"},
	} {
		_, err := Parse("policy.toml", []byte(good+"\n"+tt.add), fleet)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "policy.toml:") || hint.Of(err) == "" {
			t.Errorf("%s: got %v, hint %q, want %q", tt.name, err, hint.Of(err), tt.want)
		}
	}
	if got := (Policy{}).WitnessGrace(); got != time.Hour {
		t.Errorf("default grace: got %v", got)
	}
	if got := (Policy{Witness: Witness{Grace: Duration(48 * time.Hour)}}).WitnessGrace(); got != time.Hour {
		t.Errorf("grace out of bounds: got %v", got)
	}
	if got := (Plugin{}).Limit(); got != time.Second {
		t.Errorf("default deadline: got %v", got)
	}
	login := Plugin{Decides: []string{DecidesLogin}}
	if !login.Asked(DecidesLogin) || login.Asked(DecidesTarget) || !(Plugin{}).Asked(DecidesTarget) {
		t.Error("a plugin is asked about the wrong kind")
	}
}
