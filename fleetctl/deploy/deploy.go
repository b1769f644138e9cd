// Package deploy holds the files with which a controller is run: systemd units and a timer, users, the state directory, a line for cron, alert rules for Prometheus
// and a dashboard for Grafana. They are in the program, so that those of its version are at hand: `fleetctl deploy-files`. It has no effects.
package deploy

import (
	"embed"
	"strings"
)

//go:embed mayfly-*.service mayfly-rotate.timer mayfly.sysusers mayfly.tmpfiles mayfly.cron mayfly.rules.yml mayfly-dashboard.json
var files embed.FS

// What the files say where nothing else is asked for.
const (
	StateDir = "/var/lib/mayfly"
	Program  = "/usr/local/bin/fleetctl"
)

// File is one of them.
type File struct {
	Name  string `json:"name"`
	Place string `json:"place"` // where it goes on a machine; "" where that is the site's to say
	What  string `json:"what"`
	Data  []byte `json:"-"`
}

var list = []File{
	{Name: "mayfly.sysusers", Place: "/etc/sysusers.d/mayfly.conf", What: "users and group"},
	{Name: "mayfly.tmpfiles", Place: "/etc/tmpfiles.d/mayfly.conf", What: "the state directory"},
	{Name: "mayfly-signer.service", Place: "/etc/systemd/system/mayfly-signer.service", What: "the fleet's keys"},
	{Name: "mayfly-serve.service", Place: "/etc/systemd/system/mayfly-serve.service", What: "controller, with the schedule of policy.toml"},
	{Name: "mayfly-checkin.service", Place: "/etc/systemd/system/mayfly-checkin.service", What: "check-in of apps"},
	{Name: "mayfly-rotate.service", Place: "/etc/systemd/system/mayfly-rotate.service", What: "one rotation of what is due"},
	{Name: "mayfly-rotate.timer", Place: "/etc/systemd/system/mayfly-rotate.timer", What: "begins it every ten minutes"},
	{Name: "mayfly.cron", Place: "/etc/cron.d/mayfly", What: "the same without systemd"},
	{Name: "mayfly.rules.yml", What: "alert rules for Prometheus"},
	{Name: "mayfly-dashboard.json", What: "dashboard for Grafana"},
}

// Files are all of them, for this state directory and program.
func Files(dir, program string) []File {
	all := make([]File, len(list))
	for i, f := range list {
		data, err := files.ReadFile(f.Name)
		if err != nil {
			panic("deploy: internal error: " + err.Error())
		}
		f.Data = []byte(strings.NewReplacer(StateDir, dir, Program, program).Replace(string(data)))
		all[i] = f
	}
	return all
}
