package signer

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
)

// signedFile is a file's exact bytes with their signature.
type signedFile struct {
	Data      []byte `json:"data"`
	Signature []byte `json:"signature"`
}

// maxTicketSkew is how much later than the signer's clock a ticket may say that it was made.
const maxTicketSkew = time.Minute

// ticket signs a ticket that says nothing else than the signed inventory and policy do.
func (s *server) ticket(t ticket.Ticket, now time.Time) (signedFile, error) {
	b, err := s.rules.bundle(now)
	if err != nil {
		return signedFile{}, err
	}
	if err := checkTicket(t, b.Inventory, b.Policy, string(s.keys.caPEM), now); err != nil {
		return signedFile{}, err
	}
	if at := t.Deadline.Add(-time.Duration(t.MaxAge) * time.Second); at.After(now.Add(maxTicketSkew)) {
		return signedFile{}, join.Refuse(join.LifetimeTooLong, "the ticket for %q says that it was made at %s, it is %s", t.Server, at.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	if err := s.logNamed(t, now); err != nil {
		return signedFile{}, err
	}
	data, err := t.Marshal()
	if err != nil {
		return signedFile{}, err
	}
	err = s.lives.sign(t.Server, t.Epoch, now, func() error { return s.rate.allow("tickets", t.Server, ticketsPerHour, now) })
	if err != nil {
		return signedFile{}, err
	}
	sig, err := sshsig.Sign(s.keys.ticket, ticket.Namespace, data)
	if err != nil {
		return signedFile{}, fmt.Errorf("signing the ticket for %q: %w", t.Server, err)
	}
	// What is signed must open: the trust policy and this process agree on the key and the form, or nobody boots.
	if _, err := ticket.Open(s.rules.trusts(), data, sig, now); err != nil {
		return signedFile{}, join.Refuse(join.RequestInvalid, "%v", err)
	}
	hash := ticket.Hash(data)
	err = s.log.Append("ticket", ticketRecord{Server: t.Server, Epoch: t.Epoch, Hash: fmt.Sprintf("%x", hash), Release: t.Release, NotAfter: t.NotAfter, Test: b.Inventory.Test})
	if err != nil {
		return signedFile{}, err
	}
	return signedFile{Data: data, Signature: sig}, nil
}

type ticketRecord struct {
	Server   string    `json:"server"`
	Epoch    uint64    `json:"epoch"`
	Hash     string    `json:"hash"`
	Release  string    `json:"release"`
	NotAfter time.Time `json:"not_after"`
	Test     bool      `json:"test"`
}

// checkTicket compares a ticket with what people signed.
func checkTicket(t ticket.Ticket, f inventory.Fleet, p policies.Policy, ca string, now time.Time) error {
	s, ok := f.RebuiltServer(t.Server)
	if !ok {
		return join.Refuse(join.ServerUnknown, "no server %q in fleet %q", t.Server, f.Name)
	}
	if age := time.Duration(t.MaxAge) * time.Second; age <= 0 || age > time.Duration(p.Rotation.MaxAge) {
		return join.Refuse(join.LifetimeTooLong, "max_age of the ticket for %q is %s, the policy allows %s", t.Server, age, time.Duration(p.Rotation.MaxAge))
	}
	if left := t.Deadline.Sub(now); left <= 0 || left > time.Duration(p.Rotation.MaxAge) {
		return join.Refuse(join.LifetimeTooLong, "the deadline of the ticket for %q is in %s, the policy allows %s", t.Server, left, time.Duration(p.Rotation.MaxAge))
	}
	if window := t.NotAfter.Sub(now); window <= 0 || window > ticket.MaxWindow {
		return join.Refuse(join.LifetimeTooLong, "the ticket for %q can be used for %s, at most %s", t.Server, window, ticket.MaxWindow)
	}
	path, ok := releasePath(t)
	if !ok {
		return join.Refuse(join.RequestInvalid, "the mirrors name no release below the controller's boot port")
	}
	want, err := issue.New(f, t.Server, issue.Life{Epoch: t.Epoch, Path: path, CA: []byte(ca), NotAfter: t.NotAfter, MaxAge: time.Duration(t.MaxAge) * time.Second,
		Made: t.Deadline.Add(-time.Duration(t.MaxAge) * time.Second), TPM: p.Image.RequiresTPM(), Disks: p.Image.OnDisks()})
	if err != nil {
		return join.Refuse(join.RequestInvalid, "%v", err)
	}
	for _, c := range []struct{ field, got, want string }{
		{"fleet", t.Fleet, f.Name},
		{"domain", t.Domain, f.Domain},
		{"address", t.Address.String(), s.Address.String()},
		{"gateway", t.Gateway.String(), f.Network.Gateway.String()},
		{"controller", t.Controller, netip.AddrPortFrom(f.Controller.Address, f.Controller.JoinPort).String()},
		{"controller_name", t.Name, ticket.ControllerLabel + "." + f.Domain},
		{"mirrors", strings.Join(t.Mirrors, " "), strings.Join(want.Mirrors, " ")},
		{"network", fmt.Sprint(t.Network), fmt.Sprint(want.Network)},
		{"witnesses", strings.Join(t.Witnesses, " "), strings.Join(want.Witnesses, " ")},
		{"tpm", t.TPM, want.TPM},
		{"disks", t.Disks, want.Disks},
		{"ca", t.CA, ca},
	} {
		if c.got != c.want {
			return join.Refuse(join.NotInInventory, "%s of the ticket for %q is %q, not %q", c.field, t.Server, c.got, c.want)
		}
	}
	return nil
}

// releasePath is the path of the release below the last of a ticket's mirrors, which is the controller's boot port.
func releasePath(t ticket.Ticket) (string, bool) {
	if len(t.Mirrors) == 0 {
		return "", false
	}
	_, rest, ok := strings.Cut(t.Mirrors[len(t.Mirrors)-1], "://")
	if !ok {
		return "", false
	}
	_, path, ok := strings.Cut(rest, "/")
	return "/" + path, ok
}
