package release

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/internal/pki"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/rebuild/ticket"
)

// seedTicket is the seed of the key that signs tickets in TestReplay.
const seedTicket = 50

// world is all that a machine is handed at a boot.
type world struct {
	statement, sigs, proof []byte
	ticket, ticketSig      []byte
	answers                [][]byte // recorded, to the question that was asked then
}

// recordedAt is a boot that was good at a time: everything in it was signed by who has to.
func recordedAt(t *testing.T, p *trust.Trust, then time.Time, version, least uint64) world {
	t.Helper()
	s := statement()
	s.Version, s.Least, s.NotBefore, s.NotAfter = version, least, then.Add(-24*time.Hour), then.Add(6*24*time.Hour)
	var w world
	w.statement = marshal(t, s)
	w.sigs = sign(t, w.statement, 1, 2)
	l := &book{t: t, origin: ledger.Origin(p.Fleet), seed: seedLedger}
	index := l.add(ledger.EventRelease, record(w.statement, w.sigs))
	w.proof = l.prove(index, l.checkpoint(l.cosigned(seedIda, "ida"), l.cosigned(seedJon, "jon")))
	ca, _, err := pki.NewCA("lab.test", then)
	check(t, err)
	tk, err := ticket.New(ticket.Ticket{Fleet: p.Fleet, Domain: "lab.test", Server: "se-1", Epoch: 3, Release: witness.Sum(w.statement), Mirrors: []string{"http://10.77.0.1:8080/releases/7/"},
		Network: ticket.Network{Mode: ticket.Static}, TPM: ticket.TPMOff, Disks: ticket.DisksRefuse, Deadline: then.Add(time.Hour), Address: netip.MustParsePrefix("10.77.0.11/24"),
		Gateway: netip.MustParseAddr("10.77.0.1"), Controller: "10.77.0.1:8443", Name: "controller.lab.test", CA: string(ca), NotAfter: then.Add(5 * time.Minute), MaxAge: 3600})
	check(t, err)
	w.ticket, err = tk.Marshal()
	check(t, err)
	w.ticketSig, err = sshsig.Sign(signer(t, seedTicket), ticket.Namespace, w.ticket)
	check(t, err)
	w.answers = answersAt(t, witness.Ask(p.Fleet, witness.SubjectRelease), then, version, least, witness.Sum(w.statement))
	return w
}

func answersAt(t *testing.T, q witness.Question, at time.Time, version, least uint64, sum string) (list [][]byte) {
	t.Helper()
	for _, w := range []struct {
		seed byte
		name string
	}{{seedIda, "ida"}, {seedJon, "jon"}} {
		a, err := witness.SignRelease(signer(t, w.seed), w.name, q, version, least, sum, at)
		check(t, err)
		list = append(list, a)
	}
	return list
}

// boots is what a machine decides, in the order of docs/formats/release.md: its own clock has no part in it.
func boots(p *trust.Trust, w world, q witness.Question, answers [][]byte) error {
	s, err := Open(p, w.statement, w.sigs)
	if err != nil {
		return err
	}
	if err := CheckProof(p, w.statement, w.proof); err != nil {
		return err
	}
	v := witness.JudgeRelease(p, q, s.Version, witness.Sum(w.statement), answers)
	if !v.Fresh {
		return v
	}
	if err := s.At(v.Time); err != nil {
		return err
	}
	_, err = ticket.Open(p, w.ticket, w.ticketSig, v.Time)
	return err
}

// TestReplay hands a machine everything from 30 days ago, all of it once good, and sets its clock back to then: release, proof, checkpoint, the
// witnesses' answers and the ticket. Whoever holds the network can do this; what they cannot do is answer a new nonce.
func TestReplay(t *testing.T) {
	p := logged(t)
	p.TicketKeys = []string{trust.FormatKey(signer(t, seedTicket).PublicKey())}
	then := now.Add(-30 * 24 * time.Hour)
	old := recordedAt(t, p, then, 7, 5)
	// The clock was set back to then: by it all would be well.
	if _, err := Verify(p, old.statement, old.sigs, then); err != nil {
		t.Fatalf("by the machine's clock: %v", err)
	}
	if _, err := ticket.Open(p, old.ticket, old.ticketSig, then); err != nil {
		t.Fatalf("by the machine's clock: %v", err)
	}
	q := witness.Ask(p.Fleet, witness.SubjectRelease)
	sum := witness.Sum(old.statement)
	renewed := old // the release is replayed with a ticket of today, so that only the release's own end is in the way
	today := recordedAt(t, p, now, 8, 5)
	renewed.ticket, renewed.ticketSig = today.ticket, today.ticketSig
	long := recordedAt(t, p, now, 7, 5) // a release of today, with the old ticket
	long.ticket, long.ticketSig = old.ticket, old.ticketSig
	for _, tt := range []struct {
		name    string
		world   world
		answers [][]byte
		want    string
	}{
		{"the answers of then", old, old.answers, witness.Missing},
		{"the answers of then, and nobody's of now", old, nil, witness.Missing},
		{"witnesses are reached, and a newer release shuts it out", old, answersAt(t, q, now, 9, 8, sum), witness.ReleaseFrozen},
		{"witnesses are reached, and it has expired by their time", old, answersAt(t, q, now, 7, 5, sum), Expired},
		{"the same with a ticket of today", renewed, answersAt(t, q, now, 7, 5, sum), Expired},
		{"a release of today with the ticket of then", long, answersAt(t, q, now, 7, 5, witness.Sum(long.statement)), ticket.Expired},
		{"all of today", today, answersAt(t, q, now, 8, 5, witness.Sum(today.statement)), ""},
		{"witnesses whose clocks were set back with the machine's, all but one", today, append(answersAt(t, q, then, 8, 5, witness.Sum(today.statement))[:1], answersAt(t, q, now, 8, 5, witness.Sum(today.statement))[1:]...), witness.Missing},
	} {
		err := boots(p, tt.world, q, tt.answers)
		if got := anyReason(err); got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, err, tt.want)
		}
	}
	bare := old
	bare.proof = nil
	if err := boots(p, bare, q, answersAt(t, q, now, 7, 5, sum)); anyReason(err) != Unlogged {
		t.Errorf("without a proof: got %v", err)
	}
}

// anyReason is the reason code of whichever kind of refusal it is.
func anyReason(err error) string {
	if v, ok := errors.AsType[witness.ReleaseVerdict](err); ok {
		return v.Reason
	}
	if r, ok := errors.AsType[*ticket.Refusal](err); ok {
		return r.Reason
	}
	return reasonOf(err)
}

// FuzzVerify: whatever stands beside a statement as its signatures is refused with a reason, or has two approvers' and a builder's blocks in it.
func FuzzVerify(f *testing.F) {
	data := marshal(f, statement())
	p := policy(f)
	p.Builders, p.BuilderThreshold = []trust.Person{{Name: "dan", Keys: []string{trust.FormatKey(signer(f, 20).PublicKey())}}}, 1
	built, err := sshsig.Sign(signer(f, 20), BuildNamespace, data)
	check(f, err)
	f.Add(append(sign(f, data, 1, 2), built...))
	f.Add(append(sign(f, data, 1, 1), built...))
	f.Add(sign(f, data, 1, 2, 3))
	f.Add(bytes.Replace(append(sign(f, data, 1, 2), built...), []byte("SSH"), []byte("PGP"), 1))
	f.Fuzz(func(t *testing.T, sigs []byte) {
		s, err := Verify(p, data, sigs, now)
		if err == nil {
			if s == nil || bytes.Count(sigs, []byte("-----BEGIN SSH SIGNATURE-----")) < 3 {
				t.Errorf("%q: accepted", sigs)
			}
			return
		}
		if reason := reasonOf(err); reason != Unsigned && reason != Unbuilt || s != nil || !strings.HasPrefix(err.Error(), reason+": ") {
			t.Errorf("%q: got %v", sigs, err)
		}
	})
}
