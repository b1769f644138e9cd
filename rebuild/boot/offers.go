package boot

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"time"

	"mayfly/rebuild/offer"
)

// offerPath is a file of one offer by its secret; netbootPath one of whoever asks, by its address.
var (
	offerPath   = regexp.MustCompile(`^` + offer.PathOffers + `([0-9a-f]{64})/([a-z.]{1,16})$`)
	netbootPath = regexp.MustCompile(`^` + offer.PathBoot + `([a-z.]{1,16})$`)
)

// offerAgain is when firmware that came too early may ask again.
const offerAgain = "2"

// offers hands out what lives boot from, and everything else is next's. They hold tickets, so each goes to the server and the BMC that it
// is for and to nobody else; who else asks hears what is said of something that is not there.
func offers(dir offer.Dir, now func() time.Time, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.EscapedPath()
		token, file := "", ""
		if m := offerPath.FindStringSubmatch(path); m != nil {
			token, file = m[1], m[2]
		} else if m := netbootPath.FindStringSubmatch(path); m != nil {
			file = m[1]
		} else {
			next.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || r.URL.RawQuery != "" {
			http.NotFound(w, r)
			return
		}
		o, err := dir.Find(from.Addr(), token, now())
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				log.Warn("looking for an offer", "from", from.Addr(), "error", err)
			}
			if token == "" { // firmware that waits for its life to begin asks again
				w.Header().Set("Retry-After", offerAgain)
				http.Error(w, "nothing to boot yet", http.StatusServiceUnavailable)
				return
			}
			http.NotFound(w, r)
			return
		}
		f, err := dir.Open(o, file)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			http.NotFound(w, r)
			return
		}
		if r.Method == http.MethodGet {
			log.Info("handing out what to boot", "server", o.Server, "epoch", o.Epoch, "file", file, "to", from.Addr())
		}
		kind := "application/octet-stream"
		if file == offer.MediumFile {
			kind = "application/vnd.efi-img" // UEFI 2.10, 24.7.3: what HTTP boot takes for a disk
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-store")
		http.ServeContent(w, r, "", info.ModTime(), f)
	})
}
