package bastion

import (
	"context"
	"errors"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
)

// errRefused is all that the library, and through it the client, learns of a refusal.
var errRefused = errors.New("refused")

// offered answers for a key before its possession is proven. Every key of an accepted type gets the same answer, whoever asks
// for whichever user, so that a stranger cannot find out who is enrolled with what. It records nothing but which key a
// following signature is claimed to be of.
func (v *visit) offered(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if c, ok := key.(*ssh.Certificate); ok {
		if waivesTouch(c) {
			return nil, errNoTouch
		}
		key = c.Key
	}
	v.claimed = ssh.FingerprintSHA256(key)
	v.place.reached(stageSigning)
	// Never anything in Extensions: the library would take "no-touch-required" from there.
	return &ssh.Permissions{}, nil
}

// authorize is the one place where somebody is let in: the library calls it after the signature proved possession of the key.
func (v *visit) authorize(meta ssh.ConnMetadata, key ssh.PublicKey, _ *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	var user string
	user, v.wanted = v.server.user(meta.User())
	verdict := v.admitLogin(user, key, time.Now())
	if !verdict.Allow {
		v.denied = &verdict
		// The reference is the same kind of answer for every refusal; what it stands for is in the audit log.
		return nil, &ssh.BannerError{Err: errRefused, Message: "this key was refused, reference " + v.id + "; the next one that your client has is tried\r\n"}
	}
	v.denied = nil
	return &ssh.Permissions{}, nil
}

// admitLogin decides, takes a place among the sessions, and writes the login down before it takes effect.
func (v *visit) admitLogin(user string, key ssh.PublicKey, now time.Time) policies.Verdict {
	ruling := v.server.ruling.Load()
	cred := attest(ruling.bundle.Policy, user, key)
	login := policies.Login{Source: v.source.Addr(), User: user, Key: cred.public, Certificate: cred.certificate}
	verdict := v.decide(ruling, login, now)
	cred.identity, cred.opening = verdict.Kind, verdict.Basis.Opening
	v.credential = cred
	if !verdict.Allow {
		return verdict
	}
	if verdict := ruling.fresh.opens(now); !verdict.Allow {
		return verdict
	}
	if verdict := v.restrict(context.Background(), ruling, policies.DecidesLogin, login, policies.Target{}); !verdict.Allow {
		verdict.Kind = cred.identity
		return verdict
	}
	v.login = login
	v.shows(user, cred)
	if full := v.server.sessions.enter(v, login, cred.identity, ruling.limits); full != "" {
		return policies.Verdict{Reason: full}
	}
	// A policy that came in between has not seen this session, nor has the end of a break-glass opening that came just then:
	// decide once more.
	if newer := v.server.ruling.Load(); newer != ruling || verdict.Kind == policies.KindBreakGlass {
		verdict := v.decide(newer, login, time.Now())
		if verdict.Allow && newer.bundle != ruling.bundle {
			if verdict = v.restrict(context.Background(), newer, policies.DecidesLogin, login, policies.Target{}); !verdict.Allow {
				verdict.Kind = cred.identity
			}
		}
		if !verdict.Allow {
			v.server.sessions.leave(v)
			return verdict
		}
	}
	if err := v.server.audit.AppendOpening(eventLogin, v.loginRecord()); err != nil {
		v.server.sessions.leave(v)
		v.server.log.Error("the audit log cannot be written: new sessions are denied", "error", err)
		return policies.Verdict{Reason: auditUnavailable, Detail: err.Error()}
	}
	v.written = true
	v.usesGlass(glassLogin, verdict, policies.Target{})
	return policies.Verdict{Allow: true, Reason: policies.Allowed, Kind: cred.identity}
}

// decide asks the policy about the balancer, if the visit came through one, and then about the login.
func (v *visit) decide(r *ruling, login policies.Login, now time.Time) policies.Verdict {
	if v.place != nil && v.place.balancer.IsValid() && !r.bundle.Policy.Balancer(v.place.balancer) {
		return policies.Verdict{Reason: policies.AddressNotListed, Detail: "the balancer is not in ssh.proxies"}
	}
	return r.decideLogin(login, now)
}

// decideLogin asks the policy in force.
func (r *ruling) decideLogin(login policies.Login, now time.Time) policies.Verdict {
	return r.bundle.Policy.DecideLogin(login, r.statements, now)
}

// decideTarget asks the policy in force for one target; it includes the login.
func (r *ruling) decideTarget(login policies.Login, target policies.Target, now time.Time) policies.Verdict {
	return r.bundle.Policy.DecideTarget(login, target, r.bundle.Inventory, r.statements, now)
}

// decideWay asks the policy in force for one target, of a jump or of a session that the bastion itself begins there.
func (r *ruling) decideWay(login policies.Login, target policies.Target, session bool, now time.Time) policies.Verdict {
	if session {
		return r.bundle.Policy.DecideSession(login, target.Server, r.bundle.Inventory, r.statements, now)
	}
	return r.decideTarget(login, target, now)
}
