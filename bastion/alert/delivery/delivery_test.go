package delivery

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/bastion/alert"
)

func example(subject string) alert.Alert {
	return alert.Alert{Kind: alert.AuditIll, Time: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC), Fleet: "lab", Bastion: "bastion", Severity: alert.Critical, Subject: subject}
}

var quiet = slog.New(slog.DiscardHandler)

// TestTryAgain counts the tries and the waits between them.
func TestTryAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fails int
		err   error
		tries int
		took  time.Duration
		ok    bool
	}{
		{"at once", 0, nil, 1, 0, true},
		{"the third", 2, errors.New("away"), 3, 3 * time.Second, true},
		{"never", maxTries, errors.New("away"), maxTries, (1 + 2 + 4 + 8 + 16 + 32 + 60) * time.Second, false},
		{"refused", maxTries, errRefused, 1, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries, began := 0, time.Now()
			p := &place{name: "webhook", deliver: func(context.Context, alert.Alert, []byte) error {
				if tries++; tries <= tt.fails {
					return tt.err
				}
				return nil
			}}
			err := p.try(t.Context(), example("x"))
			if (err == nil) != tt.ok || tries != tt.tries || time.Since(began) != tt.took {
				t.Errorf("%s: %v after %d tries and %s, want %d and %s", tt.name, err, tries, time.Since(began), tt.tries, tt.took)
			}
		})
	}
}

// TestPlacesDoNotWait has one place hang: the other gets everything, what does not fit is said to be dropped, and the end is bounded.
func TestPlacesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		receipts := make(chan alert.Receipt, 4*maxQueue)
		go func() {
			in := bufio.NewReader(here)
			for {
				line, err := in.ReadBytes('\n')
				if err != nil {
					close(receipts)
					return
				}
				r, err := alert.ParseReceipt(line)
				if err != nil {
					t.Error(err)
				}
				receipts <- r
			}
		}()
		hangs := &place{name: "webhook", queue: make(chan alert.Alert, maxQueue), deliver: func(ctx context.Context, _ alert.Alert, _ []byte) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		works := &place{name: "exec", queue: make(chan alert.Alert, maxQueue), deliver: func(context.Context, alert.Alert, []byte) error { return nil }}
		line, err := example("x").Marshal()
		if err != nil {
			t.Fatal(err)
		}
		const more = 10
		text := strings.Repeat(string(line)+"\n", 1)
		in, feed := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- serve(t.Context(), bufio.NewReaderSize(in, alert.MaxLine+1), there, []*place{hangs, works}, quiet)
		}()
		for range maxQueue + 1 + more { // one is at work
			if _, err := io.WriteString(feed, text); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		began := time.Now()
		feed.Close()
		if err := <-done; err != nil || time.Since(began) != lastWords {
			t.Errorf("ended after %s: %v", time.Since(began), err)
		}
		there.Close()
		count := map[alert.Receipt]int{}
		for r := range receipts {
			count[r]++
		}
		for r, want := range map[alert.Receipt]int{
			{Kind: alert.AuditIll, To: "exec", Outcome: alert.Sent}:       maxQueue + 1 + more,
			{Kind: alert.AuditIll, To: "webhook", Outcome: alert.Dropped}: more,
			{Kind: alert.AuditIll, To: "webhook", Outcome: alert.Failed}:  maxQueue + 1,
		} {
			if count[r] != want {
				t.Errorf("%+v: %d, want %d", r, count[r], want)
			}
		}
	})
}

// TestWebhook posts to a real server, by its own CA and with a token that changes.
func TestWebhook(t *testing.T) {
	answer := http.StatusNoContent
	var body, authorization string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		body, authorization = string(data), r.Header.Get("Authorization")
		if answer == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(answer)
	}))
	defer server.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	write(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644)
	write(t, token, []byte("first\n"), 0o600)
	h, err := newWebhook(alert.Settings{Webhook: server.URL + "/hook", Token: token, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	line, err := example("x").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		token string
		code  int
		ok    bool
		final bool
	}{{"first", 204, true, false}, {"second", 200, true, false}, {"second", 500, false, false}, {"second", 429, false, false}, {"second", 401, false, true}, {"second", 302, false, true}} {
		write(t, token, []byte(tt.token), 0o600)
		answer = tt.code
		err := h.deliver(t.Context(), example("x"), line)
		if (err == nil) != tt.ok || errors.Is(err, errRefused) != tt.final || body != string(line) || authorization != "Bearer "+tt.token {
			t.Errorf("%d: %v, %q, %q", tt.code, err, body, authorization)
		}
		if err != nil && strings.Contains(err.Error(), tt.token) {
			t.Errorf("the error holds the token: %v", err)
		}
	}
	write(t, token, []byte("two words"), 0o600)
	if err := h.deliver(t.Context(), example("x"), line); err == nil || strings.Contains(err.Error(), "two words") {
		t.Errorf("a token of two words: %v", err)
	}
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := newWebhook(alert.Settings{Webhook: server.URL, Token: token, CA: ca}); err == nil {
		t.Error("a token that others can read")
	}
	stranger, err := newWebhook(alert.Settings{Webhook: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.deliver(t.Context(), example("x"), line); err == nil {
		t.Error("a server of nobody's CA was believed")
	}
}

// TestProgram gives alerts to a real program.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "alert")
	write(t, path, []byte("#!/bin/sh\n[ $# = 0 ] && [ -z \"$SECRET\" ] || exit 3\ncat > "+dir+"/got\n"), 0o755)
	t.Setenv("SECRET", "of the bastion")
	line, err := example("x'; touch /tmp/no").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := program(path).deliver(t.Context(), example("x"), line); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "got"))
	if err != nil || !json.Valid(got) || string(got) != string(line)+"\n" {
		t.Errorf("got %q, %v", got, err)
	}
	write(t, path, []byte("#!/bin/sh\nexit 1\n"), 0o755)
	if err := program(path).deliver(t.Context(), example("x"), line); err == nil {
		t.Error("a program that fails")
	}
	// What it started goes with it.
	write(t, path, []byte("#!/bin/sh\nsleep 600 &\nsleep 600\n"), 0o755)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := program(path).deliver(ctx, example("x"), line); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("a program that hangs: %v after %s", err, time.Since(began))
	}
	for mode, want := range map[os.FileMode]string{0o777: "others can write", 0o644: "no program"} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := checkProgram(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// TestServeRefuses ends at settings and alerts that no bastion writes.
func TestServeRefuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "reading settings"}, {"{}\n", "neither"}, {`{"exec":"/nowhere/at/all"}` + "\n", "no such file"},
		{`{"exec":"/bin/true","shell":"x"}` + "\n", "unknown field"},
		{`{"exec":"/bin/true"}` + "\n" + `{"kind":"rm"}` + "\n", "kind"},
		{`{"exec":"/bin/true"}` + "\n" + strings.Repeat("x", alert.MaxLine+2), "reading alerts"},
		{strings.Repeat("x", alert.MaxLine+2), "reading settings"},
	} {
		err := Serve(t.Context(), struct {
			io.Reader
			io.Writer
		}{strings.NewReader(tt.text), io.Discard}, quiet)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
