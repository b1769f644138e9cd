package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
)

// controllerFlags are what the orders of a controller need to be told.
type controllerFlags struct {
	servers, csr, backup *string
	release              *uint64
	run                  *int64
}

func controllerFlagsOf(fs *flag.FlagSet) controllerFlags {
	return controllerFlags{
		servers: fs.String("servers", "", "rotate: `names`, with commas between"),
		csr:     fs.String("csr", "", "page: `file` of the certificate request, PEM"),
		backup:  fs.String("backup", "", "restore: `file` of the backup"),
		release: fs.Uint64("release", 0, "rotate, image-use: `version` (rotate: the one in use, if not given)"),
		run:     fs.Int64("run", 0, "pause cancel: `number` of the run"),
	}
}

// pageOrder is the order for a certificate for the page.
func pageOrder(fs *flag.FlagSet, engineer, csrFile string, length time.Duration) (request.Order, error) {
	given := false
	fs.Visit(func(f *flag.Flag) { given = given || f.Name == "for" })
	if !given {
		length = signer.PageLife
	}
	if csrFile == "" {
		return request.Order{}, command.Usagef("page needs --csr")
	}
	if err := pageSpan(length); err != nil {
		return request.Order{}, err
	}
	csr, err := readCSR(csrFile)
	if err != nil {
		return request.Order{}, err
	}
	return signer.PageOrder(engineer, csr, length)
}

// controllerOrder is the order for what a controller's verb does, of the servers and the release as they are now.
func (d state) controllerOrder(ctx context.Context, c *command.Call, action, subject string, flags controllerFlags, b *bundle.Bundle) (o request.Order, err error) {
	switch action {
	case policies.ActionPause:
		switch subject {
		case request.SubjectPause:
			return request.Pause(), nil
		case request.SubjectResume:
			return request.Resume(), nil
		case request.SubjectCancel:
			return request.Cancel(*flags.run), nil
		}
		return o, command.Usagef("pause takes pause, resume or cancel, got %q", subject)
	case policies.ActionRestore:
		digest, err := fileDigest(*flags.backup)
		return request.Restore(digest), err
	}
	r, err := d.releaseOf(ctx, c, *flags.release)
	if err != nil {
		return o, err
	}
	if action == policies.ActionImageUse {
		digest := hex.EncodeToString(r.Digest[:])
		switch subject {
		case request.SubjectUse:
			return request.ImageUse(r.Statement.Version, digest), nil
		case request.SubjectBad:
			return request.ImageBad(r.Statement.Version, digest), nil
		}
		return o, command.Usagef("image-use takes use or bad, got %q", subject)
	}
	if action == policies.ActionEmergency {
		if subject != "" && subject != request.ModeEmergency {
			return o, command.Usagef("rotate-emergency takes no MODE")
		}
		subject = request.ModeEmergency
	} else if subject == request.ModeEmergency {
		return o, command.Usagef("an emergency is an action of its own: rotate-emergency")
	}
	var names []string
	if *flags.servers != "" {
		names = strings.Split(*flags.servers, ",")
	}
	known, err := d.servers(ctx, c)
	if err != nil {
		return o, err
	}
	return rotation(subject, names, b, r, known), namedServers(names, b, known)
}

// namedServers refuses a server that is not in the signed inventory.
func namedServers(names []string, b *bundle.Bundle, known []store.Server) error {
	for _, name := range names {
		if _, ok := b.Inventory.RebuiltServer(name); !ok && !slices.ContainsFunc(known, func(s store.Server) bool { return s.Name == name }) {
			return hint.New(command.Usagef("no such server: %q", name), "`fleetctl status` lists them")
		}
	}
	return nil
}

// releaseOf reads a release, with its signatures, as the verb that acts will; 0 is the one in use.
func (d state) releaseOf(ctx context.Context, c *command.Call, version uint64) (r rotate.Release, err error) {
	if version == 0 {
		g, err := d.grounds(ctx, c, time.Now())
		return g.release, err
	}
	t, _, err := d.trust()
	if err != nil {
		return r, err
	}
	s, data, err := releaseStatement(t, d.releaseDir(strconv.FormatUint(version, 10)), time.Now())
	if err != nil {
		return r, err
	}
	if s.Version != version {
		return r, command.Refuse(fmt.Errorf("release %d says version %d", version, s.Version))
	}
	return rotate.Release{Statement: *s, Digest: sha256.Sum256(data), Data: data}, nil
}

// fileDigest is the SHA-256 of a file of any length.
func fileDigest(path string) (string, error) {
	if path == "" {
		return "", command.Usagef("restore needs --backup")
	}
	f, err := openFile(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}
