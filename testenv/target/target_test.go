package target

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestServeAndCheck(t *testing.T) {
	server := httptest.NewServer(Handler())
	defer server.Close()
	for _, n := range []string{"0", "1", "32768", "100000"} {
		resp, err := http.Get(server.URL + "/bytes/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get(Source); got != "127.0.0.1" {
			t.Errorf("got source %q, want 127.0.0.1", got)
		}
		if err := Check(resp.Body, resp.ContentLength); err != nil {
			t.Errorf("%s bytes: %v", n, err)
		}
		resp.Body.Close()
	}
	for _, n := range []string{"-1", "x", "999999999999"} {
		resp, err := http.Get(server.URL + "/bytes/" + n)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("asking for %s: got %s, want 400", n, resp.Status)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	good, err := io.ReadAll(io.LimitReader(&stream{}, 40000))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[39999] ^= 1
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"short", good[:39999], "39999 of 40000"},
		{"long", append(bytes.Clone(good), 0), "more than"},
		{"flipped", flipped, "wrong bytes"},
	}
	for _, test := range tests {
		if err := Check(bytes.NewReader(test.data), 40000); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	if err := Check(bytes.NewReader(good), 40000); err != nil {
		t.Error(err)
	}
}
