package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/hint"
)

// Bounds of a download from a mirror. All that a mirror can do is not to give a package: what it gives counts by its hash.
const (
	MaxMirrors  = 16
	stallAfter  = 30 * time.Second // without a byte
	graceTime   = time.Minute      // beside what leastRate leaves
	leastRate   = 32 << 10         // bytes a second, over the whole of a package
	maxRedirect = 3
)

// Mirror is the address of a Debian archive's root, or of a store that somebody serves.
type Mirror struct{ base string }

// ParseMirror reads an http or https URL.
func ParseMirror(text string) (Mirror, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(text) > 500 {
		return Mirror{}, hint.New(fmt.Errorf("%q is no mirror", text), "an http or https URL without user, query or fragment: the directory that holds \"pool\", or files SHA256.deb")
	}
	return Mirror{strings.TrimSuffix(u.String(), "/")}, nil
}

// Fetch brings the lock file's packages that the store lacks, each from the first mirror that has it with the right hash: as SHA256.deb, or
// under its path in Debian's pool. A mirror that lies, stalls or breaks off is not asked again. It returns the names of what it
// brought.
func Fetch(ctx context.Context, lock []byte, store string, mirrors []Mirror) ([]string, error) {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: stallAfter}).DialContext,
		TLSHandshakeTimeout:   stallAfter,
		ResponseHeaderTimeout: stallAfter,
		DisableCompression:    true, // the bytes are what is hashed
	}
	defer transport.CloseIdleConnections()
	return fetchFrom(ctx, lock, store, mirrors, transport)
}

func fetchFrom(ctx context.Context, lock []byte, store string, mirrors []Mirror, transport http.RoundTripper) ([]string, error) {
	l, err := ParseLock(lock)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(store, 0o755); err != nil {
		return nil, err
	}
	d := &downloader{store: store, bad: map[Mirror]bool{}, client: &http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirect {
			return fmt.Errorf("more than %d redirections", maxRedirect)
		}
		return nil
	}}}
	var got []string
	for _, p := range l.Packages {
		switch err := checkStored(store, p); {
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return got, err
		}
		if err := d.any(ctx, p, mirrors); err != nil {
			return got, hint.New(fmt.Errorf("package %s %s: no mirror gave it: %w", p.Name, p.Version, err),
				"a mirror of Debian holds current packages; older ones are on a snapshot, or in the store of whoever made the lock file")
		}
		got = append(got, p.Name)
	}
	return got, nil
}

type downloader struct {
	client *http.Client
	store  string
	bad    map[Mirror]bool
}

// errAbsent is a mirror's word that it does not have a file.
var errAbsent = errors.New("not there")

// any brings a package from the first mirror that has it.
func (d *downloader) any(ctx context.Context, p Package, mirrors []Mirror) error {
	var errs []error
	for _, m := range mirrors {
		if d.bad[m] {
			errs = append(errs, fmt.Errorf("%s: failed before", m.base))
			continue
		}
		for _, name := range []string{p.SHA256 + ".deb", p.File} {
			err := d.one(ctx, m.base+"/"+name, p)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			errs = append(errs, fmt.Errorf("%s/%s: %w", m.base, name, err))
			if !errors.Is(err, errAbsent) {
				d.bad[m] = true
				break
			}
		}
	}
	return errors.Join(errs...)
}

// one downloads a package into the store.
func (d *downloader) one(ctx context.Context, address string, p Package) (err error) {
	ctx, cancel := context.WithTimeout(ctx, graceTime+time.Duration(p.Size/leastRate)*time.Second)
	defer cancel()
	ctx, stalled := context.WithCancelCause(ctx)
	defer stalled(nil)
	watch := time.AfterFunc(stallAfter, func() { stalled(fmt.Errorf("nothing came for %s", stallAfter)) })
	defer watch.Stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, errAbsent) {
			err = fmt.Errorf("%w: %w", err, cause)
		}
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusGone || response.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: %s", errAbsent, response.Status)
	case response.StatusCode != http.StatusOK:
		return errors.New(response.Status)
	case response.ContentLength >= 0 && response.ContentLength != p.Size:
		return fmt.Errorf("%d bytes, and the lock file says %d", response.ContentLength, p.Size)
	}
	f, err := os.CreateTemp(d.store, "download-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), &watched{io.LimitReader(response.Body, p.Size+1), watch})
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	switch sum := hex.EncodeToString(h.Sum(nil)); {
	case n > p.Size:
		return fmt.Errorf("more than %d bytes", p.Size)
	case n < p.Size:
		return fmt.Errorf("%d of %d bytes", n, p.Size)
	case sum != p.SHA256:
		return fmt.Errorf("SHA-256 %s, and the lock file says %s", sum, p.SHA256)
	}
	return os.Rename(f.Name(), filepath.Join(d.store, p.SHA256+".deb"))
}

// watched puts off the end of a download for as long as bytes come.
type watched struct {
	r     io.Reader
	watch *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.watch.Reset(stallAfter)
	}
	return n, err
}
