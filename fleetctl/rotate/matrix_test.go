package rotate

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"

	"mayfly/inventory/store"
)

// matrix is where a process ended, what the next one found and did, and what came of it: a table in the test's log.
type matrix struct{ rows [][4]string }

func (m *matrix) add(at, found, did, result string) {
	m.rows = append(m.rows, [4]string{at, found, did, result})
}

func (m *matrix) log(t *testing.T, title string) {
	t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tPOINT\tTHE NEXT PROCESS FOUND\tIT DID\tRESULT")
	for i, r := range m.rows {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", i+1, r[0], r[1], r[2], r[3])
	}
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	t.Logf("%s\n%s", title, b.String())
}

// left is how a store looks when its process is gone: each server's state, life and last record, and whether the run is open.
func left(ctx context.Context, t *testing.T, s store.Store) string {
	t.Helper()
	run := "no run"
	if _, open, err := s.OpenRun(ctx); err != nil {
		t.Error(err)
	} else if open {
		run = "run open"
	}
	words := []string{run}
	servers, err := s.Servers(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, x := range servers {
		entries, err := s.Journal(ctx, x.Name)
		if err != nil {
			t.Error(err)
		}
		last := "nothing"
		if n := len(entries); n > 0 {
			last = fmt.Sprintf("%s %s of life %d", entries[n-1].Step, entries[n-1].Outcome, entries[n-1].Epoch)
		}
		words = append(words, fmt.Sprintf("%s %s in life %d, recorded %s", x.Name, x.State, x.Epoch, last))
	}
	return strings.Join(words, "; ")
}

// did picks what a process said of going on.
func did(talk string) string {
	var all []string
	for line := range strings.Lines(talk) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "fleetctl: rotate: ")
		for _, word := range []string{": goes on, ", " goes on: ", "servers to rebuild", "interrupted while booting", ": booting life"} {
			if strings.Contains(line, word) {
				all = append(all, strings.TrimSuffix(line, ": it finishes what it began; what else is due waits for the next rotate"))
				break
			}
		}
	}
	if len(all) == 0 {
		return "nothing: all was done"
	}
	return strings.Join(all, "; ")
}
