package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

func TestFetchBounds(t *testing.T) {
	elsewhere := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/r/fits", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "1234") })
	mux.HandleFunc("/r/over", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "12345") })
	mux.HandleFunc("/r/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere++ })
	server := httptest.NewServer(mux)
	defer server.Close()
	b := &boot{console: io.Discard, ticket: &ticket.Ticket{Mirrors: []string{server.URL + "/r/"}, NotAfter: time.Now().Add(time.Minute)}}

	if got, err := b.fetchSmall(t.Context(), "fits", 4); err != nil || string(got) != "1234" {
		t.Errorf("an answer that fits: %q, %v", got, err)
	}
	if _, err := b.fetchSmall(t.Context(), "over", 4); reasonOf(err) != fetchOversize {
		t.Errorf("an answer over its bound: %v, want %s", err, fetchOversize)
	}
	if err := fetchOnce(t.Context(), server.URL+"/r/moved", func(io.Reader) error { return nil }); err == nil || elsewhere != 0 {
		t.Errorf("a redirect: error %v, followed %d times, want an error and none", err, elsewhere)
	}
	b.ticket.NotAfter = time.Now()
	if _, err := b.fetchSmall(t.Context(), "missing", 4); reasonOf(err) != fetchFailed {
		t.Errorf("after the ticket's end: %v, want %s", err, fetchFailed)
	}
}

// What a refusal is called on the console and in the report, and whether another try may help.
func TestReasons(t *testing.T) {
	tests := []struct {
		err   error
		want  string
		final bool
	}{
		{refusef(rootTooBig, "x"), rootTooBig, true},
		{&release.Refusal{Reason: release.PartAltered, Err: errors.New("x")}, release.PartAltered, true},
		{&ticket.Refusal{Reason: ticket.Expired, Err: errors.New("x")}, ticket.Expired, false},
		{io.ErrUnexpectedEOF, bootFailed, false},
	}
	for _, tt := range tests {
		if got := reasonOf(tt.err); got != tt.want {
			t.Errorf("reasonOf(%v) is %q, want %q", tt.err, got, tt.want)
		}
		if got := final(tt.err); got != tt.final {
			t.Errorf("final(%v) is %v, want %v", tt.err, got, tt.final)
		}
	}
	if got := oneLine("a\x1b[2Jb\nc"); got != "a [2Jb c" {
		t.Errorf("oneLine let %q through", got)
	}
	// A mistake of the program is a refusal like any other.
	saved := stages
	defer func() { stages = saved }()
	stages = slices.Clone(stages[:1])
	stages[0].run = func(*boot, context.Context) error { panic("oops") }
	var console bytes.Buffer
	if err := (&boot{console: &console}).run(t.Context()); reasonOf(err) != internalError {
		t.Errorf("a stage that panics: %v, want %s", err, internalError)
	}
	if got := console.String(); got != "mayfly-stub: mount\n" {
		t.Errorf("the console says %q", got)
	}
}

// TestMain lets the test program be the stub, for its help.
func TestMain(m *testing.M) {
	if os.Getenv("MAYFLY_TEST_STUB") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"--help", "version"} {
		cmd := exec.Command(os.Args[0], arg)
		cmd.Env = append(os.Environ(), "MAYFLY_TEST_STUB=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(out), "mayfly-stub") || stderr.Len() > 0 {
			t.Errorf("%s: %v, stdout %q, stderr %q", arg, err, out, stderr.String())
		}
	}
}
