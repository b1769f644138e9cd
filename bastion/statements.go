package bastion

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/statement"
	"mayfly/policies/trust"
)

// Implementation constants of the directory of statements.
const (
	statementPoll    = 500 * time.Millisecond // what is removed is out of force within this and the time to look
	maxStatements    = 512                    // files that count, the newest ones
	maxDirectory     = 8192                   // entries that are looked at
	statementSuffix  = ".json"
	statementsExceed = "statements_too_many"
	statementTwice   = "statement_twice"
	statementUnread  = "statement_unreadable"
)

// Outcomes of a statement's record.
const (
	statementAccepted = "accepted"
	statementRefused  = "refused"
	statementRemoved  = "removed"
)

// statementRecord says once what became of a statement.
type statementRecord struct {
	Outcome string    `json:"outcome"`
	File    string    `json:"file"`
	SHA256  string    `json:"sha256,omitempty"` // of the statement, without its signatures
	Kind    string    `json:"kind,omitempty"`
	ID      string    `json:"id,omitempty"`
	For     string    `json:"for,omitempty"` // engineer, break-glass identity or server
	By      []string  `json:"by,omitempty"`  // who signed, where these are people
	Text    string    `json:"text,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Reason  string    `json:"reason,omitempty"` // why it is refused
	Detail  string    `json:"detail,omitempty"`
	Cut     int       `json:"cut,omitempty"` // sessions and targets that ended with its removal
}

// statementFile is a statement as it was read.
type statementFile struct {
	name   string
	sum    string // of statement and signatures
	opened statement.Opened
	record statementRecord
}

// statementDir is the directory as it was last read. It belongs to the goroutine that watches it.
type statementDir struct {
	path, trust string
	chain       string                                         // of trust policies; empty: beside the first
	seen        map[string][2]fileStamp                        // by name; "" is the trust policy, and the policy's version
	files       []statementFile                                // whose signatures verify
	told        map[string]string                              // by name: what was last said of it
	failed      string                                         // the last error, said once
	kept        map[string]keptStatement                       // by name: what was read, and need not be read again
	reads       int                                            // of files, for tests
	retry       time.Time                                      // when to read again although nothing changed, since a file could not be read; zero: not
	readFile    func(path string, limit int64) ([]byte, error) // nil: readRegular
}

// keptStatement is a statement whose signatures verified, as long as neither its files nor the trust policy change.
type keptStatement struct {
	stamps, trust [2]fileStamp
	file          statementFile
}

// place is where whom to believe comes from. What is remembered of it is the policy's reload to see to.
func (d *statementDir) place() trustPlace { return trustPlace{root: d.trust, chain: d.chain} }

// open reads a statement, or returns it as it was read before. One that was refused is read again each time.
func (d *statementDir) open(t *trust.Trust, name string, seen map[string][2]fileStamp, now time.Time) (statementFile, error) {
	by := [2]fileStamp{seen[""][0]}
	if k, ok := d.kept[name]; ok && k.stamps == seen[name] && k.trust == by && now.Before(statement.Expires(k.file.opened.Statement)) {
		return k.file, nil
	}
	d.reads++
	delete(d.kept, name)
	f, err := openStatement(t, filepath.Join(d.path, name), d.readFile, now)
	f.name = name
	f.record.File = escape(name, maxText)
	if err == nil {
		if d.kept == nil {
			d.kept = map[string]keptStatement{}
		}
		d.kept[name] = keptStatement{seen[name], by, f}
	}
	return f, err
}

// stamps lists what would make a difference, or says why the directory cannot be read.
func (d *statementDir) stamps(policy uint64) (map[string][2]fileStamp, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(maxDirectory)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("listing %s: %w", d.path, err)
	}
	all := map[string][2]fileStamp{"": {d.place().stamp(), {size: int64(policy)}}}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, statementSuffix) && !strings.HasPrefix(name, ".") {
			path := filepath.Join(d.path, name)
			all[name] = [2]fileStamp{stampOf(path), stampOf(path + ".sig")}
		}
	}
	return all, nil
}

func stampOf(path string) (s fileStamp) {
	if info, err := os.Lstat(path); err == nil {
		s = stampFrom(info)
	}
	return s
}

// look reads the directory if anything in it has changed, and returns the records of what is new. A directory that cannot be read has no
// statements: what cannot be seen is not in force.
func (d *statementDir) look(p policies.Policy, now time.Time) (records []statementRecord, changed bool, err error) {
	if d.path == "" {
		return nil, false, nil
	}
	seen, err := d.stamps(p.Version)
	if err == nil && d.seen != nil && maps.Equal(seen, d.seen) && (d.retry.IsZero() || now.Before(d.retry)) {
		return nil, false, nil
	}
	var files []statementFile
	if err == nil {
		var t *trust.Trust
		if t, _, err = d.place().load(); err == nil {
			files, records = d.read(t, p, seen, now)
		}
	}
	if err != nil && d.seen == nil && d.failed == err.Error() {
		return nil, false, nil
	}
	for _, old := range d.files {
		if !slices.ContainsFunc(files, func(f statementFile) bool { return f.name == old.name && f.sum == old.sum }) {
			r := old.record
			r.Outcome, r.Reason, r.Detail = statementRemoved, "", ""
			records = append(records, r)
		}
	}
	d.files, d.seen, d.failed = files, seen, ""
	if err != nil {
		d.seen, d.told, d.failed = nil, nil, err.Error()
	}
	return records, true, err
}

// read opens the newest statements, in the order of their names.
func (d *statementDir) read(t *trust.Trust, p policies.Policy, seen map[string][2]fileStamp, now time.Time) (files []statementFile, records []statementRecord) {
	names := slices.DeleteFunc(slices.Collect(maps.Keys(seen)), func(name string) bool { return name == "" })
	slices.SortFunc(names, func(a, b string) int {
		if c := seen[b][0].at.Compare(seen[a][0].at); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	told := map[string]string{}
	tell := func(r statementRecord, name, what string) {
		if told[name] = what; d.told[name] != what {
			records = append(records, r)
		}
	}
	if len(names) > maxStatements {
		tell(statementRecord{Outcome: statementRefused, File: escape(names[maxStatements], maxText), Reason: statementsExceed,
			Detail: fmt.Sprintf("%d files: the newest %d count", len(names), maxStatements)}, "", statementsExceed)
		names = names[:maxStatements]
	}
	slices.Sort(names)
	ids := map[string]bool{}
	d.retry = time.Time{}
	for _, name := range names {
		f, err := d.open(t, name, seen, now)
		if err == nil && ids[f.record.Kind+f.record.ID] {
			err = &statement.Refusal{Reason: statementTwice, Err: fmt.Errorf("another file is %s as well", f.record.ID)}
		}
		if err == nil {
			ids[f.record.Kind+f.record.ID] = true
			files = append(files, f)
			if list := statement.Collect([]statement.Opened{f.opened}).Approvals; len(list) > 0 {
				// Kept all the same: the next policy may see it otherwise.
				if v := p.DecideApproval(list[0], now); !v.Allow {
					err = &statement.Refusal{Reason: string(v.Reason), Err: errors.New(v.Detail)}
				}
			}
		}
		f.record.Outcome = statementAccepted
		var refused *statement.Refusal
		if errors.As(err, &refused) {
			f.record.Outcome, f.record.Reason, f.record.Detail = statementRefused, refused.Reason, escape(refused.Err.Error(), maxDetail)
			if refused.Reason == statement.Expired && f.opened.Statement != nil {
				files = append(files, f) // an approval that has ended is told apart from none
			}
		} else if unread(err) {
			f.record.Outcome, f.record.Reason, f.record.Detail = statementRefused, statementUnread, escape(err.Error(), maxDetail)
			d.retry = now.Add(retryFresh)
		} else if err != nil {
			f.record.Outcome, f.record.Reason, f.record.Detail = statementRefused, statement.Malformed, escape(err.Error(), maxDetail)
		}
		tell(f.record, name, f.sum+" "+f.record.Reason)
	}
	d.told = told
	maps.DeleteFunc(d.kept, func(name string, _ keptStatement) bool { _, there := slices.BinarySearch(names, name); return !there })
	return files, records
}

// openStatement reads one statement with its signatures.
func openStatement(t *trust.Trust, path string, read func(path string, limit int64) ([]byte, error), now time.Time) (f statementFile, err error) {
	if read == nil {
		read = readRegular
	}
	data, err := read(path, statement.MaxSize)
	if err != nil {
		return f, err
	}
	sigs, err := read(path+".sig", trust.MaxSignatureBytes)
	if errors.Is(err, fs.ErrNotExist) {
		sigs, err = nil, nil // unsigned, as Open will say
	}
	if err != nil {
		return f, err
	}
	sum := sha256.Sum256(data)
	f.record.SHA256 = hex.EncodeToString(sum[:])
	all := sha256.Sum256(append(slices.Clone(sum[:]), sigs...))
	f.sum = hex.EncodeToString(all[:])
	f.opened, err = statement.Open(t, data, sigs, now)
	if f.opened.Statement != nil {
		f.record.describe(f.opened)
	}
	return f, err
}

func (r *statementRecord) describe(o statement.Opened) {
	r.Kind, r.ID, r.Expires, r.By = statement.Kind(o.Statement), o.ID(), statement.Expires(o.Statement), o.Signers
	switch s := o.Statement.(type) {
	case statement.Approval:
		r.For, r.Text = s.Engineer, escape(s.Reason, maxDetail)
	case statement.BreakGlass:
		r.For, r.Text = s.Name, escape(s.Reason, maxDetail)
	case statement.Drained:
		r.For = s.Server
	}
}

// readRegular reads a regular file, and waits for nobody: not for the other end of a pipe either.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("reading %s: not a regular file", path))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("reading %s: larger than %d bytes", path, limit)
	}
	return data, err
}

// collected are the statements in the form of package policies.
func (d *statementDir) collected() policies.Statements {
	var list []statement.Opened
	for _, f := range d.files {
		list = append(list, f.opened)
	}
	return statement.Collect(list)
}

// take puts a ruling of new files in force, beside the statements that are in force already.
func (s *Server) take(next *ruling) *ruling {
	s.taking.Lock()
	defer s.taking.Unlock()
	r := *next
	if old := s.ruling.Load(); old != nil {
		r.statements = old.statements
	}
	s.ruling.Store(&r)
	return &r
}

// takeStatements puts statements in force beside the policy that is.
func (s *Server) takeStatements(list policies.Statements) *ruling {
	s.taking.Lock()
	defer s.taking.Unlock()
	r := *s.ruling.Load()
	r.statements = list
	s.ruling.Store(&r)
	return &r
}

// watchStatements keeps the statements in force as the directory has them, and decides live sessions again whenever time alone has
// changed a decision: at the end of a window, a statement or somebody's certificate, to the moment.
func (s *Server) watchStatements(ctx context.Context) {
	ticker := time.NewTicker(statementPoll)
	defer ticker.Stop()
	change := time.NewTimer(time.Hour)
	defer change.Stop()
	var of *ruling
	var next time.Time
	var expired uint64 // version that was said to have expired
	for {
		now := time.Now()
		s.lookAtStatements(now)
		r := s.ruling.Load()
		// Looked for each time: who comes in does not wake this loop, and is seen at the next tick.
		certificate := s.sessions.certificateEnd()
		if next := sooner(next, certificate); r == of && !next.IsZero() && !now.Before(next) {
			cut := s.sessions.decideAgain(r, now)
			if cut > 0 && now.Before(r.bundle.Expires) {
				s.log.Info("a window, a statement or a certificate has ended", "cut", cut)
			}
		}
		if r.bundle.Version != expired && !now.Before(r.bundle.Expires) {
			expired = r.bundle.Version
			s.policyExpired(r)
		}
		if r != of || !next.IsZero() && !now.Before(next) {
			s.glass(r, now)
			of, next = r, r.bundle.Policy.NextChange(r.statements, now)
		}
		if soon := sooner(next, certificate); soon.After(now) {
			change.Reset(soon.Sub(now))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-change.C:
		}
	}
}

// policyExpired says that nobody gets in until there is another policy: who was in was cut just now.
func (s *Server) policyExpired(r *ruling) {
	record := r.record("expired")
	s.log.Error("the policy has expired: nobody gets in", "version", record.Version, "expired", record.Expires, "hint", bundleHint(&bundle.Refusal{Reason: bundle.Expired}))
	s.append(eventPolicy, record)
	s.notify(noticePolicy, record)
}

// lookAtStatements reads the directory if it has changed, and tells what became of each statement, once.
func (s *Server) lookAtStatements(now time.Time) {
	records, changed, err := s.statements.look(s.ruling.Load().bundle.Policy, now)
	if err != nil {
		s.log.Error("statements cannot be read: none is in force", "error", err)
	}
	cut := 0
	if changed {
		cut = s.sessions.decideAgain(s.takeStatements(s.statements.collected()), now)
	}
	for _, r := range records {
		switch r.Outcome {
		case statementRefused:
			if r.Reason == statementUnread {
				s.log.Warn("statement refused", "file", r.File, "reason", r.Reason, "detail", r.Detail, "hint", "the bastion's own user has to read it and its .sig: chmod 644")
			} else {
				s.log.Warn("statement refused", "file", r.File, "reason", r.Reason, "detail", r.Detail)
			}
			s.notify(noticeStatement, r)
		case statementRemoved:
			r.Cut = cut
			s.log.Info("statement removed", "file", r.File, "kind", r.Kind, "id", r.ID, "cut", cut)
		default:
			s.log.Info("statement in force", "file", r.File, "kind", r.Kind, "id", r.ID, "for", r.For, "expires", r.Expires)
		}
		s.append(eventStatement, r)
	}
}
