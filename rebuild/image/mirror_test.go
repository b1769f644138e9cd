package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// archives answers for mirrors by host.
type archives struct {
	hosts map[string]func(path string) (status int, length int64, body io.Reader)
	asked []string
}

func (a *archives) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.URL.String())
	host := a.hosts[r.URL.Host]
	if host == nil {
		return nil, errors.New("connection refused")
	}
	status, length, body := host(r.URL.Path)
	if body == nil {
		body = strings.NewReader("")
	}
	header := http.Header{}
	if status == http.StatusFound {
		header.Set("Location", r.URL.String()+"x")
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: header, ContentLength: length, Body: &untilDone{body, r}, Request: r}, nil
}

// untilDone is a body whose reads end with their request, as a connection's do.
type untilDone struct {
	io.Reader
	request *http.Request
}

func (u *untilDone) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if errors.Is(err, errHangs) {
		<-u.request.Context().Done()
		err = u.request.Context().Err()
	}
	return n, err
}

func (u *untilDone) Close() error { return nil }

var errHangs = errors.New("hangs")

type hanging struct{}

func (hanging) Read([]byte) (int, error) { return 0, errHangs }

// slowly answers with a byte every 20 seconds.
type slowly struct{ *archives }

func (s slowly) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := s.archives.RoundTrip(r)
	if err == nil {
		response.Body = io.NopCloser(&dripping{r})
	}
	return response, err
}

type dripping struct{ request *http.Request }

func (d *dripping) Read(p []byte) (int, error) {
	select {
	case <-d.request.Context().Done():
		return 0, d.request.Context().Err()
	case <-time.After(20 * time.Second):
		p[0] = 'x'
		return 1, nil
	}
}

// A package comes from the first mirror that has it, under its hash or its path in the pool; one that lies, stalls, breaks off or sends too
// much is left, and not asked for the next package.
func TestFetch(t *testing.T) {
	good := []byte(strings.Repeat("package", 1000))
	sum := sha256.Sum256(good)
	l := lockFile()
	for i := range l.Packages {
		l.Packages[i].SHA256, l.Packages[i].Size = hex.EncodeToString(sum[:]), int64(len(good))
	}
	second := append([]byte("second "), good...)
	sum2 := sha256.Sum256(second)
	l.Packages[1].SHA256, l.Packages[1].Size = hex.EncodeToString(sum2[:]), int64(len(second))
	byHash := func(path string) (int, int64, io.Reader) {
		switch {
		case strings.HasSuffix(path, l.Packages[0].SHA256+".deb"):
			return 200, -1, bytes.NewReader(good)
		case strings.HasSuffix(path, l.Packages[1].SHA256+".deb"):
			return 200, int64(len(second)), bytes.NewReader(second)
		}
		return 404, -1, nil
	}
	inPool := func(path string) (int, int64, io.Reader) {
		switch {
		case path == "/debian/"+l.Packages[0].File:
			return 200, int64(len(good)), bytes.NewReader(good)
		case path == "/debian/"+l.Packages[1].File:
			return 200, int64(len(second)), bytes.NewReader(second)
		}
		return 404, -1, nil
	}
	always := func(status int, length int64, body func() io.Reader) func(string) (int, int64, io.Reader) {
		return func(string) (int, int64, io.Reader) { return status, length, body() }
	}
	tests := map[string]struct {
		first func(string) (int, int64, io.Reader)
		want  string // of the error, when there is no other mirror
		asked int    // of the first mirror, with a good one behind it
	}{
		"store":      {byHash, "", 2},
		"pool":       {inPool, "", 4},
		"empty":      {always(404, -1, func() io.Reader { return nil }), "not there", 4},
		"forbids":    {always(403, -1, func() io.Reader { return nil }), "not there", 4},
		"breaks":     {always(500, -1, func() io.Reader { return nil }), "500", 1},
		"is away":    {nil, "connection refused", 1},
		"lies":       {always(200, -1, func() io.Reader { return strings.NewReader(strings.Repeat("x", len(good))) }), "SHA-256", 1},
		"says more":  {always(200, 1<<40, func() io.Reader { return strings.NewReader("x") }), "and the lock file says", 1},
		"sends more": {always(200, -1, func() io.Reader { return io.MultiReader(bytes.NewReader(good), strings.NewReader("x")) }), "more than", 1},
		"sends less": {always(200, -1, func() io.Reader { return bytes.NewReader(good[:100]) }), "100 of 7000 bytes", 1},
		"stalls":     {always(200, -1, func() io.Reader { return io.MultiReader(bytes.NewReader(good[:100]), hanging{}) }), "nothing came for 30s", 1},
		"redirects":  {always(302, -1, func() io.Reader { return nil }), "more than 3 redirections", 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lock, err := l.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				for _, behind := range []bool{false, true} {
					a := &archives{hosts: map[string]func(string) (int, int64, io.Reader){}}
					if tt.first != nil {
						a.hosts["first"] = tt.first
					}
					mirrors := []Mirror{{"http://first/debian"}}
					if behind {
						a.hosts["second"] = inPool
						mirrors = append(mirrors, Mirror{"https://second/debian"})
					}
					store := t.TempDir()
					got, err := fetchFrom(t.Context(), lock, store, mirrors, a)
					if tt.want != "" && !behind {
						if err == nil || !strings.Contains(err.Error(), tt.want) {
							t.Errorf("%v, want %q", err, tt.want)
						}
						if left, _ := os.ReadDir(store); len(left) > 0 {
							t.Errorf("left in the store: %v", left)
						}
						continue
					}
					if err != nil || len(got) != 2 {
						t.Errorf("got %q, %v", got, err)
					}
					for _, p := range l.Packages {
						if err := checkStored(store, p); err != nil {
							t.Error(err)
						}
					}
					asked := 0
					for _, u := range a.asked {
						if strings.HasPrefix(u, "http://first/") {
							asked++
						}
					}
					if asked != tt.asked {
						t.Errorf("the first mirror was asked %d times, want %d: %q", asked, tt.asked, a.asked)
					}
					if again, err := fetchFrom(t.Context(), lock, store, nil, a); err != nil || len(again) > 0 {
						t.Errorf("with a full store: %q, %v", again, err)
					}
				}
			})
		})
	}
}

// A mirror that sends a byte from time to time is left, too.
func TestFetchDrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lockFile()
		l.Packages[0].Size = 1000
		lock, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		a := &archives{hosts: map[string]func(string) (int, int64, io.Reader){"slow": func(string) (int, int64, io.Reader) {
			return 200, -1, nil
		}}}
		if _, err := fetchFrom(t.Context(), lock, t.TempDir(), []Mirror{{"http://slow"}}, slowly{a}); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
			t.Errorf("%v", err)
		}
	})
}

func TestParseMirror(t *testing.T) {
	for text, ok := range map[string]bool{
		"http://mirror.example/debian/": true, "https://192.0.2.1:8080": true, "ftp://mirror.example/": false, "mirror.example": false, "": false,
		"http://user:secret@mirror.example/": false, "http://mirror.example/?x": false, "http://mirror.example/#x": false, "file:///etc": false,
	} {
		if _, err := ParseMirror(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
