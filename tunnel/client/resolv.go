package client

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"mayfly/internal/durable"
)

// resolver points a resolv.conf at the tunnel's resolver and puts the old one back. The file is written in place, because it is
// often a bind mount. The old text also lies beside it, so that a client that was killed does not leave its own behind for good.
type resolver struct {
	path   string
	saved  []byte
	absent bool // there was none
	taken  bool
}

// resolvMark begins every text of ours.
const resolvMark = "# written by tunnel client;"

func (r *resolver) backup() string { return r.path + ".before-mayfly" }

// point makes dns the only name server.
func (r *resolver) point(dns netip.Addr) error {
	if r.path == "" {
		return nil
	}
	if !r.taken {
		if err := r.save(); err != nil {
			return fmt.Errorf("saving %s: %w", r.path, err)
		}
		r.taken = true
	}
	text := fmt.Sprintf("%s the old text, if there was one, is in %s\nnameserver %s\n", resolvMark, r.backup(), dns)
	if err := os.WriteFile(r.path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("pointing the resolver at the tunnel: %w", err)
	}
	return nil
}

func (r *resolver) save() error {
	old, err := os.ReadFile(r.backup()) // of a client that was killed
	if err == nil {
		r.saved = old
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.saved, err = os.ReadFile(r.path); errors.Is(err, fs.ErrNotExist) {
		r.absent = true
		return nil
	} else if err != nil {
		return err
	}
	if bytes.HasPrefix(r.saved, []byte(resolvMark)) {
		r.absent = true // ours, of a killed client that found none
		return nil
	}
	return durable.WriteFile(r.backup(), r.saved, 0o644)
}

// restore puts the old text back.
func (r *resolver) restore() error {
	if !r.taken {
		return nil
	}
	r.taken = false
	if r.absent {
		if err := os.Remove(r.path); err != nil {
			return fmt.Errorf("putting the resolver back: %w", err)
		}
		return nil
	}
	if err := os.WriteFile(r.path, r.saved, 0o644); err != nil {
		return fmt.Errorf("putting the resolver back: %w", err)
	}
	if err := os.Remove(r.backup()); err != nil {
		return fmt.Errorf("removing the resolver's backup: %w", err)
	}
	return nil
}
