package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/testenv/bench"
)

var benchBootVerb = command.Verb{
	Name:    "bench boot",
	Args:    "[-o table|json] [--runs N]",
	Summary: "measure how long a server takes from power on to serving",
	Help: `Brings up a fleet of one server and rebuilds it again and again: netbooted (serving_s), and with UEFI firmware, a measured stub and a TPM that
has to prove it (serving_tpm_s). Serving is after the server joined, every service answered, and it was watched for the policy's bake of 2 s. verify_s is the
stub's part: from its first instruction to the root fetched, hashed and verified. Figures are medians; nothing here passes or fails by one.`,
	Run: func(ctx context.Context, c *command.Call) (err error) {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		runs := fs.Int("runs", 5, "`N` boots of each")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() > 0 || (*output != "table" && *output != "json") || *runs < minRuns {
			return command.Usagef("bench boot takes -o table or -o json, and --runs of %d at least", minRuns)
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		e, done, err := open(ctx, c, "bench boot", (&environment{tpm: true}).hostNeeds(), cardNeeds)
		if done || err != nil {
			return err
		}
		defer e.release()
		defer e.giveCaches(ctx)
		if e.isUp() {
			return hint.New(errors.New("an environment is up already"), "go run ./testenv down")
		}
		machines = machines[len(machines)-1:] // nobody else's boot is in its way
		figures := bench.BootFigures{}
		for _, withTPM := range []bool{false, true} {
			e.tpm = withTPM
			if err := measureBoots(ctx, newDemo(e, c), *runs, &figures); err != nil {
				return err
			}
		}
		report := figures.Report()
		if *output == "json" {
			return json.NewEncoder(c.Stdout).Encode(report)
		}
		return report.WriteTable(c.Stdout)
	},
}

// measureBoots brings up the one server, rebuilds it, and takes everything away.
func measureBoots(ctx context.Context, d *demo, runs int, figures *bench.BootFigures) (err error) {
	defer func() {
		_, removeErr := d.e.remove()
		err = errors.Join(err, removeErr, d.e.take())
	}()
	for _, s := range []struct {
		name string
		run  func(context.Context) error
	}{{"image", d.image}, {"trust", d.trust}, {"up", d.up}} {
		if err := d.step(ctx, s.name, s.run); err != nil {
			return fmt.Errorf("step %s: %w", s.name, err)
		}
	}
	for n := 1; ; n++ {
		serving, verified, err := d.lastBoot(ctx)
		if err != nil {
			return err
		}
		figures.Add(d.e.tpm, serving, verified)
		d.say("boot %d: serving after %.1f s, root verified after %.1f s", n, serving.Seconds(), verified.Seconds())
		if n == runs {
			return nil
		}
		if _, err := d.rotateNow(ctx, "bench"); err != nil {
			return err
		}
	}
}

// verifiedLine is what the stub says on the console.
var verifiedLine = regexp.MustCompile(`mayfly-stub: root verified after ([0-9.]+) s`)

// lastBoot is how long the present life took from power on to serving, and its stub to a verified root.
func (d *demo) lastBoot(ctx context.Context) (serving, verified time.Duration, err error) {
	name := machines[0].Name
	servers, err := d.servers(ctx)
	if err != nil {
		return 0, 0, err
	}
	events, err := d.events(ctx, 0)
	if err != nil {
		return 0, 0, err
	}
	var on time.Time
	for _, ev := range events {
		if ev.Server != name || ev.Epoch != servers[name].Epoch {
			continue
		}
		switch inventory.State(ev.To) {
		case inventory.Booting:
			on = ev.At
		case inventory.Serving:
			serving = ev.At.Sub(on)
		}
	}
	if on.IsZero() || serving <= 0 {
		return 0, 0, fmt.Errorf("%s does not serve", name)
	}
	console, err := os.ReadFile(d.e.fleet("machines", name, "console.log"))
	if err != nil {
		return 0, 0, err
	}
	m := verifiedLine.FindSubmatch(console)
	if m == nil {
		return 0, 0, fmt.Errorf("the stub of %s does not say when the root was verified", name)
	}
	seconds, err := strconv.ParseFloat(string(m[1]), 64)
	return serving, time.Duration(seconds * float64(time.Second)), err
}
