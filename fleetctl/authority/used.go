package authority

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mayfly/policies/request"
)

// Bounds of what is remembered of requests.
const (
	maxUsed = 4096           // requests that are remembered at once
	usedFor = 24 * time.Hour // after a request's end: the clock may be set back
)

// Used are the requests that were carried out, or tried: one empty file each, "EXPIRES-NONCE", in a directory that several processes of one user
// share.
type Used struct{ dir string }

// OpenUsed makes the directory if it is not there.
func OpenUsed(dir string) (Used, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Used{}, fmt.Errorf("opening what is known of requests: %w", err)
	}
	return Used{dir}, nil
}

// Spend remembers durably that this request was used, or refuses it because it was. It forgets those that ended long ago.
func (u Used) Spend(r request.Request, now time.Time) (err error) {
	d, err := os.Open(u.dir)
	if err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }() // and its lock with it
	if err := lock(d); err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	left := 0
	for _, name := range names {
		end, nonce, ok := strings.Cut(name, "-")
		seconds, err := strconv.ParseInt(end, 10, 64)
		switch {
		case ok && nonce == r.Nonce:
			return request.Refuse(request.Used, "request %s was used before", r.Nonce)
		case ok && err == nil && now.Sub(time.Unix(seconds, 0)) > usedFor:
			if err := os.Remove(filepath.Join(u.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forgetting a request: %w", err)
			}
		default:
			left++
		}
	}
	if left >= maxUsed {
		return request.Refuse(request.TooMany, "%d requests were used within %s", left, request.MaxLife+usedFor)
	}
	path := filepath.Join(u.dir, fmt.Sprintf("%d-%s", r.Expires.Unix(), r.Nonce))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close(), d.Sync()); err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	return nil
}

// lock waits until nobody else holds the directory.
func lock(d *os.File) (err error) {
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
	}
	return err
}
