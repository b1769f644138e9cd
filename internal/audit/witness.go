package audit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/durable"
)

// Implementation constants of asking witnesses.
const (
	witnessEvery   = 10 * time.Second // shortest time between two checkpoints that one witness is offered
	witnessTimeout = 10 * time.Second
	maxAnswer      = 16 << 10
)

// Witness cosigns checkpoints when it has seen that they extend those that it cosigned before (c2sp.org/tlog-witness).
type Witness struct {
	URL string // submission prefix
	Key string // verifier key of its cosignatures
}

// Rejection is an answer by which a witness says that the log is not the one that it knows.
type Rejection struct {
	Witness string // its name
	Size    uint64 // of the checkpoint that was offered
	Seen    uint64 // what the witness says it has cosigned, if it says so
	Status  int    // HTTP
	Detail  string
}

func (r Rejection) Error() string {
	return fmt.Sprintf("witness %s rejects the checkpoint of %d records: %s", r.Witness, r.Size, r.Detail)
}

// witnesses offers checkpoints. Everything is owned by loop.
type witnesses struct {
	dir      string
	head     func() (Checkpoint, []byte, error) // the newest that the log signed
	keep     func(Checkpoint, []byte) error     // with cosignatures, if it still is the newest; nil keeps it in witnessedFile alone
	mode     fs.FileMode                        // of witnessedFile
	enough   int                                // witnesses that witnessedFile has to have
	all      []*asked
	rejected func(Rejection)
	client   *http.Client
	wake     chan struct{}
	ctx      context.Context
	stop     context.CancelFunc
}

type asked struct {
	url  string
	name string
	keys []note.Verifier // any of them signs
	seen uint64          // size that it cosigned last, as far as is known
	said string          // last rejection, so that the same one is reported once
}

func newWitnesses(l *Log, list []Witness, rejected func(Rejection)) (*witnesses, error) {
	w, err := askWitnesses(l.dir, list, rejected)
	if err != nil {
		return nil, err
	}
	w.head, w.keep = l.newest, l.cosigned
	w.poke()
	return w, nil
}

// newest is the log's checkpoint.
func (l *Log) newest() (Checkpoint, []byte, error) {
	l.pub.mu.Lock()
	defer l.pub.mu.Unlock()
	return l.pub.last, l.pub.signed, nil
}

// cosigned keeps the newest checkpoint with what witnesses signed.
func (l *Log) cosigned(c Checkpoint, cosigned []byte) error {
	l.pub.mu.Lock()
	defer l.pub.mu.Unlock()
	if l.pub.last.Size != c.Size {
		return nil // a newer one is published
	}
	return durable.WriteFile(filepath.Join(l.dir, checkpointFile), cosigned, l.pub.fileMode())
}

func askWitnesses(dir string, list []Witness, rejected func(Rejection)) (*witnesses, error) {
	w := newAsking(dir, len(list), rejected)
	for _, one := range list {
		if err := one.Check(); err != nil {
			return nil, err
		}
		v, err := NewWitnessVerifier(one.Key)
		if err != nil {
			return nil, fmt.Errorf("witness %s: %w", one.URL, err)
		}
		w.add(one.URL, v.Name(), v)
	}
	return w, nil
}

func newAsking(dir string, enough int, rejected func(Rejection)) *witnesses {
	w := &witnesses{dir: dir, enough: enough, rejected: rejected, mode: 0o600, wake: make(chan struct{}, 1)}
	w.client = &http.Client{Timeout: witnessTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// add has one more asked.
func (w *witnesses) add(url, name string, keys ...note.Verifier) {
	w.all = append(w.all, &asked{url: strings.TrimSuffix(url, "/") + "/add-checkpoint", name: name, keys: keys})
}

// Check says what is wrong with a witness as configured.
func (w Witness) Check() error {
	u, err := url.Parse(w.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("witness %q: want a URL such as https://witness.example/log", w.URL)
	}
	if _, err := NewWitnessVerifier(w.Key); err != nil {
		return fmt.Errorf("witness %s: %w", w.URL, err)
	}
	return nil
}

func (w *witnesses) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *witnesses) loop() {
	defer w.client.CloseIdleConnections()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.wake:
		}
		if !w.offer() {
			w.poke() // try again
		}
		pause := time.NewTimer(witnessEvery)
		select {
		case <-w.ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// offer takes the newest checkpoint to every witness, and stores it with what they signed. It says whether all of them did.
func (w *witnesses) offer() bool {
	c, signed, err := w.head()
	if err != nil {
		return false
	}
	cosigned := slices.Clone(signed)
	count, names := 0, map[string]bool{}
	for _, a := range w.all {
		lines, err := w.ask(a, c, signed)
		var rejection Rejection
		switch {
		case err == nil:
			a.seen, a.said = c.Size, ""
			count++
			for _, s := range lines {
				if !names[s.Name] { // two addresses may be of one witness
					names[s.Name] = true
					cosigned = fmt.Appendf(cosigned, "\u2014 %s %s\n", s.Name, s.Base64)
				}
			}
		case errors.As(err, &rejection) && a.said != rejection.Detail:
			a.said = rejection.Detail
			if w.rejected != nil {
				w.rejected(rejection)
			}
		}
	}
	return w.store(c, cosigned, len(names)) == nil && count == len(w.all)
}

func (w *witnesses) store(c Checkpoint, cosigned []byte, count int) error {
	if count == 0 {
		return nil
	}
	if count >= w.enough {
		if err := durable.WriteFile(filepath.Join(w.dir, witnessedFile), cosigned, w.mode); err != nil {
			return err
		}
	}
	if w.keep == nil {
		return nil
	}
	return w.keep(c, cosigned)
}

// ask offers a checkpoint to one witness, and once more from the size that it names. It returns the witness's signatures.
func (w *witnesses) ask(a *asked, c Checkpoint, signed []byte) ([]note.Signature, error) {
	reject := func(status int, seen uint64, format string, args ...any) error {
		return Rejection{Witness: a.name, Size: c.Size, Seen: seen, Status: status, Detail: fmt.Sprintf(format, args...)}
	}
	if a.seen > c.Size {
		return nil, reject(0, a.seen, "it has cosigned %d records", a.seen)
	}
	for range 2 {
		proof, err := w.prove(a.seen, c)
		if err != nil {
			return nil, err
		}
		body := fmt.Appendf(nil, "old %d\n", a.seen)
		for _, h := range proof {
			body = fmt.Appendf(body, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
		}
		status, answer, err := w.post(a, append(append(body, '\n'), signed...))
		if err != nil {
			return nil, err
		}
		switch status {
		case http.StatusOK:
			return cosignatures(signed, answer, a)
		case http.StatusConflict:
			seen, err := strconv.ParseUint(strings.TrimSuffix(string(answer), "\n"), 10, 63)
			switch {
			case err != nil || seen == a.seen:
				return nil, reject(status, a.seen, "it knows another log of %d records", a.seen)
			case seen > c.Size:
				return nil, reject(status, seen, "it has cosigned %d records: this log was cut off or is another", seen)
			}
			a.seen = seen
		case http.StatusUnprocessableEntity:
			return nil, reject(status, a.seen, "the log does not extend the %d records that it has cosigned", a.seen)
		case http.StatusNotFound, http.StatusForbidden, http.StatusBadRequest:
			return nil, reject(status, a.seen, "it answers %d: it does not know this log, or its key", status)
		default:
			return nil, fmt.Errorf("witness %s answers %d", a.name, status)
		}
	}
	return nil, reject(http.StatusConflict, a.seen, "it names one size after another")
}

func (w *witnesses) prove(old uint64, c Checkpoint) (tlog.TreeProof, error) {
	if old == 0 || old == c.Size {
		return nil, nil
	}
	reader := tlog.TileHashReader(tlog.Tree{N: int64(c.Size), Hash: c.Root}, tileReader{w.dir})
	return tlog.ProveTree(int64(c.Size), int64(old), reader)
}

func (w *witnesses) post(a *asked, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodPost, a.url, strings.NewReader(string(body)))
	if err != nil {
		return 0, nil, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, answer, err
}

// cosignatures keeps of a witness's answer what it really signed.
func cosignatures(signed, answer []byte, a *asked) ([]note.Signature, error) {
	n, err := note.Open(slices.Concat(signed, answer), note.VerifierList(a.keys...))
	if err != nil {
		return nil, fmt.Errorf("witness %s: %w", a.name, err)
	}
	return n.Sigs, nil
}
