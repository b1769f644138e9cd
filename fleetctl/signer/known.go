package signer

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mayfly/inventory/store"
	"mayfly/rebuild/ticket"
)

// Lives reads what the signer of this state directory knows, by server, whether it runs or not. A file that cannot be read is an error: of a
// life that nobody knows nothing is guessed.
func Lives(dir string) (map[string]store.Admitted, error) {
	l := &lives{dir: filepath.Join(dir, keyDir, livesDir)}
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	all := make(map[string]store.Admitted, len(files))
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue // a file that a crash left behind before it had its name
		}
		v, err := l.load(name)
		if err != nil {
			return nil, err
		}
		all[name] = store.Admitted{Server: name, Epoch: v.Epoch, Signed: v.Signed, TLSKey: v.TLSKey, HostKey: v.HostKey, TunnelKey: v.TunnelKey, BootID: v.BootID, Evidence: v.Evidence,
			Release: v.Release, Began: v.Began, Joined: v.Joined, Ends: v.Ends, Held: v.Drained, Extended: v.Extended > 0, Revoked: v.Revoked}
	}
	return all, nil
}

// releaseOf is the version of the release that a ticket is for, as the ledger has it; "" without a ledger.
func (s *server) releaseOf(t *ticket.Ticket) string {
	if s.book == nil {
		return ""
	}
	s.book.releases.RLock()
	defer s.book.releases.RUnlock()
	if l, ok := s.book.byHash[t.Release]; ok {
		return strconv.FormatUint(l.statement.Version, 10)
	}
	return ""
}
