package checkin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"mayfly/internal/canonical"
	"mayfly/internal/hint"
	"mayfly/policies/ledger"
)

// MaxConfig bounds client.json, in bytes.
const MaxConfig = 64 << 10

// ParseConfig reads client.json: canonical JSON, as `fleetctl init` wrote it. It is the one reader of that file, check-in's own too.
func ParseConfig(data []byte) (ClientConfig, error) {
	var c ClientConfig
	if err := canonical.Parse(data, MaxConfig, &c); err != nil {
		if at, ok := place(data, err); ok {
			err = fmt.Errorf("line %d: %w", line(data, at), err)
		}
		return c, err
	}
	if !label(c.Fleet) {
		return c, fmt.Errorf("fleet %q is not a lower-case DNS label", c.Fleet)
	}
	if c.Domain == "" {
		return c, errors.New("no domain")
	}
	if c.CA == "" {
		return c, errors.New("no ca: the fleet's TLS CA is needed")
	}
	if _, err := netip.ParseAddrPort(c.Checkin); err != nil {
		return c, fmt.Errorf("checkin %q is not IP:PORT", c.Checkin)
	}
	if c.Name == "" {
		return c, errors.New("no name: the name in check-in's certificate is needed")
	}
	if len(c.ListKeys) == 0 {
		return c, errors.New("no list_keys: nothing could be believed")
	}
	return c, c.CheckRequire()
}

// CheckRequire says what is wrong with what is asked of servers, and with the keys that it takes.
func (c ClientConfig) CheckRequire() error {
	keys, err := c.LedgerKeys()
	switch {
	case err != nil:
		return fmt.Errorf("ledger: %w", err)
	case c.Ledger != nil && (c.Ledger.Threshold < 0 || c.Ledger.Threshold > len(c.Ledger.Witnesses)):
		return fmt.Errorf("ledger: threshold is %d of %d witnesses", c.Ledger.Threshold, len(c.Ledger.Witnesses))
	case !ledger.IsRequirement(c.Require):
		return fmt.Errorf("require %.40q is neither %q nor %q", c.Require, ledger.RequireLogged, ledger.RequireAttested)
	case c.Require != ledger.RequireNothing && len(keys.Ledger) == 0:
		return errors.New("require asks for a server's life, and ledger has no keys to believe it by")
	}
	return nil
}

// LoadConfig reads the file that fleetctl publishes for apps.
func LoadConfig(path string) (ClientConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return ClientConfig{}, fmt.Errorf("reading the client configuration: %w", err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		return c, hint.New(fmt.Errorf("%s: %w", path, err), "take the fleet's public/client.json, which fleetctl init writes")
	}
	return c, nil
}

// place is where in data a decoding error was met, if the error tells.
func place(data []byte, err error) (int64, bool) {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind):
		return kind.Offset, true
	case errors.As(err, &syntax):
		return syntax.Offset, true
	}
	// The library tells the name of an unknown field, but not its place.
	if name, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
		if i := bytes.Index(data, []byte(name)); i >= 0 {
			return int64(i), true
		}
	}
	return 0, false
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(int(offset), len(data))], []byte{'\n'})
}
