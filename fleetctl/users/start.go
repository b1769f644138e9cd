package users

import (
	"fmt"
	"os"

	"mayfly/internal/account"
	"mayfly/internal/hint"
)

// Reason codes of a Refused.
const (
	WrongUser   = "wrong_user"   // this is another's to do
	WrongLayout = "wrong_layout" // something of the state directory is not whose it has to be
)

// Refused is why a process does not begin.
type Refused struct {
	Reason string
	Err    error
}

func (r *Refused) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Refused makes a program exit with "refused by policy".
func (r *Refused) Refused() bool { return true }

// Become makes this process the user of a role: root becomes that one for good, and everybody else is refused. With one user there is nothing to do.
func (t Table) Become(r Role) (changed bool, err error) {
	if !t.Separate {
		return false, nil
	}
	uid, ok := t.UID(r)
	if !ok {
		return false, &Refused{WrongUser, fmt.Errorf("nobody is %q", r)}
	}
	switch now := os.Geteuid(); {
	case now == uid:
		return false, nil
	case now != 0:
		return false, hint.New(&Refused{WrongUser, fmt.Errorf("this is for %s (%s), not for %s", account.Name(uid), r, account.Name(now))}, "run this as that user: %s", account.RunAs(uid))
	}
	gid := -1 // its own
	if r != Checkin {
		gid = t.Group
	}
	return true, account.Act(uid, gid)
}

// Start is how a long-lived process begins: as the user of its role, in a directory where everything that it can see is whose it has to be.
func Start(dir string, r Role) (Table, error) {
	t, err := Load(dir)
	if err != nil {
		return t, err
	}
	if _, err := t.Become(r); err != nil {
		return t, err
	}
	found, err := t.Check(dir)
	if err != nil {
		return t, err
	}
	if len(found) > 0 {
		more := ""
		if len(found) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(found)-1)
		}
		return t, hint.New(&Refused{WrongLayout, fmt.Errorf("%s%s", found[0], more)}, "find out who changed it; then, as root: fleetctl doctor --fix --dir %s", dir)
	}
	return t, nil
}
