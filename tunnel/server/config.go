package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// Interface is the name of a server's TUN.
const Interface = "mayfly0"

// maxConfig bounds server.json, in bytes.
const maxConfig = 64 << 10

// Config is server.json, which mayfly-init writes.
type Config struct {
	Name        string         `json:"name"`
	FQDN        string         `json:"fqdn"`        // the name in its certificate
	Listen      netip.AddrPort `json:"listen"`      // WireGuard; the address must be 0.0.0.0: it listens on all
	Register    string         `json:"register"`    // TCP, "[IP]:PORT"
	Network     netip.Prefix   `json:"network"`     // the first host is the server's own
	Certificate string         `json:"certificate"` // PEM chain, read again when the file changes
	Key         string         `json:"key"`
	PrivateKey  string         `json:"private_key"` // file with the WireGuard key, base64
	Control     string         `json:"control"`     // path of the Unix socket
	Management  []netip.Prefix `json:"management"`  // never reachable from inside
	Outside     string         `json:"outside"`     // the interface that leads out
	Life        string         `json:"life"`        // file with the proof of this life, read when a client asks; may be missing, or ""
}

// LoadConfig reads server.json strictly.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the server's configuration: %w", err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
		if hint.Of(err) == "" {
			err = hint.New(err, "mayfly-init writes it from the signed inventory; docs/formats/registration.md has its keys")
		}
		return c, err
	}
	return c, nil
}

// ParseConfig reads and checks a configuration.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	if err := wire.Decode(bytes.NewReader(data), maxConfig, &c); err != nil {
		return c, err
	}
	return c, c.check()
}

func (c Config) check() error {
	for _, f := range []struct{ key, value string }{
		{"name", c.Name}, {"fqdn", c.FQDN}, {"register", c.Register}, {"certificate", c.Certificate}, {"key", c.Key},
		{"private_key", c.PrivateKey}, {"control", c.Control}, {"outside", c.Outside},
	} {
		if f.value == "" {
			return fmt.Errorf("no %s", f.key)
		}
	}
	switch {
	case !c.Listen.IsValid() || c.Listen.Port() == 0:
		return errors.New("no listen address: want \"0.0.0.0:51820\"")
	case !c.Listen.Addr().IsUnspecified():
		return hint.New(fmt.Errorf("listen %q: WireGuard listens on every address", c.Listen), "write 0.0.0.0 and let the host's firewall choose")
	case len(c.Management) == 0:
		return hint.New(errors.New("no management prefixes"), "clients must never reach the fleet's own network: list its prefixes")
	}
	if err := inventory.CheckTunnel(c.Network); err != nil {
		return hint.New(err, "for example \"10.64.1.0/24\"")
	}
	for _, m := range c.Management {
		if !m.IsValid() {
			return errors.New("a management prefix is not valid")
		}
		if m.Overlaps(c.Network) {
			return fmt.Errorf("network %s overlaps the management prefix %s", c.Network, m)
		}
	}
	return nil
}

// Address is the server's own address in the tunnel.
func (c Config) Address() netip.Addr { return c.Network.Addr().Next() }

// wireguardKey reads the private key.
func (c Config) wireguardKey() (device.Key, error) {
	data, err := durable.ReadSecret(c.PrivateKey)
	if err != nil {
		return device.Key{}, err
	}
	k, err := device.ParseKey(string(bytes.TrimSpace(data)))
	if err != nil {
		return k, fmt.Errorf("%s: %w", c.PrivateKey, err)
	}
	return k, nil
}
