package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/policies/trust"
)

// How many others must approve a change.
const (
	approvalsPlain = 1
	approvalsDeep  = 2
)

// Implementation limits of approvals.
const (
	maxNote  = trust.MaxSignatureBytes // bytes of a note
	maxNotes = 8                       // notes of one commit
)

// People are whose signatures count: the name by the key, "TYPE BASE64". A person with several keys is one person.
type People map[string]string

func (p People) owner(key ssh.PublicKey) (string, bool) {
	name, ok := p[trust.FormatKey(key)]
	return name, ok && name != ""
}

// Rule is what a history has to keep. Its zero value passes nothing.
type Rule struct {
	Fleet  string
	People People
	From   string   // the commit that is believed: everything after it is checked
	Deep   []string // paths that two others approve: files, and directories with all in them
}

func (r Rule) deep(path string) bool {
	return slices.ContainsFunc(r.Deep, func(d string) bool {
		d = strings.TrimSuffix(d, "/")
		return d != "" && (path == d || strings.HasPrefix(path, d+"/"))
	})
}

// Checked is what was found of one commit.
type Checked struct {
	Commit    string   `json:"commit"`
	Subject   string   `json:"subject"`
	Signer    string   `json:"signer,omitempty"`
	Approvers []string `json:"approvers"` // others than the signer
	Deep      []string `json:"deep,omitempty"`
	Reason    Reason   `json:"reason,omitempty"` // it does not pass
	Text      string   `json:"text,omitempty"`
}

// Report is what was found of a history, oldest commit first.
type Report struct {
	From    string    `json:"from"`
	To      string    `json:"to"`
	Commits []Checked `json:"commits"`
	Refused int       `json:"refused"` // commits that do not pass
}

// Verify checks every commit that can be reached from a revision and not from rule.From. Commits that do not pass are in the report, and
// make it an error as well: the first one's *Refusal. progress, if it is not nil, is told how many are done.
func (r *Repository) Verify(ctx context.Context, rule Rule, revision string, progress func(done, all int)) (report Report, err error) {
	if rule.Fleet == "" || rule.From == "" || len(rule.People) == 0 {
		return Report{}, errors.New("checking a history: no fleet, no first commit or no people")
	}
	if report.From, err = r.Commit(ctx, rule.From); err != nil {
		return report, err
	}
	if report.To, err = r.Commit(ctx, revision); err != nil {
		return report, err
	}
	notes, err := r.approvals(ctx)
	if err != nil {
		return report, fmt.Errorf("reading the approvals: %w", err)
	}
	o, err := r.objects(ctx)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	v := verifier{rule: rule, contents: newContents(o), notes: notes}
	ids, err := v.between(ctx, report.From, report.To)
	if err != nil {
		return report, err
	}
	var first *Refusal
	for i, id := range ids {
		checked, refused, err := v.check(id)
		if err != nil {
			return report, fmt.Errorf("checking commit %s: %w", short(id), err)
		}
		if refused != nil {
			checked.Reason, checked.Text = refused.Reason, refused.Text
			report.Refused++
			if first == nil {
				first = refused
			}
		}
		report.Commits = append(report.Commits, checked)
		if progress != nil {
			progress(i+1, len(ids))
		}
	}
	if first != nil {
		return report, first
	}
	return report, nil
}

// Change returns what an approval of a commit signs, and who signed the commit.
func (r *Repository) Change(ctx context.Context, fleet, id string, people People) (c Change, signer string, err error) {
	o, err := r.objects(ctx)
	if err != nil {
		return Change{}, "", err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	v := verifier{contents: newContents(o)}
	commit, err := v.read(id)
	if err != nil {
		return Change{}, "", err
	}
	if signer, err = commit.signer(people); err != nil {
		return Change{}, "", err
	}
	content, err := v.contents.digest(commit)
	return Change{fleet, id, content}, signer, err
}

// verifier checks one commit after the other.
type verifier struct {
	rule     Rule
	contents contents
	notes    map[string][]string
}

func (v *verifier) read(id string) (*commit, error) {
	data, err := v.contents.objects.content(id, "commit", maxCommit)
	if errors.Is(err, errTooLong) {
		return nil, refuse(Malformed, id, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	c, err := parseCommit(id, data)
	if err != nil {
		return nil, refuse(Malformed, id, "%v", err)
	}
	return c, nil
}

// check returns what it found, and a refusal if the commit does not pass; an error is about the repository.
func (v *verifier) check(id string) (Checked, *Refusal, error) {
	found := Checked{Commit: id, Approvers: []string{}}
	fail := func(err error) (Checked, *Refusal, error) {
		var refused *Refusal
		if errors.As(err, &refused) {
			return found, refuse(refused.Reason, id, "%s", refused.Text), nil
		}
		return found, nil, err
	}
	c, err := v.read(id)
	if err != nil {
		return fail(err)
	}
	found.Subject = c.subject
	if found.Deep, err = v.deepPaths(c); err != nil {
		return fail(err)
	}
	if found.Signer, err = c.signer(v.rule.People); err != nil {
		return fail(err)
	}
	content, err := v.contents.digest(c)
	if err != nil {
		return fail(err)
	}
	names, rejected, err := v.approvedBy(Change{v.rule.Fleet, id, content})
	if err != nil {
		return fail(err)
	}
	for _, name := range names {
		if name != found.Signer { // nobody approves what is their own
			found.Approvers = append(found.Approvers, name)
		}
	}
	need, reason, what := approvalsPlain, NotApproved, "one other person"
	if len(found.Deep) > 0 {
		need, reason, what = approvalsDeep, DeepNotApproved, fmt.Sprintf("two other people, since it touches %q", found.Deep[0])
	}
	if len(found.Approvers) < need {
		text := fmt.Sprintf("by %s, approved by %d: it takes %s", found.Signer, len(found.Approvers), what)
		if len(rejected) > 0 {
			text += "; not counted: " + strings.Join(rejected, "; ")
		}
		return found, refuse(reason, id, "%s", text), nil
	}
	return found, nil, nil
}

// approvedBy reads a commit's notes. One that is too long adds nothing.
func (v *verifier) approvedBy(c Change) (names, rejected []string, err error) {
	for _, id := range v.notes[c.Commit] {
		note, err := v.contents.objects.content(id, "blob", maxNote)
		if errors.Is(err, errTooLong) {
			rejected = append(rejected, err.Error())
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		more, why := approvers(v.rule.People, c, note)
		rejected = append(rejected, why...)
		for _, name := range more {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, rejected, nil
}

// maxDeep is how many deep paths of a commit are named.
const maxDeep = 16

// deepPaths are the deep paths that a commit changes. What differs from any of a merge's parents is changed by the merge: a merge can undo, by
// taking one side, as well as it can bring something new.
func (v *verifier) deepPaths(c *commit) (deep []string, err error) {
	if len(v.rule.Deep) == 0 {
		return nil, nil
	}
	before := []string{""} // of a commit without parents
	if len(c.parents) > 0 {
		before = nil
	}
	for _, id := range c.parents {
		parent, err := v.read(id)
		if err != nil {
			return nil, err
		}
		before = append(before, parent.tree)
	}
	for _, tree := range before {
		err := v.contents.changed(tree, c.tree, "", 0, func(path string) {
			if len(deep) < maxDeep && v.rule.deep(path) && !slices.Contains(deep, path) {
				deep = append(deep, path)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return deep, nil
}
