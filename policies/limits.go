package policies

import "time"

// Limits is a policy's SSH limits with the defaults filled in: every field is positive.
type Limits struct {
	HandshakeDeadline time.Duration
	IdleTimeout       time.Duration
	SessionLimit      time.Duration
	MaxStartups       int
	MaxPerSource      int
	MaxSessions       int
	MaxPerEngineer    int
	MaxChannels       int
	MaxRobots         int
	MaxPerRobot       int
}

// Defaults of the limits that a policy leaves out.
var defaults = Limits{
	HandshakeDeadline: 20 * time.Second, // a person has to find the key and touch it
	IdleTimeout:       15 * time.Minute,
	SessionLimit:      12 * time.Hour,
	MaxStartups:       1024, // waiting costs little, and a small table turns over faster than a client can greet
	MaxPerSource:      8,
	MaxSessions:       256,
	MaxPerEngineer:    16,
	MaxChannels:       16,
	MaxRobots:         64,
	MaxPerRobot:       8,
}

// Upper bounds of what a policy may ask for.
var ceilings = Limits{
	HandshakeDeadline: 2 * time.Minute,
	IdleTimeout:       24 * time.Hour,
	SessionLimit:      24 * time.Hour,
	MaxStartups:       16384,
	MaxPerSource:      1024,
	MaxSessions:       16384,
	MaxPerEngineer:    1024,
	MaxChannels:       1024,
	MaxRobots:         4096,
	MaxPerRobot:       256,
}

// Limits returns the policy's SSH limits. What is left out, or out of bounds, has its default.
func (p Policy) Limits() Limits {
	s := p.SSH
	return Limits{
		HandshakeDeadline: pick(s.HandshakeDeadline.Std(), defaults.HandshakeDeadline, ceilings.HandshakeDeadline),
		IdleTimeout:       pick(s.IdleTimeout.Std(), defaults.IdleTimeout, ceilings.IdleTimeout),
		SessionLimit:      pick(s.SessionLimit.Std(), defaults.SessionLimit, ceilings.SessionLimit),
		MaxStartups:       pick(s.MaxStartups, defaults.MaxStartups, ceilings.MaxStartups),
		MaxPerSource:      pick(s.MaxPerSource, defaults.MaxPerSource, ceilings.MaxPerSource),
		MaxSessions:       pick(s.MaxSessions, defaults.MaxSessions, ceilings.MaxSessions),
		MaxPerEngineer:    pick(s.MaxPerEngineer, defaults.MaxPerEngineer, ceilings.MaxPerEngineer),
		MaxChannels:       pick(s.MaxChannels, defaults.MaxChannels, ceilings.MaxChannels),
		MaxRobots:         pick(s.MaxRobots, defaults.MaxRobots, ceilings.MaxRobots),
		MaxPerRobot:       pick(s.MaxPerRobot, defaults.MaxPerRobot, ceilings.MaxPerRobot),
	}
}

func pick[T int | time.Duration](asked, otherwise, ceiling T) T {
	if asked <= 0 || asked > ceiling {
		return otherwise
	}
	return asked
}
