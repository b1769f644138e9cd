package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/inventory"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
)

const (
	tunnelInterface = "mayfly0"
	tunnelConf      = tunnelDir + "/server.json"
	tunnelChain     = tunnelDir + "/tls.pem"
	tunnelTLSKey    = tunnelDir + "/tls.key"
	tunnelKey       = tunnelDir + "/wg.key"
	tunnelControl   = tunnelDir + "/control.sock"
	tunnelLife      = tunnelDir + "/life"
	controlDeadline = 3 * time.Second
	maxControl      = 4 << 10
)

// tunnelConfig is server.json, which `tunnel server` reads (its package is not linked here: what is shared is the file).
type tunnelConfig struct {
	Name        string         `json:"name"`
	FQDN        string         `json:"fqdn"`
	Listen      string         `json:"listen"`
	Register    string         `json:"register"`
	Network     string         `json:"network"`
	Certificate string         `json:"certificate"`
	Key         string         `json:"key"`
	PrivateKey  string         `json:"private_key"`
	Control     string         `json:"control"`
	Management  []netip.Prefix `json:"management"`
	Outside     string         `json:"outside"`
	Life        string         `json:"life"`
}

func tunnelConfiguration(f inventory.Fleet, s inventory.Server) ([]byte, error) {
	data, err := json.MarshalIndent(tunnelConfig{
		Name:        s.Name,
		FQDN:        f.FQDN(s.Name),
		Listen:      netip.AddrPortFrom(netip.IPv4Unspecified(), inventory.PortTunnel).String(),
		Register:    fmt.Sprintf(":%d", inventory.PortRegister),
		Network:     s.Tunnel.Masked().String(),
		Certificate: tunnelChain,
		Key:         tunnelTLSKey,
		PrivateKey:  tunnelKey,
		Control:     tunnelControl,
		Management:  f.Network.Management,
		Outside:     outside,
		Life:        tunnelLife,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", tunnelConf, err)
	}
	return append(data, '\n'), nil
}

// tunnelService runs as its own user: of root's powers it keeps the network's.
func tunnelService() spec {
	return spec{
		name: "tunnel", path: release.TunnelPath, args: []string{"server", "--config", tunnelConf},
		uid: tunnelUID, caps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
	}
}

// tunnelStatus is what the control socket answers.
type tunnelStatus struct {
	Ready    bool `json:"ready"`
	Peers    int  `json:"peers"`
	Draining bool `json:"draining"`
	Drained  bool `json:"drained"`
	Forced   bool `json:"forced"`
}

// tunnelClient talks to the control socket.
type tunnelClient struct{ http *http.Client }

func newTunnelClient(socket string) *tunnelClient {
	d := &net.Dialer{Timeout: controlDeadline}
	return &tunnelClient{&http.Client{
		Timeout: controlDeadline,
		Transport: &http.Transport{
			DisableKeepAlives: true, // the tunnel may have been started again
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "unix", socket)
			},
		},
	}}
}

func (c *tunnelClient) status(ctx context.Context) (tunnelStatus, error) {
	return c.ask(ctx, http.MethodGet, "/status", nil)
}

func (c *tunnelClient) drain(ctx context.Context, limit time.Duration) (tunnelStatus, error) {
	body, err := json.Marshal(join.Drain{Limit: limit})
	if err != nil {
		return tunnelStatus{}, fmt.Errorf("ordering the tunnel to drain: %w", err)
	}
	return c.ask(ctx, http.MethodPost, "/drain", body)
}

func (c *tunnelClient) ask(ctx context.Context, method, path string, body []byte) (tunnelStatus, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://tunnel"+path, bytes.NewReader(body))
	if err != nil {
		return tunnelStatus{}, fmt.Errorf("asking the tunnel: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return tunnelStatus{}, fmt.Errorf("asking the tunnel: %w", err)
	}
	defer res.Body.Close()
	data, err := join.ReadBody(res.Body, maxControl)
	if err != nil {
		return tunnelStatus{}, fmt.Errorf("asking the tunnel: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return tunnelStatus{}, fmt.Errorf("asking the tunnel for %s: status %d", path, res.StatusCode)
	}
	var s tunnelStatus
	if err := json.Unmarshal(data, &s); err != nil {
		return tunnelStatus{}, fmt.Errorf("asking the tunnel: %w", err)
	}
	return s, nil
}
