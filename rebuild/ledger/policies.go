package ledger

import (
	"fmt"

	"mayfly/policies/trust"
)

// Policies are the trust policies of a fleet, by the SHA-256 of their files.
type Policies map[string]*trust.Trust

// Chain finds the policies that belong to one that is believed: those after it by the signatures that let each follow (trust.Follow), those
// before it because each names the SHA-256 of the one that it follows. read returns nothing where there is none. It returns the newest as well.
func Chain(t *trust.Trust, read func(version uint64) (data, sigs []byte, err error)) (Policies, *trust.Trust, error) {
	all := Policies{t.Sum(): t}
	for at := t; at.Version > 1; {
		data, _, err := read(at.Version - 1)
		if err != nil {
			return nil, nil, err
		}
		if data == nil {
			break // older entries will say that they are under a policy that is not known
		}
		if trust.Sum(data) != at.Previous {
			return nil, nil, fmt.Errorf("trust policy %d is not the one that %d follows", at.Version-1, at.Version)
		}
		older, err := trust.Parse(data)
		if err != nil {
			return nil, nil, fmt.Errorf("trust policy %d: %w", at.Version-1, err)
		}
		if older.Version != at.Version-1 {
			return nil, nil, fmt.Errorf("trust policy %d says version %d", at.Version-1, older.Version)
		}
		all[at.Previous] = older
		at = older
	}
	newest, steps, err := trust.Follow(t, read)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range steps {
		all[s.Trust.Sum()] = s.Trust
	}
	return all, newest, nil
}
