package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/request"
	"mayfly/policies/statement"
	"mayfly/policies/trust"
)

func (d state) requests() string { return d.path("requests") }

var requestMakeVerb = command.Verb{
	Name:    "request make",
	Args:    "ACTION [SUBJECT] --dir DIR --reason TEXT [--key FILE]",
	Summary: "write down what is to be done, for several people to sign",
	Help: `Writes a request: one order, for this fleet, once, for a bounded time. Engineers sign its bytes with their enrolled hardware keys (--key here,
then "fleetctl request sign"), as many as the policy's [[operator]] asks. Whoever may act gives it to the acting verb with --request; the
process that acts verifies it. Where one person is enough, the acting verb's own --sign does all of this.

Actions, and the verb that carries each out:

  drain SERVER --for 30m              drain SERVER --for 30m
  certify BASTION --host-key FILE     certify --bastion BASTION --key FILE
  ca-rotate                           ca rotate, as the CAs are now
  ca-retire FINGERPRINT               ca retire FINGERPRINT
  ca-override --overlap 1h            ca rotate --overlap 1h
  ca-override FINGERPRINT             ca retire --compromised FINGERPRINT
  rotate MODE [--servers se-1,se-2]   rotate in that mode: repave (--all), upgrade, single, retry, lost
  rotate-emergency [--servers …]      rotate in emergency, over floors and windows; two people
  pause pause|resume|cancel           pause, resume, cancel (--run N)
  image-use use|bad --release 7       image use 7, image bad 7
  restore --backup FILE               restore FILE; two people
  page ENGINEER --csr FILE --for 12h  page-certificate ENGINEER --csr FILE --for 12h
  secret NAME                         secret seal NAME

Example:

  fleetctl request make drain se-1 --dir lab --for 30m --reason "disk full" --key ~/.ssh/id_yubikey.pub`,
	Run: runRequestMake,
}

func runRequestMake(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	reason := reasonFlag(fs)
	length := fs.Duration("for", time.Hour, "drain: how `long` the engineer has, at most 1h; page: how long the certificate lasts, at most 12h")
	hostKey := fs.String("host-key", "", "certify: `file` of the bastion's public host key")
	more := controllerFlagsOf(fs)
	overlap := fs.Duration("overlap", 0, "ca-override: least `time` that the next CA was public")
	within := fs.Duration("within", requestLife, "how `long` the request is in force, at most 8h")
	key := fs.String("key", "", "`file` of your own public key in the agent, to sign it at once")
	out := fs.String("out", "", "`file` of the request (default: in DIR/requests)")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if *reason == "" || fs.NArg() < 1 || fs.NArg() > 2 {
		return command.Usagef("ACTION, SUBJECT where it has one, and --reason are needed")
	}
	if *within < time.Second || *within > request.MaxLife || *within%time.Second != 0 {
		return command.Usagef("--within %s: it is 1s to %s, in whole seconds", *within, request.MaxLife)
	}
	d, now := state(*dir), time.Now()
	_, b, err := d.decides(ctx, now)
	if err != nil {
		return err
	}
	var o request.Order
	switch action, subject := fs.Arg(0), fs.Arg(1); action {
	case policies.ActionDrain:
		if err := span(*length, statement.MaxDrained-policies.DrainedMargin); err != nil {
			return err
		}
		o = request.Drain(subject, *length)
	case policies.ActionCertify:
		public, err := readHostKey(*hostKey)
		if err != nil {
			return err
		}
		o = request.Certify(subject, trust.FormatKey(public))
	case policies.ActionCARetire:
		o = signer.RetireOrder(subject, false)
	case policies.ActionCARotate, policies.ActionCAOverride:
		if subject != "" {
			if action == policies.ActionCARotate {
				return command.Usagef("ca-rotate takes no SUBJECT: the next step is the one that `fleetctl ca list` shows")
			}
			o = signer.RetireOrder(subject, true)
			break
		}
		if o, err = d.rotateOrder(action, *overlap); err != nil {
			return err
		}
	case policies.ActionPage:
		if o, err = pageOrder(fs, subject, *more.csr, *length); err != nil {
			return err
		}
	case policies.ActionSecret:
		o = request.Secret(subject)
	case policies.ActionRotate, policies.ActionEmergency, policies.ActionPause, policies.ActionImageUse, policies.ActionRestore:
		if o, err = d.controllerOrder(ctx, c, action, subject, more, b); err != nil {
			return err
		}
	default:
		return command.Usagef("there is no action %q: %s", action, strings.Join(policies.Actions, ", "))
	}
	r := request.New(b.Fleet, o, *reason, now, *within)
	data, err := r.Marshal()
	if err != nil {
		return command.Usagef("%v", err)
	}
	var sig []byte
	if *key != "" {
		if sig, err = signRequest(c, b, data, *key); err != nil {
			return err
		}
	}
	path := *out
	if path == "" {
		path = filepath.Join(d.requests(), fmt.Sprintf("%s-%s.json", o.Action, r.Nonce[:8]))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the directory of requests: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return command.Refuse(hint.New(fmt.Errorf("%s exists", path), "another --out; `fleetctl request sign` signs what is there"))
	}
	if sig != nil {
		if err := durable.WriteFile(signatures(path), sig, 0o644); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, path)
	return tellRequest(c, b.Policy, r, request.Signed{Data: data, Signatures: sig})
}

// rotateOrder is the order for the next step of the host CAs as they are now.
func (d state) rotateOrder(action string, overlap time.Duration) (request.Order, error) {
	l, err := d.hostCAs()
	if err != nil {
		return request.Order{}, err
	}
	next := l.Find(signer.CANext)
	switch {
	case action == policies.ActionCAOverride && next < 0:
		return request.Order{}, command.Refuse(hint.New(errors.New("there is no next CA whose time could be cut short"), "name the FINGERPRINT of a CA that is in other hands; `fleetctl ca list` shows them"))
	case action == policies.ActionCAOverride:
		return request.CAHurry(l.CAs[next].Fingerprint(), overlap), nil
	case next < 0:
		return request.CARotate(request.NewCA), nil
	}
	return request.CARotate(l.CAs[next].Fingerprint()), nil
}

// readHostKey reads a public host key.
func readHostKey(path string) (ssh.PublicKey, error) {
	if path == "" {
		return nil, command.Usagef("--host-key is needed")
	}
	data, err := read(path, "`ssh-keygen -t ed25519` makes a host key; give its .pub")
	if err != nil {
		return nil, err
	}
	public, _, _, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, hint.New(fmt.Errorf("%s is not one public key", path), "give the host key's .pub")
	}
	return public, nil
}
