package chain

import (
	"errors"
	"fmt"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
)

// errFirst is what comes before the first version.
var errFirst = errors.New("nothing comes before it")

// Before returns the trust policy that t follows, from the directory. t names its hash: what else lies there in its place, whoever put it there,
// is refused. Its signatures do not matter: t is believed, and was signed with that hash in it.
func Before(t *trust.Trust, dir string) (*trust.Trust, []byte, error) {
	if t.Version <= 1 || t.Previous == "" {
		return nil, nil, fmt.Errorf("trust policy %d: %w", t.Version, errFirst)
	}
	version := t.Version - 1
	data, err := durable.ReadRegular(File(dir, version), trust.MaxSize)
	if err != nil {
		return nil, nil, hint.New(fmt.Errorf("going back from trust policy %d: %w", t.Version, err), "copy the controller's public/trust, whole")
	}
	if sum := trust.Sum(data); sum != t.Previous {
		return nil, nil, hint.New(&trust.Refusal{Reason: trust.Forked, Err: fmt.Errorf("%s has sha256 %s, and version %d followed %s", File(dir, version), sum, t.Version, t.Previous)},
			"somebody put another trust policy there: find out who, and copy the controller's public/trust once more; `fleetctl trust verify` says where it breaks")
	}
	before, err := trust.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", File(dir, version), err)
	}
	if before.Version != version || before.Fleet != t.Fleet {
		return nil, nil, &trust.Refusal{Reason: trust.Forked, Err: fmt.Errorf("%s is version %d of fleet %q", File(dir, version), before.Version, before.Fleet)}
	}
	return before, data, nil
}

// Back goes from a trust policy that is believed back to an older version, one step after the other, and returns its bytes.
func Back(from *trust.Trust, version uint64, dir string) ([]byte, error) {
	if version == 0 || version >= from.Version || from.Version-version > trust.MaxSteps {
		return nil, fmt.Errorf("version %d is not one of the %d before version %d", version, trust.MaxSteps, from.Version)
	}
	for {
		before, data, err := Before(from, dir)
		if err != nil {
			return nil, err
		}
		if before.Version == version {
			return data, nil
		}
		from = before
	}
}
