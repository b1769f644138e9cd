package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/renewal"
	"mayfly/policies/request"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
)

var certifyVerb = command.Verb{
	Name:    "certify",
	Args:    "--dir DIR [--bastion NAME] --key HOSTKEY.pub [--request FILE] [--out FILE] [--renew] [--wait DURATION]",
	Summary: "have a bastion's SSH host key certified by the signer",
	Help: `Asks the signer, which has to run, for an SSH host certificate of a bastion that the signed inventory names, and writes it
beside the key (HOSTKEY-cert.pub) or to --out. Servers get theirs when they join; this is for bastions only.

A key that is not this bastion's yet takes a signed request ("fleetctl request make certify"; --sign where one person is enough). The same key again takes none.

A certificate lasts an hour. The key becomes the one that the bastion may renew by itself from then on ("bastion renew", over the
controller's join port). --renew goes on here instead, and renews when half of the hour has passed: for a bastion on the signer's own
host, where there is no controller. --wait lets a signer that was started at the same time get ready.

Example:

  fleetctl certify --dir lab --bastion bastion-1 --key bastion/host_key.pub`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		bastion := fs.String("bastion", "", "`name` in the inventory (default: the only one)")
		key := fs.String("key", "", "`file` of the bastion's public host key")
		leave := leaveFlagsOf(fs)
		renew := fs.Bool("renew", false, "go on renewing until interrupted")
		out := fs.String("out", "", "`file` of the certificate (default: the key's name with -cert.pub)")
		wait := fs.Duration("wait", 0, "`time` to wait for a signer that does not answer yet")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *key == "" {
			return command.Usagef("--key is needed")
		}
		if err := leave.check(); err != nil {
			return err
		}
		if *bastion == "" {
			f, err := state(*dir).namedFleet(ctx, time.Now())
			if err != nil {
				return err
			}
			if len(f.Bastions) != 1 {
				return command.Usagef("--bastion is needed: the fleet has %d", len(f.Bastions))
			}
			*bastion = f.Bastions[0].Name
		}
		public, err := readHostKey(*key)
		if err != nil {
			return err
		}
		var by *request.Signed
		if *leave.key != "" || *leave.file != "" {
			_, b, err := state(*dir).decides(ctx, time.Now())
			if err != nil {
				return err
			}
			if by, err = leave.take(c, b, request.Certify(*bastion, trust.FormatKey(public)), time.Now()); err != nil {
				return err
			}
		}
		if *out == "" {
			*out = strings.TrimSuffix(*key, ".pub") + "-cert.pub"
		}
		keys := signer.Dial(*dir)
		certify := func(ctx context.Context) (time.Time, error) {
			line, without, err := keys.Host(ctx, *bastion, trust.FormatKey(public), by)
			if err != nil {
				return time.Time{}, fmt.Errorf("certifying %s: %w", *bastion, needsSigner(err))
			}
			if without {
				warnWithout(c)
			}
			return writeCertificate(*out, line)
		}
		end, err := certifyWithin(ctx, *wait, certify)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.Stdout, *out)
		if *renew {
			log := logger(c.Stderr)
			renewal.Keep(ctx, renewal.Due(time.Now(), end), certify, func(err error, pause time.Duration) {
				log.Error("the host certificate was not renewed", "error", err, "hint", hint.Of(err), "again_in", pause.Round(time.Second))
			})
		}
		return nil
	},
}

// signerPause is the pause between two questions to a signer that is not there yet.
const signerPause = 200 * time.Millisecond

// certifyWithin asks again while there is no signer, until limit has passed. What a signer refuses is final.
func certifyWithin(ctx context.Context, limit time.Duration, certify func(context.Context) (time.Time, error)) (time.Time, error) {
	for late := time.Now().Add(limit); ; {
		end, err := certify(ctx)
		absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
		if !absent || !time.Now().Add(signerPause).Before(late) {
			return end, err
		}
		select {
		case <-ctx.Done():
			return end, err
		case <-time.After(signerPause):
		}
	}
}

// writeCertificate puts a host certificate in place and says when it ends.
func writeCertificate(path, line string) (end time.Time, err error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	certificate, ok := key.(*ssh.Certificate)
	if err != nil || !ok {
		return time.Time{}, errors.New("the signer's answer is no certificate")
	}
	end = time.Unix(int64(min(certificate.ValidBefore, 1<<40)), 0)
	return end, durable.WriteFile(path, []byte(strings.TrimSpace(line)+"\n"), 0o644)
}

// needsSigner names the mend when the signer does not answer and the client did not say so.
func needsSigner(err error) error {
	if err == nil || hint.Of(err) != "" {
		return err
	}
	if r, ok := join.IsRefusal(err); ok {
		switch r.Reason {
		case join.ControllerFailed:
			return hint.New(err, "the signer's own log says why (journalctl); all in DIR/signer has to belong to the signer's user")
		case join.BundleMissing:
			return hint.New(err, "the signer goes by its own DIR/bundle.json and .sig: bring the newest signed bundle there too")
		case join.NotInInventory:
			return hint.New(err, "--bastion takes the name of a bastion in the signed inventory: the [[bastion]] tables of fleet.toml have them")
		}
		return mendRequest(err)
	}
	return hint.New(err, "is `fleetctl signer --dir DIR` running?")
}
