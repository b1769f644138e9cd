package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/inventory"
)

// Implementation constants of taking up.
const (
	epochMargin = 512 // that the next life's number jumps where the signer's word is not to be had; the signer takes 1024
	restored    = "restored from a backup"
)

// Admitted is what the signer knows of a server's latest life.
type Admitted struct {
	Server    string
	Epoch     uint64 // 0: none was admitted
	Signed    uint64 // the highest that a ticket was signed for
	TLSKey    string // SHA-256, hex
	HostKey   string
	TunnelKey string // "" with BootID, for a life that began before the signer kept them
	BootID    string
	Evidence  string
	Release   string // its version; "" if the ledger did not say
	Began     time.Time
	Joined    time.Time
	Ends      time.Time
	Held      time.Time // an engineer was let onto it, and may be there until then; zero: not
	Extended  bool
	Revoked   bool
}

// TakenUp is what became of the servers whose lives went on after the backup.
type TakenUp struct {
	Lost     bool     // nothing is known of any
	Newer    []string // taken up as the signer admitted them
	Between  []string // a next life was being made: quarantined, for nobody knows how far it came
	Unknown  []string // refused until they are rebuilt
	Releases []string // that lives boot and the backup does not have in use
}

// TakeUp brings a backup's servers to where the signer knows that they are, and lets no number of a life be given again. Of a life whose
// machine the signer does not know well enough nothing is guessed.
func (c *Content) TakeUp(lives map[string]Admitted, now time.Time) TakenUp {
	f := TakenUp{Lost: lives == nil}
	revoked := map[string]bool{}
	for _, x := range c.Revoked {
		revoked[fmt.Sprint(x.Server, " ", x.Epoch)] = true
	}
	for i := range c.Servers {
		r := &c.Servers[i]
		v, ok := lives[r.Name]
		if !ok {
			r.Floor = max(r.Floor, r.Epoch+epochMargin)
			if !f.Lost && r.TLSKey != "" {
				f.Unknown = append(f.Unknown, r.Name)
			}
			continue
		}
		r.Floor = max(r.Floor, r.Epoch+1, v.Epoch+1, v.Signed+1)
		switch {
		case v.Signed > v.Epoch && v.Signed > r.Epoch:
			r.Server = Server{Name: r.Name, State: inventory.Quarantined, Epoch: v.Signed, Since: now, Cause: restored + ": whether this life came up is not known"}
			r.Report, r.ReportAt = nil, time.Time{}
			f.Between = append(f.Between, r.Name)
		case v.Epoch < r.Epoch || v.Epoch == r.Epoch && v.TLSKey == r.TLSKey:
			c.same(r, v)
		case v.BootID == "" || v.TunnelKey == "":
			f.Unknown = append(f.Unknown, r.Name)
		default:
			f.Newer = append(f.Newer, r.Name)
			r.Server, r.Report, r.ReportAt = lifeOf(v, now), nil, time.Time{}
			if v.Extended {
				c.extend(v)
			}
			if v.Release != "" && !c.usesRelease(v.Release) && !slices.Contains(f.Releases, v.Release) {
				f.Releases = append(f.Releases, v.Release)
			}
		}
		if v.Revoked && !revoked[fmt.Sprint(v.Server, " ", v.Epoch)] {
			c.Revoked = append(c.Revoked, Ended{Server: v.Server, Epoch: v.Epoch, At: now})
		}
	}
	for i := range c.Runs {
		if r := &c.Runs[i]; r.Ended.IsZero() { // its plan is of lives that are over
			r.Ended, r.Result = now, restored
		}
	}
	if len(f.Releases) > 0 && !c.Pause.On {
		c.Pause = Pause{On: true, By: "restore", Why: restored + ": lives boot a release that it does not have in use", At: now}
	}
	return f
}

// same takes what happened to a life that the backup knows: more time, an engineer.
func (c *Content) same(r *Record, v Admitted) {
	if v.Epoch != r.Epoch || v.Epoch == 0 {
		return
	}
	if v.Extended && !v.Ends.Equal(r.Deadline) {
		r.Deadline, r.Extended = v.Ends, true
		c.extend(v)
	}
	if !v.Held.IsZero() && !r.Tainted {
		r.State, r.Tainted, r.HeldUntil, r.TaintReason = inventory.Draining, true, v.Held, restored
	}
}

// lifeOf is a life as the signer admitted it. It serves, where its own reports say so; that a health gate saw it before is not known, and
// whatever is wrong with it is found as with every server that serves.
func lifeOf(v Admitted, now time.Time) Server {
	s := Server{Name: v.Server, State: inventory.Serving, Epoch: v.Epoch, Since: now, Cause: restored + ", as the signer admitted it", Release: v.Release,
		BootID: v.BootID, HostKey: v.HostKey, TunnelKey: v.TunnelKey, TLSKey: v.TLSKey, Evidence: v.Evidence, BootedAt: v.Began, JoinedAt: v.Joined, Deadline: v.Ends,
		Revoked: v.Revoked, Extended: v.Extended}
	if !v.Held.IsZero() {
		s.State, s.Tainted, s.HeldUntil, s.TaintReason = inventory.Draining, true, v.Held, restored
	}
	return s
}

// extend notes that a life goes on beyond its first deadline. The statement is in the ledger, and its server has it already.
func (c *Content) extend(v Admitted) {
	e := Of[Extension]{Server: v.Server, Value: Extension{Epoch: v.Epoch}}
	i, ok := slices.BinarySearchFunc(c.Extensions, v.Server, func(x Of[Extension], name string) int { return strings.Compare(x.Server, name) })
	if ok {
		c.Extensions[i] = e
	} else {
		c.Extensions = slices.Insert(c.Extensions, i, e)
	}
}

func (c *Content) usesRelease(version string) bool {
	return c.Use == nil || fmt.Sprint(c.Use.Version) == version || slices.ContainsFunc(c.Marks, func(m Mark) bool { return m.Mark == Good && fmt.Sprint(m.Version) == version })
}
