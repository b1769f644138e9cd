package bastion

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"mayfly/internal/hint"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 64 << 10

// Config is bastion.toml. Relative paths are relative to the file's own directory.
type Config struct {
	Listen          netip.AddrPort `toml:"listen"`           // where engineers connect
	Trust           string         `toml:"trust"`            // trust.json: who may sign a policy
	Bundle          string         `toml:"bundle"`           // bundle.json; its signatures are in FILE.sig
	HostKey         string         `toml:"host_key"`         // Ed25519 private key, OpenSSH form, mode 0600
	HostCertificate string         `toml:"host_certificate"` // its certificate, authorized_keys form
	Audit           string         `toml:"audit"`            // the audit log, written by this process only
}

// LoadConfig reads and checks a configuration file.
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, hint.New(fmt.Errorf("reading configuration: %w", err), "name the file with --config")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	c, err := parseConfig(path, data)
	if err != nil {
		return Config{}, err
	}
	for _, p := range c.paths() {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return c, nil
}

func (c *Config) paths() map[string]*string {
	return map[string]*string{"trust": &c.Trust, "bundle": &c.Bundle, "host_key": &c.HostKey,
		"host_certificate": &c.HostCertificate, "audit": &c.Audit}
}

// parseConfig is strict: an unknown key, a duplicate, a wrong type or a missing value is an error with its line.
func parseConfig(name string, data []byte) (Config, error) {
	if len(data) > maxConfig {
		return Config{}, fmt.Errorf("%s: larger than %d bytes", name, maxConfig)
	}
	var c Config
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&c)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		row, _ := unknown.Errors[0].Position()
		return Config{}, hint.New(fmt.Errorf("%s:%d: unknown key %q", name, row, strings.Join(unknown.Errors[0].Key(), ".")),
			"the keys are listen, trust, bundle, host_key, host_certificate and audit")
	case errors.As(err, &wrong):
		row, _ := wrong.Position()
		return Config{}, hint.New(fmt.Errorf("%s:%d: %s", name, row, strings.TrimPrefix(wrong.Error(), "toml: ")),
			`every value is a string in quotes, for example listen = "10.77.0.2:22"`)
	case err != nil:
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	if !c.Listen.IsValid() {
		return Config{}, hint.New(fmt.Errorf("%s: listen is missing", name), `an address and a port: listen = "10.77.0.2:22"`)
	}
	for _, key := range []string{"trust", "bundle", "host_key", "host_certificate", "audit"} {
		if *c.paths()[key] == "" {
			return Config{}, hint.New(fmt.Errorf("%s: %s is missing", name, key), "the path of a file")
		}
	}
	return c, nil
}
