package history

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

// Specification constants, docs/formats/history.md.
const (
	Notes     = "refs/notes/mayfly-approvals" // where approvals stand
	Namespace = "mayfly-change"               // of their signatures
)

// Change is what an approval approves.
type Change struct {
	Fleet   string `json:"fleet"`
	Commit  string `json:"commit"`
	Content string `json:"content"` // SHA-256 of what its tree holds
}

// Message is what an approver signs.
func (c Change) Message() []byte {
	return fmt.Appendf(nil, "mayfly-change/1\nfleet %s\ncommit %s\ncontent %s\n", c.Fleet, c.Commit, c.Content)
}

// approvals finds the notes: the ids of the notes' objects by the commit's. There can be several: git spreads many notes over directories.
func (r *Repository) approvals(ctx context.Context) (map[string][]string, error) {
	notes := map[string][]string{}
	if _, err := r.run(ctx, nil, maxSaid, "rev-parse", "--verify", "--quiet", Notes); err != nil {
		return notes, nil // nobody has approved anything
	}
	list, err := r.run(ctx, nil, maxTree, "ls-tree", "-r", "-z", "--full-tree", Notes)
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		about, path, _ := strings.Cut(line, "\t")
		commit := strings.ReplaceAll(path, "/", "")
		if parts := strings.Fields(about); len(parts) == 3 && parts[1] == "blob" && isID(commit) && len(notes[commit]) < maxNotes {
			notes[commit] = append(notes[commit], parts[2])
		}
	}
	return notes, nil
}

// approvers are the people who signed a change, each once, in the order of their signatures. What else stands in a note adds nothing and spoils nothing,
// unless there is too much of it.
func approvers(people People, c Change, note []byte) (names, rejected []string) {
	blocks, err := sshsig.Split(note, trust.MaxSignatures)
	if err != nil {
		return nil, []string{err.Error()}
	}
	counted := map[string]bool{}
	for i, block := range blocks {
		reject := func(format string, args ...any) {
			rejected = append(rejected, fmt.Sprintf("signature %d: ", i+1)+fmt.Sprintf(format, args...))
		}
		s, err := sshsig.Parse(block)
		if err != nil {
			reject("%v", err)
			continue
		}
		name, ok := people.owner(s.Key())
		if !ok {
			reject("%s is nobody's enrolled key", ssh.FingerprintSHA256(s.Key()))
			continue
		}
		if err := s.Verify(Namespace, c.Message()); err != nil {
			reject("by %s: %v", name, err)
			continue
		}
		if !counted[name] {
			counted[name] = true
			names = append(names, name)
		}
	}
	return names, rejected
}

// Approve puts a person's approval into the commit's note.
func (r *Repository) Approve(ctx context.Context, c Change, signer ssh.Signer) error {
	block, err := sshsig.Sign(signer, Namespace, c.Message())
	if err != nil {
		return fmt.Errorf("signing the approval of %s: %w", short(c.Commit), err)
	}
	_, err = r.run(ctx, strings.NewReader(string(block)), maxSaid, "-c", "user.name=mayfly", "-c", "user.email=approvals@mayfly.invalid", "-c", "commit.gpgSign=false",
		"notes", "--ref", Notes, "append", "-F", "-", c.Commit)
	return err
}
