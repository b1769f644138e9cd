package recording

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
)

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// record makes a recording and returns its path.
func record(t *testing.T, id *age.X25519Identity, limit int64, f func(*Recording)) (path, sum string, err error) {
	t.Helper()
	dir := t.TempDir()
	recipients, err := ParseRecipients([]string{id.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Create(dir, "one", recipients, Header{Width: 100, Height: 30, Title: "anna@se-1", Env: map[string]string{"TERM": "xterm"}}, time.Now(), Bounds{Size: limit})
	if err != nil {
		t.Fatal(err)
	}
	f(r)
	sum, err = r.Close("client_closed")
	if r.Name() != "one"+Suffix {
		t.Errorf("got name %q", r.Name())
	}
	return filepath.Join(dir, r.Name()), sum, err
}

func dump(t *testing.T, data []byte, id age.Identity) (text, how string, err error) {
	t.Helper()
	c, err := Open(bytes.NewReader(data), id)
	if err != nil {
		return "", "", err
	}
	var out bytes.Buffer
	how, err = c.Dump(&out)
	return out.String(), how, err
}

func TestRecording(t *testing.T) {
	id := identity(t)
	path, sum, err := record(t, id, 0, func(r *Recording) {
		euro := "€"
		for _, err := range []error{
			r.Output(0, []byte("secret \x1b[31mred\x1b[0m "+euro[:1])), r.Output(1, []byte("error\n")), r.Output(0, []byte(euro[1:])),
			r.Resize(120, 40), r.Output(0, []byte{'a', 0xff, 'b'}), r.Output(0, []byte{0xe2, 0x82}),
			r.Input([]byte("#!/bin/sh\n" + euro[:2])), r.Input([]byte(euro[2:])), r.Input([]byte{0x7f, 'E', 0x80, 0xbf}), r.Input([]byte{0xc3}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); sum != hex.EncodeToString(want[:]) {
		t.Errorf("got hash %s, want %x", sum, want)
	}
	if bytes.Contains(data, []byte("secret")) || bytes.Contains(data, []byte("anna")) {
		t.Error("the file holds its contents in the clear")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	text, how, err := dump(t, data, id)
	if err != nil || how != "client_closed" {
		t.Fatalf("got %q, %v", how, err)
	}
	for _, want := range []string{`"width":100`, `"title":"anna@se-1"`, `secret \u001b[31mred`, `"data":"error\n"`, `"data":"€"`, `"kind":"r","data":"120x40"`,
		`"kind":"O","data":"Yf9i"`, `"kind":"O","data":"4oI="`, `"kind":"i","data":"#!/bin/sh\n"`, `"kind":"i","data":"€"`, `"kind":"I","data":"f0WAvw=="`,
		`"kind":"I","data":"ww=="`, `"kind":"m","data":"client_closed"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	if _, _, err := dump(t, data, identity(t)); !errors.Is(err, ErrIdentity) {
		t.Errorf("another identity: got %v", err)
	}
}

// A recording that is cut anywhere is told from a whole one, and a changed one is refused.
func TestTruncated(t *testing.T) {
	id := identity(t)
	path, _, err := record(t, id, 0, func(r *Recording) {
		for range 100 {
			if err := r.Output(0, bytes.Repeat([]byte("line of text\n"), 100)); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	header := bytes.Index(data, []byte("\n--- ")) // its line ends with a MAC; 16 bytes of nonce follow
	start := header + 1 + bytes.IndexByte(data[header+1:], '\n') + 1 + 16
	for _, n := range []int{len(data) - 1, len(data) - 1000, start + 2*(64<<10+16), start + 64<<10 + 16, start + 64<<10 + 15, start + 100, start, start - 1} {
		if _, _, err := dump(t, data[:n], id); !errors.Is(err, ErrTruncated) {
			t.Errorf("cut to %d of %d bytes: got %v", n, len(data), err)
		}
	}
	data[len(data)/2] ^= 1
	if _, _, err := dump(t, data, id); !errors.Is(err, ErrTruncated) {
		t.Errorf("a changed byte: got %v", err)
	}
}

func TestBound(t *testing.T) {
	id := identity(t)
	path, _, err := record(t, id, 10_000, func(r *Recording) {
		var err error
		for range 100 {
			if err = r.Output(0, bytes.Repeat([]byte("x"), 500)); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrFull) {
			t.Errorf("got %v, want %v", err, ErrFull)
		}
		if err := r.Output(0, []byte("more")); !errors.Is(err, ErrFull) {
			t.Errorf("after it was full: got %v", err)
		}
	})
	if !errors.Is(err, ErrFull) && err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text, how, err := dump(t, data, id); err != nil || how != "client_closed" || len(text) > 12_000 {
		t.Errorf("got %d bytes, %q, %v: a full recording can be read to its end", len(text), how, err)
	}
}

// What is no UTF-8 is in the recording byte for byte: 32,000 bytes that begin no character are no single sign.
func TestRawOutput(t *testing.T) {
	id, want := identity(t), bytes.Repeat([]byte{0x80, 0xbf}, 16_000)
	path, _, err := record(t, id, 0, func(r *Recording) {
		if err := errors.Join(r.Input([]byte("not shown")), r.Output(0, want)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(bytes.NewReader(data), id)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := c.Play(t.Context(), &out, Pace{Speed: 1000}); err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("played %d bytes, %v, want %d as they came", out.Len(), err, len(want))
	}
}

// A recording ends, in order, before the file system that it may share with the audit log is full.
func TestReserve(t *testing.T) {
	recipients, err := ParseRecipients([]string{identity(t).Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	left := uint64(Reserve)
	bounds := Bounds{free: func(*os.File) (uint64, error) { return left, nil }}
	dir := t.TempDir()
	r, err := Create(dir, "one", recipients, Header{}, time.Now(), bounds)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Output(0, []byte("fits")); err != nil {
		t.Error(err)
	}
	left--
	for _, err := range []error{r.Output(0, []byte("x")), r.Input([]byte("x")), r.Resize(1, 1)} {
		if !errors.Is(err, ErrSpace) || !errors.Is(err, ErrFull) {
			t.Errorf("got %v, want %v", err, ErrSpace)
		}
	}
	if _, err := r.Close("recording_ended"); err != nil {
		t.Errorf("its end: %v", err)
	}
	if _, err := Create(dir, "two", recipients, Header{}, time.Now(), bounds); !errors.Is(err, ErrSpace) {
		t.Errorf("another: got %v, want %v", err, ErrSpace)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v: what was not begun leaves no file", list, err)
	}
}

// What is written is put on disk within a second, once, and a session that says nothing puts nothing there.
func TestSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recipients, err := ParseRecipients([]string{identity(t).Recipient().String()})
		if err != nil {
			t.Fatal(err)
		}
		synced, broken := 0, error(nil)
		r, err := Create(t.TempDir(), "one", recipients, Header{}, time.Now(), Bounds{sync: func(*os.File) error { synced++; return broken }})
		if err != nil {
			t.Fatal(err)
		}
		after := func(what string, output, want int) {
			t.Helper()
			before := synced
			if err := r.Output(0, bytes.Repeat([]byte("x"), output)); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			time.Sleep(syncEvery + time.Millisecond)
			synctest.Wait()
			if synced-before != want {
				t.Errorf("%s: put on disk %d times, want %d", what, synced-before, want)
			}
		}
		after("the header", 1, 1)
		after("less than a block of the encryption", 1000, 0)
		after("many blocks", 500_000, 1)
		time.Sleep(time.Hour)
		after("nothing in an hour", 1, 0)
		broken = errors.New("bad disk")
		after("a broken disk", 500_000, 1)
		if err := r.Output(0, []byte("more")); !errors.Is(err, broken) {
			t.Errorf("after a broken disk: got %v", err)
		}
		if _, err := r.Close("recording_ended"); !errors.Is(err, broken) {
			t.Errorf("end: got %v", err)
		}
	})
}

// A disk that takes no more ends the recording for good.
func TestBrokenDisk(t *testing.T) {
	_, _, err := record(t, identity(t), 0, func(r *Recording) {
		r.file.Close()
		var err error
		for i := 0; err == nil && i < 10; i++ {
			err = r.Output(0, bytes.Repeat([]byte("x"), 64<<10))
		}
		if err == nil {
			t.Error("nobody was told")
		}
	})
	if err == nil {
		t.Error("the end was written to a file that is closed")
	}
}

func TestCreateRefuses(t *testing.T) {
	recipients, err := ParseRecipients([]string{identity(t).Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "there"+Suffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, "there", recipients, Header{}, time.Now(), Bounds{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that is there: got %v", err)
	}
	if _, err := Create(dir, "none", nil, Header{}, time.Now(), Bounds{}); err == nil {
		t.Error("no recipients: no error")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "none*")); err != nil || len(left) != 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string][]string{
		"none": nil, "words": {"age1nobody"}, "mixed": {identity(t).Recipient().String(), hybrid.Recipient().String()},
	} {
		if _, err := ParseRecipients(list); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := ParseRecipients([]string{hybrid.Recipient().String()}); err != nil {
		t.Errorf("post-quantum: %v", err)
	}
}

const sample = `{"version":2,"width":80,"height":24,"timestamp":1}
[0.5,"o","one "]
[60.5,"o","two "]
[61.5,"r","90x30"]
[62.5,"m","client_closed"]
`

func TestPlayPace(t *testing.T) {
	for _, tt := range []struct {
		pace Pace
		want time.Duration
	}{
		{Pace{Speed: 1}, 62500 * time.Millisecond},
		{Pace{Speed: 2}, 31250 * time.Millisecond},
		{Pace{Speed: 1, MaxIdle: time.Second}, 3500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, err := NewReader(strings.NewReader(sample))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			var out bytes.Buffer
			how, err := c.Play(t.Context(), &out, tt.pace)
			if err != nil || how != "client_closed" || out.String() != "one two " || time.Since(began) != tt.want {
				t.Errorf("%+v: got %q, %q, %v after %v, want %v", tt.pace, out.String(), how, err, time.Since(began), tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := NewReader(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Play(ctx, io.Discard, Pace{Speed: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	header, _, _ := strings.Cut(sample, "\n")
	header += "\n"
	for name, text := range map[string]string{
		"nothing": "", "version 1": `{"version":1,"width":80,"height":24}`, "no size": `{"version":2}`, "no JSON": "x",
		"two values": header + `[1,"o"]`, "an object": header + `{}`, "a null": header + `[null,"o","x"]`, "a word for a time": header + `["1","o","x"]`,
		"back in time": header + "[2,\"o\",\"x\"]\n[1,\"o\",\"x\"]", "for ever": header + `[1e300,"o","x"]`, "a long kind": header + `[1,"output","x"]`,
		"an endless line": header + `[1,"o","` + strings.Repeat("x", maxLine) + `"]`, "after the end": sample + `[63,"o","x"]`,
		"no base64": header + "[1,\"O\",\"=\"]\n[2,\"m\",\"x\"]", "no end": header + `[1,"o","x"]`,
	} {
		c, err := NewReader(strings.NewReader(text))
		if err == nil {
			_, err = c.Dump(io.Discard)
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzReader: whatever is read without an error can be written and read again.
func FuzzReader(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"version":2,"width":1,"height":1,"env":{"TERM":"x"}}` + "\n" + `[0,"o","\u0000\ud800"]` + "\n" + `[0,"m",""]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		var out bytes.Buffer
		w := &caster{w: &out}
		if err := w.line(c.Header); err != nil {
			t.Fatal(err)
		}
		var events []Event
		for {
			e, err := c.Next()
			if err != nil {
				break
			}
			events = append(events, e)
			if err := w.line(e); err != nil {
				t.Fatal(err)
			}
		}
		again, err := NewReader(&out)
		if err != nil {
			t.Fatalf("header %+v: %v", c.Header, err)
		}
		for _, e := range events {
			got, err := again.Next()
			if err != nil || got.Kind != e.Kind || got.Data != e.Data {
				t.Fatalf("got %+v, %v, want %+v", got, err, e)
			}
		}
	})
}
