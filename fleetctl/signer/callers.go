package signer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"mayfly/fleetctl/users"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/rebuild/join"
)

// callers is who may ask for what, where the controller's processes are users of their own. What is not here, and who is not, is refused. Root types verbs,
// which people have signed for; it could become any of the others.
var callers = map[string][]users.Role{
	pathTicket:    {users.Serve},
	pathRestart:   {users.Serve},
	pathChallenge: {users.Serve},
	pathAdmit:     {users.Serve},
	pathTwice:     {users.Serve},
	pathRenew:     {users.Serve},
	pathList:      {users.Serve},
	pathRenewal:   {users.Serve},
	pathEnd:       {users.Serve},
	pathService:   {users.Serve, users.Checkin},
	pathDrained:   {users.Serve, users.Root},
	pathExtend:    {users.Serve, users.Root},
	pathHost:      {users.Serve, users.Root},
	pathRelease:   {users.Serve, users.Root},
	pathPage:      {users.Serve, users.Root},
}

// serviceOf is whose certificate a process may have: its own.
var serviceOf = map[users.Role]string{users.Serve: inventory.NameController, users.Checkin: inventory.NameCheckin}

type callerKey struct{}

// asker is who is at the other end of a connection.
type asker struct {
	uid  int
	role users.Role
	err  error
}

// caller asks the kernel who connected, once for each connection.
func (s *server) caller(ctx context.Context, conn net.Conn) context.Context {
	a := asker{uid: -1}
	if a.uid, a.err = users.Peer(conn); a.err == nil {
		a.role = s.who.RoleOf(a.uid)
	}
	return context.WithValue(ctx, callerKey{}, a)
}

// callerRecord is what the log keeps of a caller who was refused, among its refused records.
type callerRecord struct {
	UID    int        `json:"uid"`
	Role   users.Role `json:"role"`
	Path   string     `json:"path"`
	Name   string     `json:"name,omitempty"`
	Reason string     `json:"reason"`
}

// mayAsk refuses who may not ask for this at all. With one user, that one and root may ask for everything.
func (s *server) mayAsk(r *http.Request, now time.Time) error {
	a, known := r.Context().Value(callerKey{}).(asker)
	switch {
	case !known || a.err != nil:
		return s.refuseCaller(asker{uid: -1}, r.URL.Path, "", now)
	case !s.who.Separate && a.role == users.Serve, slices.Contains(callers[r.URL.Path], a.role) && a.role != users.Nobody:
		return nil
	}
	return s.refuseCaller(a, r.URL.Path, "", now)
}

// mayBe refuses who asks for the certificate of another process.
func (s *server) mayBe(r *http.Request, name string, now time.Time) error {
	a, known := r.Context().Value(callerKey{}).(asker)
	if known && (!s.who.Separate || serviceOf[a.role] == name && name != "") {
		return nil
	}
	return s.refuseCaller(a, r.URL.Path, name, now)
}

func (s *server) refuseCaller(a asker, path, name string, now time.Time) error {
	refusal := join.Refuse(join.CallerRefused, "user %d (%q) asked for %s %.63s", a.uid, a.role, path, name)
	if err := s.rate.allow("refused callers", strconv.Itoa(a.uid), callersPerHour, now); err != nil {
		return refusal
	}
	if err := s.log.AppendRefused(join.CallerRefused, callerRecord{a.uid, a.role, path, name, join.CallerRefused}); err != nil {
		return errors.Join(refusal, err)
	}
	return refusal
}

// dialSigner connects, and believes nobody but the signer's user at the other end.
func dialSigner(ctx context.Context, d *net.Dialer, dir, socket string) (net.Conn, error) {
	who, err := users.Load(dir)
	if err != nil {
		return nil, err
	}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil || !who.Separate {
		return conn, err
	}
	uid, err := users.Peer(conn)
	if err == nil && who.RoleOf(uid) != users.Signer {
		err = hint.New(fmt.Errorf("user %d answers at %s, who is not the signer's", uid, socket), "find out what that process is; nothing was told to it")
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
