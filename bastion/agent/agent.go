package agent

import (
	"crypto/rand"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Config says what an agent does. The zero values of its bounds are the defaults; Cards and Log must be there.
type Config struct {
	Cards      Cards
	Log        *slog.Logger
	Chain      []string // sockets of other agents, whose keys come after ours
	KnownHosts []string // files
	PINs       []PINWay // in the order in which they are tried
	Displays   []Display

	RequireBinding   bool // a login needs a verified session-bind@openssh.com
	RefuseForwarded  bool // nothing is signed through a forwarded agent
	AllowUnknownData bool // what is neither a login nor an SSH signature of a file is signed too

	PINTime, TouchTime time.Duration
}

// Agent serves one user's programs.
type Agent struct {
	config   Config
	log      *slog.Logger
	rules    rules
	hosts    knownHosts
	keyring  *keyring
	pins     *pinAsker
	displays []Display
	uid      int // whose programs are served
	id       [agentID]byte

	done sync.WaitGroup // of notices

	mu   sync.Mutex
	told time.Time // when a refusal was shown last
}

// New makes an agent for the user who runs it.
func New(config Config) *Agent {
	if config.PINTime <= 0 {
		config.PINTime = DefaultPINTime
	}
	if config.TouchTime <= 0 {
		config.TouchTime = DefaultTouchTime
	}
	a := &Agent{
		config:   config,
		log:      config.Log,
		rules:    rules{requireBinding: config.RequireBinding, refuseForwarded: config.RefuseForwarded, allowUnknownData: config.AllowUnknownData},
		hosts:    knownHosts{config.KnownHosts, time.Now},
		keyring:  newKeyring(config.Cards, config.Log, busyTime),
		pins:     newPINAsker(config.PINs, config.PINTime, config.Log),
		displays: config.Displays,
		uid:      os.Getuid(),
	}
	rand.Read(a.id[:]) // never fails
	return a
}

// tell shows the person a refusal, of many at once the first: programs only say that the agent refused.
func (a *Agent) tell(r *Refusal, purpose string) {
	a.mu.Lock()
	now := time.Now()
	soon := !a.told.IsZero() && now.Sub(a.told) < refusalsEach
	if !soon {
		a.told = now
	}
	a.mu.Unlock()
	if !soon {
		a.show(Notice{Title: "Not signed (" + string(r.Reason) + ")", Body: purpose + ": " + r.Error()})("")
	}
}
