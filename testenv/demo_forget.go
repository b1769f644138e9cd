package main

import (
	"context"
	"fmt"
)

// forget sees that nothing of the old lives is left: not in the new machines' memory, not in any file on this side.
func (d *demo) forget(ctx context.Context) error {
	words, names := d.wordsOf()
	for _, m := range machines {
		d.r.check("no canary left in "+m.Name, func() (string, error) {
			found, size, err := d.searchMemory(ctx, m.Name, words)
			if err != nil {
				return "", err
			}
			for w := range found {
				return "", fmt.Errorf("found %s", names[w])
			}
			return fmt.Sprintf("%d words searched for in %.0f MB of memory", len(words), mb(size)), nil
		})
		d.r.check("host key, tunnel key and boot id of "+m.Name+" are new", func() (string, error) {
			id, err := d.identify(ctx, m.Name)
			if err != nil {
				return "", err
			}
			if err := id.differs(d.before[m.Name]); err != nil {
				return "", err
			}
			return "asked on the wire, and the store says the same", nil
		})
	}
	d.r.check("no canary in any file of controller, bastion or machines", func() (string, error) {
		where, files, err := searchFiles(d.e.dir, words)
		if err != nil {
			return "", err
		}
		for w, path := range where {
			return "", fmt.Errorf("found %s in %s", names[w], path)
		}
		return fmt.Sprintf("%d files searched", files), nil
	})
	d.ledger(ctx)
	return nil
}
