package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mayfly/fleetctl/plan/simulate"
)

// PlanParts are the parts of Plan.
var PlanParts = []string{"sim_3k", "sim_100k", "sim_1m", "patch_3k", "status_sqlite", "status_etcd"}

// PlanOptions of Plan.
type PlanOptions struct {
	Runs int
	Only []string
	Log  io.Writer
}

// Implementation constants: sizes of what is measured.
const (
	patchServers  = 3000
	statusServers = 100_000
)

// simulations are fleets with every rule in use, over 30 days.
var simulations = map[string]PlanWork{
	"sim_3k":        {Servers: 3000, Regions: 105},
	"sim_100k":      {Servers: 100_000, Regions: 1000},
	"sim_1m":        {Servers: 1_000_000, Regions: 1000},
	"patch_3k":      {Servers: patchServers},
	"status_sqlite": {Servers: statusServers, Regions: 1000, Store: "sqlite"},
	"status_etcd":   {Servers: statusServers, Regions: 1000, Store: "etcd"},
}

// PlanVerb is the verb of testenv that does one PlanWork in a process of its own, so that its memory is its own.
const PlanVerb = "part plan"

// PlanWork is one measurement: a simulation of so many servers in so many regions, without regions the urgent release, with a store the status
// of a fleet that is kept there.
type PlanWork struct {
	Servers, Regions int
	Store            string
}

// PlanDone is what it comes to.
type PlanDone struct {
	Seconds   float64 `json:"seconds"` // of the work, without laying out what it works on
	Hours     float64 `json:"hours"`   // simulated, until the urgent release was everywhere
	Rotations int     `json:"rotations"`
	Broken    int     `json:"broken"` // floors, by planned removals
	Passed    int     `json:"passed"` // servers that met their deadline
	MiB       float64 `json:"-"`      // most memory of the process
}

// simulatedStart is a Friday in which the clocks of two of the fleet's zones are about to change.
var simulatedStart = time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)

// Simulate does a PlanWork without a store.
func (w PlanWork) Simulate() (PlanDone, error) {
	c := simulate.Patch(w.Servers, simulatedStart)
	if w.Regions > 0 {
		zones := map[string]*time.Location{}
		for _, name := range []string{"Europe/Stockholm", "America/New_York", "Asia/Kolkata", "Australia/Sydney"} {
			if z, err := time.LoadLocation(name); err == nil {
				zones[name] = z // a machine without the database measures the same in UTC
			}
		}
		c = simulate.Fleet(w.Servers, w.Regions, simulatedStart, zones)
	}
	began := time.Now()
	r, refused := simulate.Run(c)
	done := PlanDone{Seconds: time.Since(began).Seconds(), Rotations: r.Rotations, Broken: r.Broken, Passed: r.Passed}
	if len(refused) > 0 {
		return done, fmt.Errorf("the rules of the measured fleet cannot be kept: %w", refused)
	}
	if w.Regions == 0 {
		if r.Done.IsZero() {
			return done, errors.New("the urgent release was not everywhere when the simulation ended")
		}
		done.Hours = r.Done.Sub(c.Start).Hours()
	}
	return done, nil
}

// Plan measures the planner.
func Plan(ctx context.Context, o PlanOptions) (Report, error) {
	report := Report{Bench: "plan"}
	exe, err := os.Executable()
	if err != nil {
		return report, err
	}
	for _, part := range PlanParts {
		if !slices.Contains(o.Only, part) {
			continue
		}
		var seconds, mib, hours []float64
		for range o.Runs {
			d, err := simulations[part].run(ctx, exe)
			if err != nil {
				return report, fmt.Errorf("%s: %w", part, err)
			}
			fmt.Fprintf(o.Log, "testenv: bench plan: %s: %.3f s, %.0f MiB, %d rotations, %d floors broken, %d servers past their deadline\n", part, d.Seconds, d.MiB, d.Rotations, d.Broken, d.Passed)
			seconds, mib, hours = append(seconds, d.Seconds), append(mib, d.MiB), append(hours, d.Hours)
		}
		switch {
		case part == "patch_3k":
			report.Results = append(report.Results, Result{Name: "patch_3k_h", Unit: "simulated hours", Ours: median(hours)})
		case strings.HasPrefix(part, "status_"):
			report.Results = append(report.Results, Result{Name: "status_100k_s", Unit: "s, from " + strings.TrimPrefix(part, "status_"), Ours: median(seconds)})
		default:
			report.Results = append(report.Results, Result{Name: part + "_s", Unit: "s", Ours: median(seconds)}, Result{Name: part + "_mb", Unit: "MiB", Ours: median(mib)})
		}
	}
	return report, nil
}

// run does the work in a process of its own.
func (w PlanWork) run(ctx context.Context, exe string) (d PlanDone, err error) {
	args := append(strings.Fields(PlanVerb), "--servers", strconv.Itoa(w.Servers), "--regions", strconv.Itoa(w.Regions))
	if w.Store != "" {
		args = append(args, "--store", w.Store)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return d, fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		return d, err
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		d.MiB = float64(u.Maxrss) / 1024
	}
	return d, nil
}
