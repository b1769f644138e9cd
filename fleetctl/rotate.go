package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/fleetctl/signer"
	"mayfly/internal/account"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/policies/request"
)

var rotateVerb = command.Verb{
	Name:    "rotate",
	Args:    "--dir DIR [SERVER... | --all | --upgrade | --emergency | --retry | --lost SERVER...] [--plan FILE] [--sign FILE --reason TEXT | --request FILE]",
	Summary: "drain, wipe, rebuild, check and return servers",
	Help: `Rebuilds every server that is due, those that are named, or with --all every server: it drains (bounded), is switched off and read back as off,
boots the release in use with a one-time ticket, joins, is checked from inside and outside, is watched, and serves again.
Never more at once than the rules allow, and never so many that a region falls under its floor. --upgrade goes as far as the train of the release in use has come.
--emergency rebuilds everything at once, over floors, windows, caps and rates, and takes two people.

Every step is in the journal before it happens. After Ctrl-C, a kill or a power cut, the next rotate goes on where this one
was. A server that does not come up is tried again, then quarantined with the cause (exit code 1); --retry tries it again. ` + "`fleetctl pause`" + `, resume and cancel
hold it up at any time. Several at once, of several controllers too, carry one run together: each server is claimed by one.

--plan takes what ` + "`fleetctl plan -o json`" + ` wrote, or the digits that ` + "`fleetctl plan`" + ` ends with, and refuses a run on other grounds, with what changed.

What is due by the signed policy takes nobody's leave. Everything else takes a signed request, which binds the mode, the servers with their lives, the
release and the policy ("fleetctl request make rotate"; --sign where one person is enough).

` + "`fleetctl signer` and `fleetctl serve`" + ` have to run.

Example:

  fleetctl rotate --dir lab --all`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		asked := askedFlags(fs)
		looked := fs.String("plan", "", "`file` or digits of the plan that was looked at: another one is refused")
		leave := leaveFlagsOf(fs)
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		asked.only = fs.Args()
		if err := checkFormat(*output); err != nil {
			return err
		}
		mode, err := asked.mode()
		if err := errors.Join(err, leave.check()); err != nil {
			return err
		}
		if mode == "" && (*leave.file != "" || *leave.key != "") {
			return command.Usagef("what is due takes no request: SERVER, --all, --upgrade, --emergency, --retry or --lost does")
		}
		d := state(*dir)
		r, rules, closeStore, err := d.runner(ctx, c)
		if err != nil {
			return err
		}
		defer closeStore()
		if err := account.Undumpable(); err != nil { // it opens the passwords of BMCs
			return err
		}
		asked.apply(&rules)
		if r.Expect, err = expected(*looked); err != nil {
			return err
		}
		leftTo := false // by the people that an emergency takes
		r.Overrides = func(context.Context, plan.Plan) error {
			if !leftTo {
				return refusedPlan(&rotate.Refused{Why: plan.Refusals{{Code: rotate.Unapproved, Detail: "nobody has signed for an emergency"}}})
			}
			return nil
		}
		bar := newBar(c.Stderr)
		defer bar.clear()
		r.Talk, r.Show = bar, bar.show
		if err := os.MkdirAll(d.machines(), 0o700); err != nil {
			return fmt.Errorf("making the directory of machines: %w", err)
		}
		result, err := d.rotate(ctx, r, rules, func() error {
			if mode == "" {
				return nil
			}
			known, err := r.Store.Servers(ctx)
			if err != nil {
				return err
			}
			_, err = d.authorise(ctx, c, r.Store, leave, rotation(mode, asked.names(), r.Bundle, r.Release, known))
			leftTo = err == nil && mode == request.ModeEmergency
			return err
		})
		bar.clear()
		if result.Result == "" {
			return refusedPlan(err)
		}
		var rows [][]string
		for _, s := range result.Servers {
			rows = append(rows, []string{s.Name, string(s.State), strconv.FormatUint(s.Epoch, 10), s.Release,
				fmt.Sprintf("%.1f s", s.Seconds), fmt.Sprintf("%.1f s", s.Boot), s.Outcome, strconv.Itoa(s.Attempts), first(s.Restarted), s.Cause})
		}
		if e := show(c.Stdout, *output, result, []string{"SERVER", "STATE", "LIFE", "RELEASE", "OUT FOR", "BOOT", "OUTCOME", "ATTEMPTS", "RESTARTED", "CAUSE"}, rows); e != nil {
			return errors.Join(err, e)
		}
		fmt.Fprintf(c.Stderr, "fleetctl: rotate: %s, %d servers rebuilt\n", result.Result, served(result))
		return refusedPlan(err)
	},
}

// rotate looks whether servers could join at all before it touches any. leave is asked for last, when nothing else can refuse any more.
func (d state) rotate(ctx context.Context, r *rotate.Runner, rules plan.Rules, leave func() error) (rotate.Result, error) {
	for _, name := range slices.Concat(rules.Lost, rules.Only) {
		if _, ok := r.Bundle.Inventory.RebuiltServer(name); !ok {
			return rotate.Result{}, command.Usagef("%s: no such server in the signed inventory", name)
		}
	}
	if err := actUnder(ctx, r.Store, r.Bundle); err != nil {
		return rotate.Result{}, err
	}
	// A plan first: what is refused, or not due, needs no controller.
	if err := r.Store.Sync(ctx, r.Bundle.Inventory, time.Now()); err != nil {
		return rotate.Result{}, err
	}
	if _, err := r.Plan(ctx, rules, time.Now()); err != nil {
		return rotate.Result{}, err
	}
	k := r.Bundle.Inventory.Controller
	name := r.Bundle.Inventory.FQDN(inventory.NameController)
	if err := answers(ctx, netip.AddrPortFrom(k.Address, k.JoinPort), pki.VerifyName(r.CA, name)); err != nil {
		return rotate.Result{}, fmt.Errorf("servers could not join: %w", err)
	}
	socket := d.path(signer.SocketName)
	conn, err := net.DialTimeout("unix", socket, controllerLimit)
	if err != nil {
		return rotate.Result{}, hint.New(fmt.Errorf("no tickets without the signer: %w", err), "start `fleetctl signer` first; nothing was touched")
	}
	if err := conn.Close(); err != nil {
		return rotate.Result{}, err
	}
	if err := r.MayBegin(ctx, rules); err != nil { // no request is used up for a run that does something else
		return rotate.Result{}, err
	}
	if err := leave(); err != nil {
		return rotate.Result{}, err
	}
	return r.Run(ctx, rules)
}

// controllerLimit is how long the controller's own ports may take to answer.
const controllerLimit = 5 * time.Second

// answers reports whether the fleet's controller listens there: it has to show a certificate of the fleet's CA for its name.
func answers(ctx context.Context, addr netip.AddrPort, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, controllerLimit)
	defer cancel()
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", addr.String())
	if oe := (*net.OpError)(nil); errors.As(err, &oe) && oe.Op == "dial" {
		return hint.New(err, "start `fleetctl serve` first; nothing was touched")
	}
	if err != nil {
		return hint.New(fmt.Errorf("%s is not the controller %s: %w", addr, config.ServerName, err),
			"end what listens there and start `fleetctl serve`; nothing was touched")
	}
	return conn.Close()
}

// expected reads which plan was looked at: a file of `fleetctl plan -o json`, or the digits that name its grounds.
func expected(looked string) (func(plan.Plan) error, error) {
	if looked == "" {
		return nil, nil
	}
	if digits.MatchString(looked) && !exists(looked) {
		return rotate.SameGrounds(looked), nil
	}
	data, err := readBounded(looked, "`fleetctl plan -o json` writes one", maxFile)
	if err != nil {
		return nil, err
	}
	var p plan.Plan
	if err := json.Unmarshal(data, &p); err != nil || p.Inputs == "" {
		return nil, hint.New(command.Usagef("--plan %s: it is no plan", looked), "`fleetctl plan -o json` writes one")
	}
	return rotate.SamePlan(p), nil
}

var digits = regexp.MustCompile(`^[0-9a-fA-F]{12,64}$`)

// first is the first word of how a machine proved that it restarted.
func first(how string) string {
	word, _, _ := strings.Cut(how, ":")
	return word
}

func served(r rotate.Result) int {
	n := 0
	for _, s := range r.Servers {
		if s.State == inventory.Serving {
			n++
		}
	}
	return n
}
