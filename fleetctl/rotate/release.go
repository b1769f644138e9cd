package rotate

import (
	"context"
	"fmt"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/internal/hint"
)

// choose notes which release the newest plan gives each server.
func (r *Runner) choose(p plan.Plan) {
	r.chosen.Lock()
	defer r.chosen.Unlock()
	r.boots = releasesOf(p)
}

// releaseFor is the release that a server boots next: what the newest plan says, or else the one in use; never one that is marked bad.
func (r *Runner) releaseFor(server string, known Known) (uint64, error) {
	r.chosen.Lock()
	v := r.boots[server]
	r.chosen.Unlock()
	if v == 0 {
		v = known.Use.Version
	}
	if v == 0 {
		v = r.Release.Statement.Version
	}
	if m, bad := known.Bad(v); bad {
		good := known.Good()
		if good == 0 {
			return 0, hint.New(refusef(ReleaseBad, "release %d is marked bad (%s), and no release is marked good", v, m.Why),
				"build, sign and `fleetctl image use` another one")
		}
		v = good
	}
	return v, nil
}

// release returns the release that a server boots now, verified.
func (r *Runner) release(ctx context.Context, server string) (Release, error) {
	known, err := r.trials.read(ctx, r.Store)
	if err != nil {
		return Release{}, err
	}
	return r.bootable(r.releaseFor(server, known))
}

// bootable loads a release, once. One that cannot boot any more stops the run before a server leaves for it.
func (r *Runner) bootable(version uint64, err error) (Release, error) {
	if err != nil {
		return Release{}, err
	}
	if version == r.Release.Statement.Version {
		return r.Release, nil
	}
	r.chosen.Lock()
	defer r.chosen.Unlock()
	if rel, ok := r.loaded[version]; ok {
		return rel, nil
	}
	if r.Releases == nil {
		return Release{}, refusef(ReleaseUnknown, "release %d is not at hand, only %d is", version, r.Release.Statement.Version)
	}
	rel, err := r.Releases(version)
	if err != nil {
		return Release{}, fmt.Errorf("release %d, which servers would boot: %w", version, err)
	}
	if rel.Statement.Version != version {
		return Release{}, refusef(ReleaseUnknown, "asked for release %d, got %d", version, rel.Statement.Version)
	}
	if r.loaded == nil {
		r.loaded = map[uint64]Release{}
	}
	r.loaded[version] = rel
	return rel, nil
}

// maxAge is how old a life may get: the policy's word or the release's, whichever is less.
func maxAge(rules plan.Rules, rel Release) time.Duration {
	if age := time.Duration(rel.Statement.MaxAge) * time.Second; age > 0 {
		return min(rules.MaxAge, age)
	}
	return rules.MaxAge
}
