package signer

import (
	"fmt"
	"path/filepath"
	"sync"

	"mayfly/internal/durable"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/uki"
)

// images keeps what the newest unified kernel image that was asked for makes registers hold: a fleet boots one at a time, and to read it takes a while.
type images struct {
	mu     sync.Mutex // guards the rest
	sha256 string
	is     *uki.Registers
}

// of returns it for the image that people signed, which lies beside the files that the boot port serves.
func (i *images) of(root string, t *ticket.Ticket, signed *release.Part) (*uki.Registers, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.is != nil && i.sha256 == signed.SHA256 {
		return i.is, nil
	}
	dir, err := releaseDir(root, t)
	if err != nil {
		return nil, err
	}
	data, err := durable.ReadRegular(filepath.Join(dir, release.UKIFile), uki.MaxImage)
	if err != nil {
		return nil, fmt.Errorf("reading the image of the release of the ticket for %q: %w", t.Server, err)
	}
	if sum(data) != signed.SHA256 {
		return nil, join.Refuse(release.PartAltered, "%s beside the boot port's files is not the one that was signed", release.UKIFile)
	}
	is, err := uki.Measure(data)
	if err != nil {
		return nil, fmt.Errorf("the image of the release of the ticket for %q: %w", t.Server, err)
	}
	i.sha256, i.is = signed.SHA256, is
	return is, nil
}

// releaseDir is where a ticket's release lies below DIR/public.
func releaseDir(root string, t *ticket.Ticket) (string, error) {
	path, ok := releasePath(*t)
	if !ok {
		return "", join.Refuse(join.RequestInvalid, "the mirrors name no release below the controller's boot port")
	}
	return filepath.Join(root, "public", filepath.FromSlash(filepath.Clean("/"+path))), nil
}
