package audit

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// OfferOnce takes one signed checkpoint of a log that another process writes to the witness at url, and returns the lines by which it cosigned, under
// any of the keys. A Rejection says that it did not, perhaps since it has cosigned a longer log meanwhile.
func OfferOnce(ctx context.Context, dir string, signed []byte, url string, keys []note.Verifier) ([]byte, error) {
	c, err := claimed(signed)
	if err != nil {
		return nil, err
	}
	w := newAsking(dir, 1, nil)
	defer w.client.CloseIdleConnections()
	defer w.stop()
	defer context.AfterFunc(ctx, w.stop)()
	w.add(url, url, keys...)
	sigs, err := w.ask(w.all[0], c, signed)
	if err != nil {
		return nil, err
	}
	var lines []byte
	for _, s := range sigs {
		lines = fmt.Appendf(lines, "\u2014 %s %s\n", s.Name, s.Base64)
	}
	return lines, nil
}
