package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const patience = 20 * time.Second

// testWitness is a witness as c2sp.org/tlog-witness wants it, of one log, in memory.
type testWitness struct {
	name string
	key  ed25519.PrivateKey
	log  note.Verifier

	mu     sync.Mutex
	last   Checkpoint
	asked  int
	answer func(http.ResponseWriter) bool // takes the answer over
}

func newTestWitness(t *testing.T, name string) *testWitness {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &testWitness{name: name, key: key}
}

func (w *testWitness) public() []byte {
	return append([]byte{algCosignature}, w.key.Public().(ed25519.PublicKey)...)
}

func (w *testWitness) id() []byte {
	sum := sha256.Sum256(append([]byte(w.name+"\n"), w.public()...))
	return sum[:4]
}

func (w *testWitness) vkey() string {
	return fmt.Sprintf("%s+%x+%s", w.name, w.id(), base64.StdEncoding.EncodeToString(w.public()))
}

func (w *testWitness) cosign(text string, now time.Time) string {
	at := uint64(now.Unix())
	signature := ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))
	raw := append(binary.BigEndian.AppendUint64(w.id(), at), signature...)
	return fmt.Sprintf("— %s %s\n", w.name, base64.StdEncoding.EncodeToString(raw))
}

func (w *testWitness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.answer != nil && w.answer(rw) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/prefix/add-checkpoint" {
		http.Error(rw, "bad request", http.StatusBadRequest)
		return
	}
	status, answer := w.add(string(body))
	if status == http.StatusConflict {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
	}
	rw.WriteHeader(status)
	io.WriteString(rw, answer)
}

func (w *testWitness) add(body string) (int, string) {
	head, signed, _ := strings.Cut(body, "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseUint(strings.TrimPrefix(lines[0], "old "), 10, 63)
	if err != nil || !strings.HasPrefix(lines[0], "old ") {
		return http.StatusBadRequest, ""
	}
	c, _, err := OpenCheckpoint([]byte(signed), w.log)
	if err != nil {
		return http.StatusForbidden, ""
	}
	if old > c.Size {
		return http.StatusBadRequest, ""
	}
	if old != w.last.Size {
		return http.StatusConflict, fmt.Sprintf("%d\n", w.last.Size)
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != tlog.HashSize {
			return http.StatusBadRequest, ""
		}
		proof = append(proof, tlog.Hash(h))
	}
	switch {
	case old == c.Size:
		if old > 0 && c.Root != w.last.Root {
			return http.StatusConflict, fmt.Sprintf("%d\n", w.last.Size)
		}
	case old == 0:
		if len(proof) > 0 {
			return http.StatusUnprocessableEntity, ""
		}
	default:
		if tlog.CheckTree(proof, int64(c.Size), c.Root, int64(old), w.last.Root) != nil {
			return http.StatusUnprocessableEntity, ""
		}
	}
	w.last = c
	return http.StatusOK, w.cosign(c.Text(), time.Now())
}

func (w *testWitness) seen() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last.Size
}

// until waits for something that the log's own goroutines do.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !done(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// TestWitnesses has two witnesses cosign a growing log, and one that was there from the start cosign on after a restart.
func TestWitnesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	write(t, dir, 3)
	var all []*testWitness
	o := Options{Dir: dir, Reserve: 1, OnWitnessRejected: func(r Rejection) { t.Errorf("rejected: %v", r) }}
	trusted := Trusted{Log: verifier(t, dir)}
	for _, name := range []string{"witness.example/one", "witness.example/two"} {
		w := newTestWitness(t, name)
		w.log = trusted.Log
		server := httptest.NewServer(w)
		defer server.Close()
		all = append(all, w)
		o.Witnesses = append(o.Witnesses, Witness{URL: server.URL + "/prefix/", Key: w.vkey()})
		v, err := NewWitnessVerifier(w.vkey())
		if err != nil {
			t.Fatal(err)
		}
		trusted.Witnesses = append(trusted.Witnesses, v)
	}
	if _, err := Verify(dir, trusted); !errors.Is(err, ErrForged) || !strings.Contains(err.Error(), "no checkpoint is cosigned") {
		t.Errorf("before: got %v, want %v", err, ErrForged)
	}
	for round, more := range []int{0, 500, 3} {
		write(t, dir, more) // without them
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		size := l.Checkpoint().Size
		until(t, "every witness has cosigned", func() bool {
			r, err := Verify(dir, trusted)
			return err == nil && r.Cosigned[0].Size == size
		})
		closeLog(t, l)
		r, err := Verify(dir, trusted)
		if err != nil || len(r.Cosigned) != 2 || r.Cosigned[1].Witness != all[1].name || time.Since(r.Cosigned[1].Time) > time.Minute {
			t.Fatalf("round %d: got %+v, %v", round, r, err)
		}
		data, err := os.ReadFile(filepath.Join(dir, checkpointFile))
		if err != nil || strings.Count(string(data), "— witness.example/") != 2 {
			t.Errorf("round %d: the published checkpoint lacks cosignatures: %q, %v", round, data, err)
		}
	}
	p, err := Prove(dir, 400)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyProof(p.Marshal(), trusted); err != nil || len(got.Cosigned) != 2 {
		t.Errorf("proof: got %+v, %v, want two cosignatures", got, err)
	}
	other, err := NewWitnessVerifier(newTestWitness(t, "witness.example/three").vkey())
	if err != nil {
		t.Fatal(err)
	}
	trusted.Witnesses = append(trusted.Witnesses, other)
	if _, err := Verify(dir, trusted); !errors.Is(err, ErrForged) || !strings.Contains(err.Error(), "three has not cosigned") {
		t.Errorf("a witness that never cosigned: got %v", err)
	}
	if _, err := VerifyProof(p.Marshal(), trusted); !errors.Is(err, ErrForged) {
		t.Errorf("a proof that a witness never cosigned: got %v", err)
	}
}

// TestWitnessRejects shows a witness another log than before; whoever listens hears of it, once.
func TestWitnessRejects(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		forge      func(t *testing.T, dir string)
		answer     func(http.ResponseWriter) bool
	}{
		{"written anew", "does not extend the 20 records", func(t *testing.T, dir string) {
			resign(t, dir, ownSigner(t, dir), func(i int, text string) (string, bool) {
				return strings.Replace(text, `"n":7,`, `"n":8,`, 1), true
			})
			write(t, dir, 1)
		}, nil},
		{"written anew, as long as before", "knows another log of 20 records", func(t *testing.T, dir string) {
			resign(t, dir, ownSigner(t, dir), func(i int, text string) (string, bool) {
				return strings.Replace(text, `"n":7,`, `"n":8,`, 1), true
			})
		}, nil},
		{"cut off", "has cosigned 20 records: this log was cut off", func(t *testing.T, dir string) {
			resign(t, dir, ownSigner(t, dir), func(i int, text string) (string, bool) { return text, i < 10 })
		}, nil},
		{"another key", "does not know this log, or its key", nil, func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusForbidden); return true }},
		{"sizes that change", "names one size after another", nil, func(w http.ResponseWriter) bool {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprintf(w, "%d\n", time.Now().UnixNano()%19+1)
			return true
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			write(t, dir, 20)
			w := newTestWitness(t, "witness.example/one")
			w.log = verifier(t, dir)
			server := httptest.NewServer(w)
			defer server.Close()
			heard := make(chan Rejection, 16)
			o := Options{Dir: dir, Reserve: 1, Witnesses: []Witness{{URL: server.URL + "/prefix", Key: w.vkey()}}, OnWitnessRejected: func(r Rejection) { heard <- r }}
			l, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			until(t, "it has cosigned", func() bool { return w.seen() == 20 })
			closeLog(t, l)
			if tt.forge != nil {
				tt.forge(t, dir)
			}
			w.mu.Lock()
			w.answer = tt.answer
			w.mu.Unlock()
			if l, err = Open(o); err != nil {
				t.Fatal(err)
			}
			defer closeLog(t, l)
			select {
			case r := <-heard:
				if !strings.Contains(r.Detail, tt.want) && !(tt.name == "sizes that change" && strings.Contains(r.Detail, "knows another log")) {
					t.Errorf("got %+v, want %q", r, tt.want)
				}
				if r.Witness != w.name || r.Error() == "" {
					t.Errorf("got %+v", r)
				}
			case <-time.After(patience):
				t.Fatal("nobody heard of it")
			}
			if err := l.Append("connection", 1); err != nil {
				t.Errorf("the log goes on: %v", err)
			}
		})
	}
}

// TestWitnessAnswers sees what a witness must not make the log store.
func TestWitnessAnswers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	write(t, dir, 5)
	signed, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(signed), "\n\n")
	text += "\n"
	w, other := newTestWitness(t, "witness.example/one"), newTestWitness(t, "witness.example/one")
	v, err := NewWitnessVerifier(w.vkey())
	if err != nil {
		t.Fatal(err)
	}
	good := w.cosign(text, start)
	for _, tt := range []struct {
		name, answer string
		want         bool
	}{
		{"good", good, true},
		{"with another's", other.cosign(text, start) + good, true},
		{"nothing", "", false},
		{"another's alone", other.cosign(text, start), false},
		{"of another text", w.cosign(text+"x\n", start), false},
		{"no lines", "hello", false},
		{"more text", good + "\nlog\n1\n", false},
		{"a time out of bounds", w.cosign(text, time.Unix(-5, 0)), false},
	} {
		sigs, err := cosignatures(signed, []byte(tt.answer), &asked{name: v.Name(), keys: []note.Verifier{v}})
		if (err == nil) != tt.want || tt.want && (len(sigs) != 1 || fmt.Sprintf("\u2014 %s %s\n", sigs[0].Name, sigs[0].Base64) != good) {
			t.Errorf("%s: got %v, %v", tt.name, sigs, err)
		}
	}
}

func TestWitnessVerifierRefuses(t *testing.T) {
	w := newTestWitness(t, "w")
	good := w.vkey()
	logKey, err := publicKey("PRIVATE+KEY+w+00000000+" + base64.StdEncoding.EncodeToString(append([]byte{1}, make([]byte, 32)...)))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "w", "w+x+y", good[1:], strings.Replace(good, "w+", "x+", 1), good + "AA", " " + good, logKey, "w+00000000+BA=="} {
		if _, err := NewWitnessVerifier(bad); err == nil {
			t.Errorf("%q: got nil, want an error", bad)
		}
	}
	for _, url := range []string{"", "witness.example", "ftp://witness.example", "https://", "https://w/?a=b", "https://user@w/", "https://w/#x"} {
		if err := (Witness{URL: url, Key: good}).Check(); err == nil {
			t.Errorf("%q: got nil, want an error", url)
		}
	}
	if err := (Witness{URL: "https://witness.example/x", Key: good}).Check(); err != nil {
		t.Error(err)
	}
}
