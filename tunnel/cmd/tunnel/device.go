package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"mayfly/internal/command"
	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// maxDeviceConfig bounds the file of `tunnel device`, in bytes.
const maxDeviceConfig = 64 << 10

// deviceConfig is one end of a tunnel with one fixed peer.
type deviceConfig struct {
	Name       string         `json:"name"`
	PrivateKey string         `json:"private_key"`
	Port       uint16         `json:"port"`
	PeerKey    string         `json:"peer_key"`
	Endpoint   netip.AddrPort `json:"endpoint"`
	Allowed    []netip.Prefix `json:"allowed"`
}

var deviceVerb = command.Verb{
	Name:    "device",
	Args:    "--config FILE",
	Summary: "run the data plane alone, with one fixed peer (for measuring)",
	Help: `Addresses and routes are the caller's. It prints "ready" when the interface is there. The benchmark uses it.

Example: tunnel device --config a.json`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		path := fs.String("config", "", "JSON: name, private_key, port, peer_key, endpoint, allowed")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs.Args()); err != nil {
			return err
		}
		if *path == "" {
			return command.Usagef("no --config")
		}
		dev, err := openDevice(*path)
		if err != nil {
			return err
		}
		defer dev.Close()
		boundMemory()
		if _, err := fmt.Fprintln(c.Stdout, "ready"); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-dev.Wait():
			return errors.New("the interface is gone")
		}
	},
}

func openDevice(path string) (*device.Device, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the device's configuration: %w", err)
	}
	defer f.Close()
	var config deviceConfig
	if err := wire.Decode(f, maxDeviceConfig, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	private, err := device.ParseKey(config.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("%s: private_key: %w", path, err)
	}
	peer, err := device.ParsePublicKey(config.PeerKey)
	if err != nil {
		return nil, fmt.Errorf("%s: peer_key: %w", path, err)
	}
	dev, err := device.New(device.Config{Name: config.Name, PrivateKey: private, Port: config.Port})
	if err != nil {
		return nil, err
	}
	err = dev.AddPeer(device.Peer{PublicKey: peer, Endpoint: config.Endpoint, Allowed: config.Allowed, Keepalive: 25 * time.Second})
	if err != nil {
		dev.Close()
		return nil, err
	}
	return dev, nil
}
