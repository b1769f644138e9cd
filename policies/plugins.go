package policies

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"mayfly/internal/tomlfile"
)

// Plugin is a decider of the site's own, which the bastion asks after its own decision was to allow. It can only deny.
type Plugin struct {
	Name     string   `toml:"name" json:"name"`         // the program's file name in the bastion's plugin directory
	SHA256   string   `toml:"sha256" json:"sha256"`     // of that file, lower-case hex; no other runs
	Deadline Duration `toml:"deadline" json:"deadline"` // no answer by then denies
	Decides  []string `toml:"decides" json:"decides"`   // "login", "target"
}

// What a plugin can be asked about.
const (
	DecidesLogin  = "login"
	DecidesTarget = "target"
)

// Bounds of plugins.
const (
	MaxPlugins            = 4
	defaultPluginDeadline = time.Second
	maxPluginDeadline     = 2 * time.Second
)

// Limit is the plugin's deadline, with the default filled in.
func (g Plugin) Limit() time.Duration {
	return pick(g.Deadline.Std(), defaultPluginDeadline, maxPluginDeadline)
}

// Asked reports whether the plugin is asked about logins, or about targets. One of neither, which no checked policy has, is asked about both.
func (g Plugin) Asked(kind string) bool {
	return slices.Contains(g.Decides, kind) || len(g.Decides) == 0
}

func (p Policy) checkPlugins() error {
	if len(p.Plugins) > MaxPlugins {
		return tomlfile.At("plugin", "make one plugin of several", "%d plugins: at most %d", len(p.Plugins), MaxPlugins)
	}
	names := map[string]bool{}
	for i, g := range p.Plugins {
		path := fmt.Sprintf("plugin[%d]", i)
		switch sum, err := hex.DecodeString(g.SHA256); {
		case !word.MatchString(g.Name):
			return tomlfile.At(path+".name", "the file's name in the plugin directory: lower-case letters, digits and -", "plugin name %q is no lower-case word", g.Name)
		case names[g.Name]:
			return tomlfile.At(path+".name", "each plugin once", "plugin %q is there twice", g.Name)
		case err != nil || len(sum) != 32 || hex.EncodeToString(sum) != g.SHA256:
			return tomlfile.At(path+".sha256", "`fleetctl policy plugin-hash FILE` prints it", "plugin %q has no SHA-256 in lower-case hex", g.Name)
		case g.Deadline < 0 || g.Deadline.Std() > maxPluginDeadline:
			return tomlfile.At(path+".deadline", "leave it out for the default, "+Duration(defaultPluginDeadline).String(),
				"plugin %q has a deadline of %s: at most %s", g.Name, g.Deadline, Duration(maxPluginDeadline))
		case len(g.Decides) == 0:
			return tomlfile.At(path, `decides = ["login", "target"]`, "plugin %q decides nothing", g.Name)
		}
		names[g.Name] = true
		for j, kind := range g.Decides {
			if at := fmt.Sprintf("%s.decides[%d]", path, j); kind != DecidesLogin && kind != DecidesTarget {
				return tomlfile.At(at, `decides = ["login", "target"]`, "plugin %q decides %q, which nobody asks", g.Name, kind)
			} else if slices.Contains(g.Decides[:j], kind) {
				return tomlfile.At(at, "each once", "plugin %q decides %q twice", g.Name, kind)
			}
		}
	}
	return nil
}
