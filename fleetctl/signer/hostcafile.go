package signer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/request"
	"mayfly/policies/trust"
)

// LoadHostCAs reads DIR/signer's list of SSH host CAs. A fleet whose CA was never rotated has none: its one CA is the current one.
func LoadHostCAs(dir string) (HostCAs, error) {
	data, err := durable.ReadRegular(filepath.Join(dir, keyDir, hostCAsFile), maxHostCAsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return firstHostCA(dir)
	}
	if err != nil {
		return HostCAs{}, fmt.Errorf("loading the SSH host CAs: %w", err)
	}
	l, err := ParseHostCAs(data)
	if err != nil {
		return HostCAs{}, fmt.Errorf("loading the SSH host CAs: %w", err)
	}
	return l, nil
}

func firstHostCA(dir string) (HostCAs, error) {
	path := filepath.Join(dir, keyDir, hostCAFile+".pub")
	data, err := durable.ReadRegular(path, maxHostCAsFile)
	if err != nil {
		return HostCAs{}, fmt.Errorf("loading the SSH host CA: %w", err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return HostCAs{}, fmt.Errorf("loading the SSH host CA: %s: %w", path, err)
	}
	return FirstHostCAs(trust.FormatKey(key)), nil
}

// FirstHostCAs is the list of a fleet whose one CA was made by Init.
func FirstHostCAs(key string) HostCAs {
	return HostCAs{Kind: hostCAsKind, CAs: []HostCA{{Key: key, File: hostCAFile, State: CACurrent}}}
}

// Marshal returns the list in canonical form.
func (l HostCAs) Marshal() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	return canonical.Marshal(l)
}

// changeHostCAs takes one step under a lock: it loads the list, has step decide, and saves what that returns.
func changeHostCAs(dir string, step func(HostCAs) (HostCAs, error)) (l HostCAs, err error) {
	lock, err := os.OpenFile(filepath.Join(dir, keyDir, hostCAsFile+".lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return HostCAs{}, fmt.Errorf("locking the SSH host CAs: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return HostCAs{}, hint.New(fmt.Errorf("locking the SSH host CAs: %w", err), "another `fleetctl ca` runs; wait for it to end")
	}
	old, err := LoadHostCAs(dir)
	if err != nil {
		return HostCAs{}, err
	}
	if l, err = step(old); err != nil {
		return HostCAs{}, err
	}
	data, err := l.Marshal()
	if err != nil {
		return HostCAs{}, err
	}
	return l, durable.WriteFile(filepath.Join(dir, keyDir, hostCAsFile), data, 0o600)
}

// CAOverlap is how long the next CA is public before it signs, where nothing is said: a day, in which every engineer has logged in, or
// fetched a new known_hosts, once. Less overrides a promise.
const CAOverlap = 24 * time.Hour

// Leave is by whose leave a step of the CAs is taken.
type Leave struct {
	Request *request.Signed // nil: there is none
	Without bool            // set where nobody had to be asked, in a test fleet
}

func (l *Leave) take(dir string, asked request.Order, now time.Time) (err error) {
	l.Without, err = leaveForCA(dir, asked, l.Request, now)
	return err
}

// NextHostCA makes the key of the next CA. publish is called with the list before the signer's own is saved, so that no CA can ever
// sign that clients were not told of.
func NextHostCA(dir, domain string, leave *Leave, now time.Time, publish func(HostCAs) error) (HostCAs, error) {
	return changeHostCAs(dir, func(l HostCAs) (HostCAs, error) {
		if l.Find(CANext) >= 0 {
			return HostCAs{}, errors.New("there is a next CA already") // before a key is made for nothing
		}
		if err := leave.take(dir, request.CARotate(request.NewCA), now); err != nil {
			return HostCAs{}, err
		}
		file := fmt.Sprintf("%s-%s", hostCAFile, now.UTC().Format("20060102-150405.000000"))
		key, err := newSSHKey(filepath.Join(dir, keyDir, file), hostCAFile+"@"+domain)
		if err != nil {
			return HostCAs{}, err
		}
		next, err := l.withNext(key, file, now)
		if err != nil {
			return HostCAs{}, err
		}
		return next, publish(next)
	})
}

// UseHostCA lets the next CA sign, once it has been public for the overlap. A running signer goes by it from the next certificate on.
func UseHostCA(dir string, overlap time.Duration, leave *Leave, now time.Time) (HostCAs, error) {
	return changeHostCAs(dir, func(l HostCAs) (HostCAs, error) {
		next, err := l.used(now, overlap)
		if err != nil {
			return HostCAs{}, err
		}
		return next, leave.take(dir, UseOrder(next.Current().Fingerprint(), overlap), now)
	})
}

// UseOrder is the order to let the next CA sign.
func UseOrder(fingerprint string, overlap time.Duration) request.Order {
	if overlap < CAOverlap {
		return request.CAHurry(fingerprint, overlap)
	}
	return request.CARotate(fingerprint)
}

// RetireOrder is the order to believe a CA no more.
func RetireOrder(fingerprint string, compromised bool) request.Order {
	if compromised {
		return request.CACompromised(fingerprint)
	}
	return request.CARetire(fingerprint)
}

// RetireHostCA ends the belief in a CA and deletes its private key here.
func RetireHostCA(dir, fingerprint string, compromised bool, leave *Leave, now time.Time) (HostCAs, error) {
	var files []string
	l, err := changeHostCAs(dir, func(l HostCAs) (HostCAs, error) {
		for _, c := range l.CAs {
			if c.Fingerprint() == fingerprint && c.File != "" {
				files = append(files, c.File)
			}
		}
		next, err := l.retired(fingerprint, compromised, now)
		if err != nil || len(files) == 0 { // retired before: nothing more is done
			return next, err
		}
		return next, leave.take(dir, RetireOrder(fingerprint, compromised), now)
	})
	if err != nil {
		return HostCAs{}, err
	}
	for _, f := range files {
		for _, name := range []string{f, f + ".pub"} {
			if err := os.Remove(filepath.Join(dir, keyDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return HostCAs{}, fmt.Errorf("deleting the retired CA's key: %w", err)
			}
		}
	}
	return l, nil
}

// hostCA is the signer's hold on the CA that signs. It follows the list in its file.
type hostCA struct {
	dir string

	mu     sync.Mutex // guards the rest
	data   []byte     // the list that key is from
	key    ssh.Signer
	loaded bool
}

// current returns the CA's key as the list is now.
func (h *hostCA) current() (ssh.Signer, error) {
	l, err := LoadHostCAs(h.dir)
	if err != nil {
		return nil, err
	}
	data, err := l.Marshal()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loaded && bytes.Equal(data, h.data) {
		return h.key, nil
	}
	c := l.Current()
	if c.File != filepath.Base(c.File) {
		return nil, fmt.Errorf("loading the SSH host CA: %q is no file name", c.File)
	}
	secret, err := durable.ReadSecret(filepath.Join(h.dir, keyDir, c.File))
	if err != nil {
		return nil, fmt.Errorf("loading the SSH host CA: %w", err)
	}
	key, err := ssh.ParsePrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("loading the SSH host CA %s: %w", c.File, err)
	}
	if trust.FormatKey(key.PublicKey()) != c.Key {
		return nil, fmt.Errorf("loading the SSH host CA: %s is not the key that the list names", c.File)
	}
	h.data, h.key, h.loaded = data, key, true
	return key, nil
}
