package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
)

// requestLife is how long a request is in force that is made and used at once. Implementation.
const requestLife = time.Hour

// leaveFlags are by whose leave a verb acts.
type leaveFlags struct {
	file, key, reason *string
	given             *request.Signed // what file holds
}

func leaveFlagsOf(fs *flag.FlagSet) *leaveFlags {
	return &leaveFlags{
		file:   fs.String("request", "", "`file` of a request that people have signed (fleetctl request make)"),
		key:    fs.String("sign", "", "`file` of your own public key in the agent: makes the request and signs it, where one person is enough"),
		reason: reasonFlag(fs),
	}
}

func reasonFlag(fs *flag.FlagSet) *string {
	return fs.String("reason", "", "`text` that every record of it shows")
}

// check refuses flags that do not go together, and reads the file: before root becomes the signer's user, who may not read it.
func (l *leaveFlags) check() (err error) {
	switch {
	case *l.file != "" && *l.key != "":
		return command.Usagef("--request or --sign, not both: `fleetctl request sign` adds a signature")
	case *l.key != "" && *l.reason == "":
		return command.Usagef("--sign needs --reason")
	case *l.file != "":
		l.given, err = readRequest(*l.file)
	}
	return err
}

// take returns the request that the flags give: one that was made before, one that is signed now, or none.
func (l *leaveFlags) take(c *command.Call, b *bundle.Bundle, o request.Order, now time.Time) (*request.Signed, error) {
	if *l.key == "" {
		return l.given, nil
	}
	r := request.New(b.Fleet, o, *l.reason, now, requestLife)
	data, err := r.Marshal()
	if err != nil {
		return nil, command.Usagef("%v", err)
	}
	sig, err := signRequest(c, b, data, *l.key)
	if err != nil {
		return nil, err
	}
	return &request.Signed{Data: data, Signatures: sig}, nil
}

// foresee asks what whoever acts will ask, so that nothing is begun that is refused at its end. It warns where nobody has to be asked.
func foresee(c *command.Call, b *bundle.Bundle, o request.Order, s *request.Signed, now, end time.Time) error {
	if _, err := request.Decide(b.Policy, b.Inventory, o, s, end); requestWord(err) == request.Expired {
		return mendRequest(fmt.Errorf("what this takes may last until %s: %w", end.UTC().Format(time.RFC3339), err))
	}
	d, err := request.Decide(b.Policy, b.Inventory, o, s, now)
	if err == nil && d.Request == nil {
		warnWithout(c)
	}
	return mendRequest(err)
}

// warnWithout says that nobody had to be asked.
func warnWithout(c *command.Call) {
	fmt.Fprintln(c.Stderr, "fleetctl: warning: TEST FLEET without [[operator]] in its policy: nobody had to sign for this, and its record says so")
}

// mendRequest names the mend of a refused request.
func mendRequest(err error) error {
	if err == nil || hint.Of(err) != "" {
		return err
	}
	reason := requestWord(err)
	if r, ok := join.IsRefusal(err); ok {
		reason = r.Reason
	}
	if mend := signer.RequestHint(reason); mend != "" {
		return hint.New(err, "%s", mend)
	}
	return err
}

// readRequest reads a request with the signatures beside it. What it says is not looked at.
func readRequest(path string) (*request.Signed, error) {
	data, err := readBounded(path, "`fleetctl request make` makes it", request.MaxSize)
	if err != nil {
		return nil, err
	}
	sigs, err := readSignatures(path)
	if err != nil {
		return nil, err
	}
	return &request.Signed{Data: data, Signatures: sigs}, nil
}

// signRequest shows a request to a person and signs it with that person's key, which has to count.
func signRequest(c *command.Call, b *bundle.Bundle, data []byte, keyFile string) ([]byte, error) {
	if len(b.Policy.Operators) == 0 { // a touch for nothing
		_, err := request.Decide(b.Policy, b.Inventory, request.Order{}, &request.Signed{Data: data}, time.Now())
		return nil, mendRequest(err)
	}
	s, err := loadSigner(keyFile, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return nil, err
	}
	if _, _, v := b.Policy.SignerOf(trust.FormatKey(s.PublicKey()), true); !v.Allow { // the signature itself is looked at below
		return nil, mendRequest(request.Refuse(request.KeyRefused, "%s: %s: %s", ssh.FingerprintSHA256(s.PublicKey()), v.Reason, v.Detail))
	}
	fmt.Fprintf(c.Stderr, "%s", data) // its one form, made to be read
	sig, err := sshsig.Sign(s, request.Namespace, data)
	if err != nil {
		return nil, fmt.Errorf("signing the request: %w", err)
	}
	if _, err := request.Signers(b.Policy, request.Signed{Data: data, Signatures: sig}); err != nil {
		return nil, mendRequest(err)
	}
	return sig, nil
}

// tellLeave warns where nobody had to be asked.
func tellLeave(c *command.Call, l *signer.Leave) {
	if l.Without {
		warnWithout(c)
	}
}

// leave is what the steps of the CAs go by: they verify it themselves.
func (d state) leave(ctx context.Context, c *command.Call, l *leaveFlags, o request.Order, now time.Time) (*signer.Leave, error) {
	_, b, err := d.decides(ctx, now)
	if err != nil {
		return nil, err
	}
	s, err := l.take(c, b, o, now)
	return &signer.Leave{Request: s}, err
}
