package inventory

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"mayfly/internal/tomlfile"
)

// How a host asks whether it may restart.
const (
	UpdatesFleetLock = "fleetlock" // Zincati of Fedora CoreOS, and others
	UpdatesOmaha     = "omaha"     // update_engine of Flatcar
)

// Update is what the hosts of a track that ask by Omaha are given: one version of an operating system, which somebody else makes and signs.
type Update struct {
	App     string `toml:"app" json:"app"`         // the application's id, which Flatcar has as a UUID
	Track   string `toml:"track" json:"track"`     // "stable"
	Version string `toml:"version" json:"version"` // a host that has it is told that there is no update
	URL     string `toml:"url" json:"url"`         // of the directory with the package, with a slash at the end
	Package string `toml:"package" json:"package"` // file name
	Size    int64  `toml:"size" json:"size"`       // of it, in bytes
	SHA1    string `toml:"sha1" json:"sha1"`       // of it, base64: what Omaha 3.0 has as hash
	SHA256  string `toml:"sha256" json:"sha256"`   // of it, base64: what update_engine verifies
}

// Bounds of updates.
const (
	MaxUpdates       = 64
	maxMetricsAllow  = 64
	maxUpdatePackage = 64 << 30 // bytes
)

var (
	updateID    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:{}-]{0,127}$`)
	appID       = regexp.MustCompile(`^[A-Za-z0-9{][A-Za-z0-9._{}-]{0,127}$`)
	updateWord  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
	packageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)
)

// Asking returns the hosts that ask whether they may restart.
func (f *Fleet) Asking() []Server {
	var list []Server
	for _, s := range f.Servers {
		if s.Role == RoleHost && s.Updates != "" {
			list = append(list, s)
		}
	}
	return list
}

// asking checks what only hosts have that ask whether they may restart.
func (c *checker) asking() error {
	const mend = `updates = "fleetlock" with update_id = "…", a rack and a capacity`
	racks, ids := map[string]bool{}, map[string]string{}
	for _, r := range c.fleet.Racks {
		racks[r.Name] = true
	}
	for i, s := range c.fleet.Servers {
		path := fmt.Sprintf("server[%d]", i)
		switch {
		case s.Role != RoleHost:
			continue
		case s.Updates == "" && s.UpdateID != "":
			return tomlfile.At(path+".update_id", mend, "server %q has an update_id without updates", s.Name)
		case s.Updates == "":
			continue
		case s.Updates != UpdatesFleetLock && s.Updates != UpdatesOmaha:
			return tomlfile.At(path+".updates", `updates = "fleetlock" or updates = "omaha"`, "server %q asks by %q, which is unknown", s.Name, s.Updates)
		case !updateID.MatchString(s.UpdateID):
			return tomlfile.At(path+".update_id", "the id that the host asks as: docs/formats/updates.md", "server %q has update_id %q", s.Name, s.UpdateID)
		case ids[s.UpdateID] != "":
			return tomlfile.At(path+".update_id", "each host has an id of its own", "server %q has the update_id of %q", s.Name, ids[s.UpdateID])
		case !racks[s.Rack]:
			return tomlfile.At(path+".rack", "add a [[rack]] of that name, or correct it", "server %q is in rack %q, which does not exist", s.Name, s.Rack)
		case s.Capacity < 1 || s.Capacity > MaxCapacity:
			return tomlfile.At(path+".capacity", "capacity is what the host can carry, in Mbit/s", "server %q has capacity %d: it must be 1 to %d", s.Name, s.Capacity, MaxCapacity)
		case c.fleet.Controller.UpdatesPort == 0:
			return tomlfile.At(path+".updates", "controller.updates_port is where it asks", "server %q asks a controller that has no updates_port", s.Name)
		}
		ids[s.UpdateID] = s.Name
	}
	return nil
}

// updates checks what is given out by Omaha, and that somebody asks where they are heard.
func (c *checker) updates() error {
	if err := c.asking(); err != nil {
		return err
	}
	f := c.fleet
	if f.Controller.UpdatesPort != 0 && (f.Controller.UpdatesPort == f.Controller.BootPort || f.Controller.UpdatesPort == f.Controller.JoinPort || f.Controller.UpdatesPort == f.Controller.CheckinPort) {
		return tomlfile.At("controller.updates_port", "give each of the controller's services its own port", "updates_port is %d, which another service has", f.Controller.UpdatesPort)
	}
	if len(f.Asking()) > 0 && f.BastionsOnly() {
		return tomlfile.At("server", "leave updates out, or let mayfly rebuild a server", "hosts have updates, and a fleet of hosts alone has no controller to ask")
	}
	if len(f.Updates) > MaxUpdates {
		return tomlfile.At("update", "split the fleet", "%d of update: at most %d", len(f.Updates), MaxUpdates)
	}
	seen := map[string]bool{}
	for i, u := range f.Updates {
		path := fmt.Sprintf("update[%d]", i)
		if seen[u.App+" "+u.Track] {
			return tomlfile.At(path+".track", "a track has one version at a time", "app %q has track %q twice", u.App, u.Track)
		}
		seen[u.App+" "+u.Track] = true
		if err := u.check(path); err != nil {
			return err
		}
	}
	return nil
}

func (u Update) check(path string) error {
	at, err := url.Parse(u.URL)
	sum := func(text string, size int) bool {
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		return err == nil && len(b) == size
	}
	switch {
	case !appID.MatchString(u.App):
		return tomlfile.At(path+".app", "the id that hosts send as appid", "app %q", u.App)
	case !updateWord.MatchString(u.Track):
		return tomlfile.At(path+".track", `track = "stable"`, "track %q", u.Track)
	case !updateWord.MatchString(u.Version):
		return tomlfile.At(path+".version", `version = "4230.2.1"`, "version %q", u.Version)
	case err != nil || at.Scheme != "https" && at.Scheme != "http" || at.Host == "" || at.User != nil || at.RawQuery != "" || at.Fragment != "" || !strings.HasSuffix(at.Path, "/"):
		return tomlfile.At(path+".url", `url = "https://mirror.example/flatcar/4230.2.1/"`, "url %q is no http or https URL that ends in a slash", u.URL)
	case !packageName.MatchString(u.Package):
		return tomlfile.At(path+".package", "a file name", "package %q", u.Package)
	case u.Size < 1 || u.Size > maxUpdatePackage:
		return tomlfile.At(path+".size", "the package's size in bytes", "size %d", u.Size)
	case !sum(u.SHA1, 20):
		return tomlfile.At(path+".sha1", "openssl dgst -sha1 -binary FILE | base64", "sha1 %q is not 20 bytes in base64", u.SHA1)
	case !sum(u.SHA256, 32):
		return tomlfile.At(path+".sha256", "openssl dgst -sha256 -binary FILE | base64", "sha256 %q is not 32 bytes in base64", u.SHA256)
	}
	return nil
}

// published checks where the controller publishes numbers: on loopback or a socket, unless it is said who else reads.
func (c *checker) published() error {
	const mend = `metrics = "127.0.0.1:9123", or metrics = "/run/mayfly-serve/metrics.sock"`
	k := c.fleet.Controller
	for i, p := range k.MetricsAllow {
		if err := network(fmt.Sprintf("controller.metrics_allow[%d]", i), p); err != nil {
			return err
		}
	}
	a, err := netip.ParseAddrPort(k.Metrics)
	switch {
	case k.Metrics == "" && len(k.MetricsAllow) > 0:
		return tomlfile.At("controller.metrics_allow", mend, "metrics_allow without metrics")
	case len(k.MetricsAllow) > maxMetricsAllow:
		return tomlfile.At("controller.metrics_allow", "use wider prefixes", "metrics_allow: at most %d prefixes", maxMetricsAllow)
	case k.Metrics == "" || filepath.IsAbs(k.Metrics) && filepath.Clean(k.Metrics) == k.Metrics && strings.HasSuffix(k.Metrics, ".sock"):
		return nil
	case err != nil || a.Addr().Zone() != "" || a.Port() == 0:
		return tomlfile.At("controller.metrics", mend, "metrics %q is neither address and port nor an absolute path that ends in .sock", k.Metrics)
	case a.Addr().IsUnspecified():
		return tomlfile.At("controller.metrics", mend, "metrics %s: one address, not all", a)
	case !a.Addr().Unmap().IsLoopback() && len(k.MetricsAllow) == 0:
		return tomlfile.At("controller.metrics", `metrics_allow = ["10.77.0.9/32"] says who may read there`, "metrics %s is not on loopback", a)
	}
	return nil
}
