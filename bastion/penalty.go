package bastion

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"mayfly/policies"
)

// Implementation constants of penalties.
const (
	penaltyFrom   = 30 * time.Second // collected time below this has no effect: people mistype and miss their key
	penaltyMost   = 5 * time.Minute  // no source is refused for longer than this after its last failure
	penaltyMemory = 10 * time.Minute // after its penalty's end a source is a first offender again
	penaltyGrowth = 5                // the cost doubles with each failure, so many times
	maxPenalties  = 65536            // sources in the table
	penaltySweep  = maxPenalties / 8 // sources that a full table forgets at once: those with the least time left
)

// provenCost is what it costs to prove a key that lets nobody in.
const provenCost = 10 * time.Second

// penaltyCosts is what a failure costs its source at first. What is not here costs nothing: full places, a broken audit log or
// an expired policy are not the source's fault.
var penaltyCosts = withAttestations(map[policies.Reason]time.Duration{
	badSignature:          5 * time.Second,
	keyNoTouch:            2 * time.Second,
	noKey:                 3 * time.Second,
	tooManyTries:          5 * time.Second,
	methodPassword:        10 * time.Second,
	methodRefused:         5 * time.Second,
	keyMalformed:          5 * time.Second,
	handshakeTimeout:      5 * time.Second,
	noCommonAlgorithm:     3 * time.Second,
	protocolError:         10 * time.Second,
	leftEarly:             1 * time.Second,
	policies.UserRoot:     10 * time.Second,
	policies.UserReserved: 10 * time.Second,

	policies.BreakGlassSealed:   10 * time.Second, // who hears of it has the key
	policies.CertificateExpired: 1 * time.Second,  // who hears of these has a certificate for this user
	policies.CertificateEarly:   1 * time.Second,

	// What a stranger with a key of his own can be refused for after the proof costs the same, or the penalties would tell who is enrolled.
	policies.UserUnknown:                 provenCost,
	policies.AddressNotListed:            provenCost, // on the engineer's, or the robot's, own list
	policies.KeyUnknown:                  provenCost,
	policies.KeyNotHardware:              provenCost,
	policies.KeyNoEvidence:               provenCost,
	policies.KeyNoUserVerification:       provenCost,
	policies.KeyRevoked:                  provenCost,
	policies.CertificateAuthorityUnknown: provenCost,
	policies.CertificateRevoked:          provenCost,
	policies.CertificateType:             provenCost,
	policies.CertificatePrincipal:        provenCost,
	policies.CertificateOption:           provenCost,
	policies.CertificateSource:           provenCost,
	policies.CertificateLifetime:         provenCost,
	policies.CertificateKeyUnknown:       provenCost,
})

// withAttestations adds what evidence is rejected for: it costs what other keys that let nobody in cost, whatever is wrong with it.
func withAttestations(costs map[policies.Reason]time.Duration) map[policies.Reason]time.Duration {
	for _, r := range policies.Reasons {
		if strings.HasPrefix(string(r), "attestation_") {
			costs[r] = provenCost
		}
	}
	return costs
}

// penalty is what a source has collected.
type penalty struct {
	until    time.Time // the collected time runs out
	failures int       // in a row
	serving  bool      // refused until then
	why      policies.Reason
}

// penalties is what each source, an IPv4 address or a /64, has collected for failed authentications. The collected time passes
// as time does; a source that has more than penaltyFrom is refused until all of it has passed. A login clears it.
type penalties struct {
	mu       sync.Mutex
	bySource map[netip.Prefix]*penalty
}

// add makes a source pay for a failure.
func (p *penalties) add(from netip.Prefix, why policies.Reason, now time.Time) {
	cost := penaltyCosts[why]
	if cost <= 0 || !from.IsValid() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bySource == nil {
		p.bySource = make(map[netip.Prefix]*penalty)
	}
	one := p.bySource[from]
	if one == nil || one.over(now, penaltyMemory) {
		if one == nil && len(p.bySource) >= maxPenalties {
			p.sweep(now)
		}
		one = &penalty{until: now}
		p.bySource[from] = one
	}
	if one.over(now, 0) {
		one.until, one.serving = now, false
	}
	one.until = one.until.Add(cost << min(one.failures, penaltyGrowth))
	if most := now.Add(penaltyMost); one.until.After(most) {
		one.until = most
	}
	one.failures++
	one.why = why
	one.serving = one.serving || one.until.Sub(now) > penaltyFrom
}

func (p *penalty) over(now time.Time, since time.Duration) bool {
	return !now.Before(p.until.Add(since))
}

// refused tells whether a source has to wait, and until when.
func (p *penalties) refused(from netip.Prefix, now time.Time) (until time.Time, refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.bySource[from]
	if one == nil || !one.serving || one.over(now, 0) {
		return time.Time{}, false
	}
	return one.until, true
}

// clear forgets what a source has collected: somebody logged in from there.
func (p *penalties) clear(from netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.bySource, from)
}

// sweep makes room: what is over goes, and if that is nothing, those that have the least time left. A flood of new sources
// therefore forgets the small offences first, and the table never grows.
func (p *penalties) sweep(now time.Time) {
	before := len(p.bySource)
	for from, one := range p.bySource {
		if one.over(now, penaltyMemory) {
			delete(p.bySource, from)
		}
	}
	if before-len(p.bySource) >= penaltySweep {
		return
	}
	least := make([]netip.Prefix, 0, len(p.bySource))
	for from := range p.bySource {
		least = append(least, from)
	}
	slices.SortFunc(least, func(a, b netip.Prefix) int { return p.bySource[a].until.Compare(p.bySource[b].until) })
	for _, from := range least[:min(penaltySweep, len(least))] {
		delete(p.bySource, from)
	}
}

// PenaltyStatus is a source that is refused for a while.
type PenaltyStatus struct {
	Network  string          `json:"network"`
	Until    time.Time       `json:"until"`
	Why      policies.Reason `json:"why"` // its last failure
	Failures int             `json:"failures"`
}

// list has those that are refused now, longest first, at most so many, and the number of all.
func (p *penalties) list(limit int, now time.Time) (list []PenaltyStatus, all int) {
	p.mu.Lock()
	for from, one := range p.bySource {
		if one.serving && !one.over(now, 0) {
			list = append(list, PenaltyStatus{Network: from.String(), Until: one.until.UTC(), Why: one.why, Failures: one.failures})
		}
	}
	p.mu.Unlock()
	slices.SortFunc(list, func(a, b PenaltyStatus) int {
		return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Network, b.Network))
	})
	return list[:min(limit, len(list))], len(list)
}
