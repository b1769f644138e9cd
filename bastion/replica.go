package bastion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/hint"
)

// Implementation constants of the audit log's replica.
const (
	replicaLimit  = 10 * time.Second // for one batch
	maxReplicaSay = 4 << 10
)

// checkReplica wants a program of this machine: it is what proves to the controller whose log this is, so the way to it is the
// machine's own.
func checkReplica(text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return netip.AddrPort{}, fmt.Errorf("%q is not http://ADDRESS:PORT", text)
	}
	at, err := netip.ParseAddrPort(u.Host)
	if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no loopback address with a port", u.Host)
	}
	return at, nil
}

// replica sends what the audit log holds to where it outlives this machine. Nil: nowhere.
func (c Config) replica() audit.Replica {
	if c.AuditReplica == "" {
		return nil
	}
	client := &http.Client{
		Timeout:       replicaLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableCompression: true, DisableKeepAlives: true},
	}
	return func(b audit.Batch) (audit.Kept, error) {
		body, err := json.Marshal(b)
		if err != nil {
			return audit.Kept{}, err
		}
		resp, err := client.Post(c.AuditReplica, "application/json", bytes.NewReader(body))
		if err != nil {
			return audit.Kept{}, hint.New(err, "the machine's own program brings records to the controller: is it running?")
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxReplicaSay+1))
		if err != nil {
			return audit.Kept{}, err
		}
		if len(data) > maxReplicaSay {
			return audit.Kept{}, errors.New("the replica's answer is too long")
		}
		if resp.StatusCode != http.StatusOK {
			return audit.Kept{}, fmt.Errorf("the replica answers with status %d: %s", resp.StatusCode, escape(string(data), maxDetail))
		}
		var kept audit.Kept
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(&kept); err != nil {
			return audit.Kept{}, fmt.Errorf("reading the replica's answer: %w", err)
		}
		return kept, nil
	}
}

// replicaPort is what the sandbox leaves open for it.
func (a *allowances) replica(c Config) {
	if at, err := checkReplica(c.AuditReplica); err == nil && at.IsValid() {
		a.Connect = append(a.Connect, at.Port())
	}
}
