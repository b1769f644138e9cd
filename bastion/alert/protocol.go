package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
)

// Settings are the first line that the bastion writes to bastion-alerts: where alerts go. No secret is in it, and none is in an argument.
type Settings struct {
	Webhook string `json:"webhook,omitempty"` // https URL
	Token   string `json:"token,omitempty"`   // file with the secret that goes with it
	CA      string `json:"ca,omitempty"`      // file with the certificates that its server may have one of; the system's if left out
	Exec    string `json:"exec,omitempty"`    // program
}

// Check refuses what cannot be delivered to, and a URL with a secret where URLs have them.
func (s Settings) Check() error {
	if s.Webhook != "" {
		u, err := url.Parse(s.Webhook)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
			return fmt.Errorf("webhook %q is no https URL", s.Webhook)
		}
		if u.User != nil || u.RawQuery != "" {
			return errors.New("webhook: the URL has a password or a query: a secret belongs into the file that token names")
		}
	}
	switch {
	case s.Webhook == "" && s.Exec == "":
		return errors.New("neither webhook nor exec")
	case s.Webhook == "" && (s.Token != "" || s.CA != ""):
		return errors.New("token or ca without webhook")
	}
	for _, p := range []struct{ key, path string }{{"token", s.Token}, {"ca", s.CA}, {"exec", s.Exec}} {
		if p.path != "" && !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s %q is no absolute path", p.key, p.path)
		}
	}
	return nil
}

// ParseSettings reads the first line.
func ParseSettings(line []byte) (Settings, error) {
	var s Settings
	if err := strict(line, &s); err != nil {
		return Settings{}, fmt.Errorf("reading settings: %w", err)
	}
	return s, s.Check()
}

// Ready is the first line that bastion-alerts writes back, once it has found everything that the settings name.
const Ready = "ready\n"

// What became of an alert at one of the places that it goes to.
const (
	Sent    = "sent"
	Failed  = "failed"  // given up
	Dropped = "dropped" // too many waited
)

// Receipt is a line that bastion-alerts writes back.
type Receipt struct {
	Kind    Kind   `json:"kind"`
	To      string `json:"to"` // "webhook" or "exec"
	Outcome string `json:"outcome"`
}

// Marshal is the receipt on one line.
func (r Receipt) Marshal() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic("alert: internal error: " + err.Error())
	}
	return append(data, '\n')
}

// ParseReceipt reads one.
func ParseReceipt(line []byte) (Receipt, error) {
	var r Receipt
	if err := strict(line, &r); err != nil {
		return Receipt{}, fmt.Errorf("reading a receipt: %w", err)
	}
	if !slices.Contains(Kinds, r.Kind) || r.To != "webhook" && r.To != "exec" || r.Outcome != Sent && r.Outcome != Failed && r.Outcome != Dropped {
		return Receipt{}, errors.New("reading a receipt: it is none")
	}
	return r, nil
}
