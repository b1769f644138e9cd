package boot

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/rebuild/offer"
)

// TestOffers: what a life boots from goes to its server and its BMC, until its ticket ends, and to nobody else.
func TestOffers(t *testing.T) {
	dir, now := offer.Dir(t.TempDir()), time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	server, bmc := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.111")
	o, err := dir.Put(t.Context(), offer.Offer{Server: "se-1", Epoch: 7, Addresses: []netip.Addr{server, bmc}, NotAfter: now.Add(time.Minute)}, func(offer.Offer) []offer.File {
		return []offer.File{{Name: offer.MediumFile, Write: func(w io.Writer) error { _, err := io.WriteString(w, "secret medium"); return err }}}
	})
	if err != nil {
		t.Fatal(err)
	}
	clock := now
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	h := offers(dir, func() time.Time { return clock }, slog.New(slog.DiscardHandler), next)
	for name, tt := range map[string]struct {
		method, path, from string
		late               time.Duration
		want               int
	}{
		"bmc, by token":          {"GET", o.Path(offer.MediumFile), "192.0.2.111:1", 0, 200},
		"server, by token":       {"GET", o.Path(offer.MediumFile), "192.0.2.11:1", 0, 200},
		"server, by its address": {"GET", "/netboot/boot.img", "192.0.2.11:1", 0, 200},
		"mapped address":         {"GET", "/netboot/boot.img", "[::ffff:192.0.2.11]:1", 0, 200},
		"head":                   {"HEAD", o.Path(offer.MediumFile), "192.0.2.111:1", 0, 200},
		"stranger, by token":     {"GET", o.Path(offer.MediumFile), "192.0.2.12:1", 0, 404},
		"stranger":               {"GET", "/netboot/boot.img", "192.0.2.12:1", 0, 503},
		"bmc by its address":     {"GET", "/netboot/boot.img", "192.0.2.111:1", 0, 503},
		"late":                   {"GET", o.Path(offer.MediumFile), "192.0.2.111:1", time.Minute, 404},
		"server, late":           {"GET", "/netboot/boot.img", "192.0.2.11:1", time.Minute, 503},
		"another token":          {"GET", "/offers/" + strings.Repeat("00", 32) + "/boot.img", "192.0.2.111:1", 0, 404},
		"not its state":          {"GET", o.Path("offer.json"), "192.0.2.111:1", 0, 404},
		"not there":              {"GET", o.Path(offer.KernelFile), "192.0.2.111:1", 0, 404},
		"query":                  {"GET", o.Path(offer.MediumFile) + "?x", "192.0.2.111:1", 0, 404},
		"post":                   {"POST", o.Path(offer.MediumFile), "192.0.2.111:1", 0, 405},
		"listing":                {"GET", "/offers/", "192.0.2.111:1", 0, 418},
		"a release":              {"GET", "/releases/7/vmlinuz", "192.0.2.12:1", 0, 418},
		"dots":                   {"GET", "/netboot/../offers/se-1/boot.img", "192.0.2.11:1", 0, 418},
	} {
		clock = now.Add(tt.late)
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.RemoteAddr = tt.from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got := w.Body.String()
		if w.Code != tt.want || (tt.want == 200 && tt.method == "GET") != (got == "secret medium") {
			t.Errorf("%s: got %d %q, want %d", name, w.Code, got, tt.want)
		}
		if tt.want == 200 && w.Header().Get("Content-Type") != "application/vnd.efi-img" {
			t.Errorf("%s: type %q", name, w.Header().Get("Content-Type"))
		}
	}
}
