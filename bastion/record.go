package bastion

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
)

// Events of the audit log (docs/formats/audit.md).
const (
	eventServe      = "serve"       // the bastion began, with which policy
	eventStop       = "stop"        // the bastion ended in order
	eventPolicy     = "policy"      // a policy was taken or refused
	eventFresh      = "fresh"       // witnesses began or ceased to confirm the policy in force
	eventRefused    = "refused"     // connections refused before admission, counted
	eventLogin      = "login"       // somebody was let in
	eventTarget     = "target"      // an allowed target is about to be opened
	eventWitness    = "witness"     // a witness rejects a checkpoint of this log
	eventConnection = "connection"  // the one closing record of an admitted connection
	eventStatement  = "statement"   // a signed statement was taken, refused or removed
	eventPlugins    = "plugins"     // live sessions were asked about again, or the plugins' host has ended
	eventBreakGlass = "break_glass" // a break-glass identity was opened, used or closed
)

// Bounds of one closing record. What exceeds them is counted.
const (
	maxTargets  = 64
	maxRefused  = 16
	maxText     = 64 // bytes of a name that a client chose
	maxDetail   = 256
	maxEvidence = 512 // bytes of what a key proves in one line: its issuer and application have at most 64 each
)

// certificateRecord is the certificate that a key came in.
type certificateRecord struct {
	Serial    uint64 `json:"serial"`
	ID        string `json:"id"`
	Authority string `json:"authority"` // SHA-256 fingerprint
}

func (c credential) certificateRecord() *certificateRecord {
	if c.certificate == nil {
		return nil
	}
	return &certificateRecord{Serial: c.certificate.Serial, ID: escape(c.certificate.KeyID, maxText), Authority: c.authority}
}

// loginRecord is who was let in, by proof.
type loginRecord struct {
	Connection string `json:"connection"`
	Source     string `json:"source"`
	Balancer   string `json:"balancer,omitempty"` // the connection came through it
	User       string `json:"user"`
	Identity   string `json:"identity"` // "engineer", "robot" or "break_glass"
	Key        string `json:"key"`      // SHA-256 fingerprint
	KeyType    string `json:"key_type"`
	Evidence   string `json:"evidence"`
	Test       bool   `json:"test"` // the evidence is software's: of a test root or of a test issuer
	Policy     uint64 `json:"policy"`
	Opening    string `json:"opening,omitempty"` // of a break-glass identity

	Certificate *certificateRecord `json:"certificate,omitempty"` // that the key came in
}

func (v *visit) loginRecord() loginRecord {
	return loginRecord{
		Connection: v.id, Source: v.source.String(), Balancer: v.balancer(), User: escape(v.login.User, maxText), Identity: string(v.credential.identity),
		Key: v.credential.fingerprint, KeyType: v.credential.kind, Evidence: escape(v.credential.evidence, maxEvidence), Test: v.credential.test,
		Policy: v.server.ruling.Load().bundle.Version, Opening: v.credential.opening, Certificate: v.credential.certificateRecord(),
	}
}

// openingRecord is an allowed target that is about to be dialled.
type openingRecord struct {
	Connection string `json:"connection"`
	Number     int    `json:"number"` // of the connection's targets, from 1
	User       string `json:"user"`
	Identity   string `json:"identity"`
	Server     string `json:"server"`
	Address    string `json:"address"`
	Port       uint16 `json:"port"`
	Session    bool   `json:"session,omitempty"` // the bastion itself is about to log in there
	policies.Basis
}

// targetRecord is a target in the closing record.
type targetRecord struct {
	Number  int             `json:"number"` // as in the record of its opening
	Server  string          `json:"server"`
	Address string          `json:"address"`
	Port    uint16          `json:"port"`
	Up      int64           `json:"bytes_up"`   // from the engineer to the server
	Down    int64           `json:"bytes_down"` // from the server to the engineer
	Seconds float64         `json:"seconds"`
	Ended   string          `json:"ended,omitempty"`
	Reason  policies.Reason `json:"reason,omitempty"`
	Session bool            `json:"session,omitempty"` // the bastion itself logged in there
	Via     netip.AddrPort  `json:"via,omitzero"`      // the bastion's own end of the connection to the server; left out if there was none
	recordingRecord
	policies.Basis
}

func (v *visit) openingRecord(o *opened) openingRecord {
	return openingRecord{
		Connection: v.id, Number: o.number, User: escape(v.login.User, maxText), Identity: string(v.credential.identity),
		Server: o.target.Server, Address: o.address.Addr().String(), Port: o.target.Port, Session: o.session, Basis: o.basis,
	}
}

// refusedRecord is a channel or request that was turned down on an accepted connection.
type refusedRecord struct {
	What   string          `json:"what"` // "session", "tcpip-forward", or HOST:PORT as asked for
	Reason policies.Reason `json:"reason"`
	Detail string          `json:"detail,omitempty"`
}

// closingRecord is written exactly once for every admitted connection.
type closingRecord struct {
	Connection  string             `json:"connection"`
	Source      string             `json:"source"`
	Balancer    string             `json:"balancer,omitempty"`
	Outcome     string             `json:"outcome"` // "accepted" or "refused"
	Reason      policies.Reason    `json:"reason"`
	Detail      string             `json:"detail,omitempty"`
	User        string             `json:"user"`                  // as claimed; proven if accepted
	Identity    string             `json:"identity,omitempty"`    // what kind of user that is; left out if nobody of that name is known or no key was proven
	Key         string             `json:"key,omitempty"`         // SHA-256 fingerprint, possession proven
	KeyType     string             `json:"key_type,omitempty"`    // of that key
	ClaimedKey  string             `json:"claimed_key,omitempty"` // fingerprint of the key whose signature was refused: possession not proven
	Evidence    string             `json:"evidence,omitempty"`    // as enrolled for this user and key
	Certificate *certificateRecord `json:"certificate,omitempty"` // that the key came in
	Test        bool               `json:"test"`                  // the evidence is a software authenticator's
	Policy      uint64             `json:"policy"`                // version in force at arrival
	Tries       int                `json:"tries"`                 // requests for authentication beside the first "none"
	Client      string             `json:"client,omitempty"`      // version as claimed
	KeyExchange string             `json:"key_exchange,omitempty"`
	Cipher      string             `json:"cipher,omitempty"`
	Began       time.Time          `json:"began"`
	Seconds     float64            `json:"seconds"`
	Ended       string             `json:"ended"`
	Up          int64              `json:"bytes_up"`
	Down        int64              `json:"bytes_down"`
	Targets     []targetRecord     `json:"targets,omitempty"`
	MoreTargets int                `json:"more_targets,omitempty"` // not listed, their bytes are counted
	Refused     []refusedRecord    `json:"refused,omitempty"`
	MoreRefused int                `json:"more_refused,omitempty"`
}

// opening notes a target among the open ones.
func (v *visit) opening(o *opened) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.opened++
	o.number = v.opened
	v.open = append(v.open, o)
}

// closed moves a target from the open ones to the closing record.
func (v *visit) closed(o *opened) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, other := range v.open {
		if other == o {
			v.open = append(v.open[:i], v.open[i+1:]...)
			break
		}
	}
	r := &v.record
	up, down := o.up.Load(), o.down.Load()
	r.Up += up
	r.Down += down
	v.server.metrics.targetClosed(up, down)
	if len(r.Targets) >= maxTargets {
		r.MoreTargets++
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r.Targets = append(r.Targets, targetRecord{
		Number: o.number, Via: o.via, Server: o.target.Server, Address: o.address.Addr().String(), Port: o.target.Port,
		Up: up, Down: down, Seconds: seconds(o.began), Ended: o.ended, Reason: o.reason, Basis: o.basis,
		Session: o.session, recordingRecord: o.recording,
	})
}

func (v *visit) noteRefused(what string, why policies.Reason, detail string) {
	v.server.metrics.requestRefused(why)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.record.Refused) >= maxRefused {
		v.record.MoreRefused++
		return
	}
	v.record.Refused = append(v.record.Refused, refusedRecord{
		What: escape(what, maxText), Reason: why, Detail: escape(detail, maxDetail),
	})
}

// write ends the visit's record. It is called once, when nothing else of the visit runs.
func (v *visit) write(outcome string, why policies.Reason, detail string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if outcome == "refused" {
		now, source := time.Now(), v.source.Addr()
		v.server.punish(v.ruling, source, why, now)
		v.server.metrics.refused(why)
		v.server.refusedAgain(v.ruling, source, v.claimedUser(), why, now)
		if !v.server.strangers.take(network(source), now) {
			v.server.refusals.add(network(source), why, 1, now)
			return
		}
	}
	if outcome == "accepted" {
		v.server.metrics.sessionEnded(v.ended)
	}
	r := v.record
	r.Connection, r.Source, r.Balancer = v.id, v.source.String(), v.balancer()
	r.Outcome, r.Reason, r.Detail = outcome, why, escape(detail, maxDetail)
	r.Policy, r.Tries = v.ruling.bundle.Version, v.tried.total
	r.Key, r.KeyType = v.credential.fingerprint, v.credential.kind
	r.Evidence, r.Test = escape(v.credential.evidence, maxEvidence), v.credential.test
	r.Identity, r.Certificate = string(v.credential.identity), v.credential.certificateRecord()
	if why == keyNoTouch || why == badSignature {
		r.ClaimedKey = v.claimed
	}
	if v.meta != nil {
		user, _ := v.server.user(v.meta.User())
		r.User, r.Client = escape(user, maxText), escape(string(v.meta.ClientVersion()), maxText)
		if negotiated, ok := v.meta.(ssh.AlgorithmsConnMetadata); ok {
			r.KeyExchange, r.Cipher = negotiated.Algorithms().KeyExchange, negotiated.Algorithms().Read.Cipher
		}
	}
	r.Began, r.Seconds, r.Ended = v.began.UTC(), seconds(v.began), v.ended
	if err := v.server.writeClosing(r, time.Now()); err != nil {
		v.server.log.Error("a closing record could not be written", "connection", v.id, "reason", why, "error", err)
	}
}

func seconds(since time.Time) float64 { return time.Since(since).Round(time.Millisecond).Seconds() }

// escape makes text that a client chose safe for a log: printable ASCII, everything else as a Go escape, at most so many
// bytes before escaping. A quotation mark stays: JSON escapes it, and a backslash of the text's own is doubled.
func escape(text string, limit int) string {
	cut := ""
	if len(text) > limit {
		text, cut = text[:limit], "…"
	}
	quoted := strconv.QuoteToASCII(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`) + cut
}
