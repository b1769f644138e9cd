package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A fleet of 100,000 is paged: no page grows with the fleet, whatever is asked for.
func TestLargeFleet(t *testing.T) {
	n := 100_000
	if raceEnabled {
		n = 20_000
	}
	small, large := shows(fleet(3000)), shows(fleet(n))
	for _, path := range []string{"/", "/servers", "/servers?size=500&state=due", "/plan", "/releases", "/quarantine", "/ledger", "/status.json?size=500"} {
		a, b := size(t, small, path), size(t, large, path)
		if b > 3*a+200_000 || b > 2<<20 {
			t.Errorf("%s: %d bytes with 3,000 servers, %d with %d", path, a, b, n)
		}
	}
}

func size(t *testing.T, h http.Handler, path string) int {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	data, err := io.ReadAll(w.Body)
	if w.Code != http.StatusOK || err != nil {
		t.Fatalf("%s: got %d, %v", path, w.Code, err)
	}
	return len(data)
}

func BenchmarkBuild3k(b *testing.B)   { benchmarkBuild(b, 3000) }
func BenchmarkBuild100k(b *testing.B) { benchmarkBuild(b, 100_000) }

func benchmarkBuild(b *testing.B, n int) {
	in := fleet(n)
	for b.Loop() {
		v := Build(in, noon)
		tagOf(v)
	}
}

func BenchmarkServers3k(b *testing.B)   { benchmarkPage(b, 3000, "/servers") }
func BenchmarkServers100k(b *testing.B) { benchmarkPage(b, 100_000, "/servers?page=500") }
func BenchmarkOverview3k(b *testing.B)  { benchmarkPage(b, 3000, "/") }

func benchmarkPage(b *testing.B, n int, path string) {
	h := shows(fleet(n))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
