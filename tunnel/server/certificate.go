package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"mayfly/internal/durable"
)

// lookEvery is how often the certificate's file is looked at.
const lookEvery = time.Second

// certificate is read again when its file changes; while the new one cannot be read, the old one stays.
type certificate struct {
	chain, key string
	log        *slog.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  [2]stamp
	loaded *tls.Certificate
}

// stamp tells whether a file was replaced or written to.
type stamp struct {
	changed time.Time
	size    int64
	info    os.FileInfo
}

func loadCertificate(chain, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{chain: chain, key: key, log: log, looked: time.Now()}
	stamps, err := c.stamps()
	if err != nil {
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	if c.loaded, err = c.read(); err != nil {
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	c.stamp = stamps
	return c, nil
}

func (c *certificate) read() (*tls.Certificate, error) {
	chain, err := os.ReadFile(c.chain)
	if err != nil {
		return nil, err
	}
	key, err := durable.ReadSecret(c.key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

func (c *certificate) stamps() (s [2]stamp, err error) {
	for i, path := range []string{c.chain, c.key} {
		info, err := os.Stat(path)
		if err != nil {
			return s, err
		}
		s[i] = stamp{changed: info.ModTime(), size: info.Size(), info: info}
	}
	return s, nil
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		c.refresh()
	}
	if c.loaded == nil {
		return nil, errors.New("no certificate")
	}
	return c.loaded, nil
}

func (c *certificate) refresh() {
	stamps, err := c.stamps()
	if err != nil {
		c.log.Warn("the certificate cannot be read again; the old one stays", "error", err)
		return
	}
	same := true
	for i, s := range stamps {
		was := c.stamp[i]
		same = same && s.changed.Equal(was.changed) && s.size == was.size && os.SameFile(s.info, was.info)
	}
	if same {
		return
	}
	loaded, err := c.read()
	if err != nil {
		c.log.Warn("the certificate cannot be read again; the old one stays", "error", err)
		return
	}
	c.loaded, c.stamp = loaded, stamps
	c.log.Info("certificate read again", "not_after", loaded.Leaf.NotAfter)
}

// tlsConfig is TLS 1.3 only, hybrid post-quantum where the client can.
func (c *certificate) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		GetCertificate:         c.get,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}
}
