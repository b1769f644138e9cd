package bastion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/inventory"
	"mayfly/policies"
)

// Implementation constants of a jump.
const (
	dialLimit   = 10 * time.Second
	maxHostName = 253
	maxOrigin   = 255
)

// directTCPIP is what a client sends to open a jump (RFC 4254, section 7.2).
type directTCPIP struct {
	host string
	port uint16
}

var errPayload = errors.New("malformed direct-tcpip request")

func parseDirectTCPIP(payload []byte) (directTCPIP, error) {
	var m struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(payload, &m); err != nil {
		return directTCPIP{}, errPayload
	}
	if m.Host == "" || len(m.Host) > maxHostName || len(m.Origin) > maxOrigin || m.Port == 0 || m.Port > 65535 || m.OriginPort > 65535 {
		return directTCPIP{}, errPayload
	}
	return directTCPIP{host: m.Host, port: uint16(m.Port)}, nil
}

// opened is a target that a visit has open.
type opened struct {
	target  policies.Target
	address netip.AddrPort
	number  int            // of the connection's targets, from 1
	session bool           // the bastion has logged in there itself
	basis   policies.Basis // what it was allowed by
	began   time.Time
	up      atomic.Int64 // bytes from the engineer to the server
	down    atomic.Int64 // bytes from the server to the engineer

	cancel context.CancelFunc
	mu     sync.Mutex
	ended  string // first cause
	reason policies.Reason

	via       netip.AddrPort  // where the connection to the server came from; set before it is closed, like the rest
	recording recordingRecord // of a session
}

func (o *opened) cut(how string, why policies.Reason) {
	o.finish(how, why)
	o.cancel()
}

func (o *opened) finish(how string, why policies.Reason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended == "" {
		o.ended, o.reason = how, why
	}
}

// serveChannel answers a channel that the client opens; a jump runs by itself.
func (v *visit) serveChannel(ctx context.Context, nc ssh.NewChannel, jumps *sync.WaitGroup) {
	serve := v.jump
	switch nc.ChannelType() {
	case "direct-tcpip":
	case "session":
		serve = v.session
	default:
		v.refuse(nc, nc.ChannelType(), channelRefused, "")
		return
	}
	if int(v.channels.Load()) >= v.server.ruling.Load().limits.MaxChannels {
		v.refuse(nc, nc.ChannelType(), channelsFull, "")
		return
	}
	v.channels.Add(1) // by nobody else at the same time
	jumps.Go(func() {
		defer v.channels.Add(-1)
		serve(ctx, nc)
	})
}

// refuse turns a channel down. The engineer is known by now and gets the reason code; the detail stays in the audit log.
func (v *visit) refuse(nc ssh.NewChannel, what string, why policies.Reason, detail string) {
	v.noteRefused(what, why, detail)
	code := ssh.Prohibited
	switch why {
	case channelsFull:
		code = ssh.ResourceShortage
	case targetUnreachable:
		code = ssh.ConnectionFailed
	}
	if err := nc.Reject(code, string(why)); err != nil && !errors.Is(err, io.EOF) {
		v.server.log.Debug("refusing a channel", "connection", v.id, "error", err)
	}
}

// jump opens one target and carries bytes until either side, a limit or a policy ends it.
func (v *visit) jump(ctx context.Context, nc ssh.NewChannel) {
	request, err := parseDirectTCPIP(nc.ExtraData())
	if err != nil {
		v.refuse(nc, nc.ChannelType(), payloadMalformed, "")
		return
	}
	what := fmt.Sprintf("%s:%d", request.host, request.port)
	target := policies.Target{Server: serverName(&v.server.ruling.Load().bundle.Inventory, request.host), Port: request.port}
	v.toTarget(ctx, nc, what, target, false, func(ctx context.Context, o *opened, conn halfCloser) {
		channel, requests, err := nc.Accept()
		if err != nil {
			o.finish(endLost, "")
			conn.Close()
			return
		}
		v.carry(ctx, o, channel, requests, conn)
	})
}

// toTarget decides on a target, writes it down, dials it and hands the connection on; else it refuses the channel.
func (v *visit) toTarget(ctx context.Context, nc ssh.NewChannel, what string, target policies.Target, session bool,
	then func(ctx context.Context, o *opened, conn halfCloser)) {
	ruling := v.server.ruling.Load()
	verdict := ruling.decideWay(v.login, target, session, time.Now())
	if !verdict.Allow {
		v.refuse(nc, what, verdict.Reason, verdict.Detail)
		return
	}
	if verdict := ruling.fresh.opens(time.Now()); !verdict.Allow {
		v.refuse(nc, what, verdict.Reason, verdict.Detail)
		return
	}
	if verdict := v.restrict(ctx, ruling, policies.DecidesTarget, v.login, target); !verdict.Allow {
		v.refuse(nc, what, verdict.Reason, verdict.Detail)
		return
	}
	server, ok := ruling.bundle.Inventory.Server(target.Server)
	if !ok {
		v.refuse(nc, what, policies.TargetUnknown, "")
		return
	}
	address := netip.AddrPortFrom(server.Address.Addr().Unmap(), target.Port)
	if err := v.server.reachable(ruling, address.Addr()); err != nil {
		v.refuse(nc, what, addressRefused, err.Error())
		return
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := &opened{target: target, session: session, address: address, basis: verdict.Basis, began: time.Now(), cancel: cancel}
	v.opening(o)
	v.server.metrics.targetOpened()
	defer v.closed(o)
	// A policy or statement that came in between, and a window that ended, have not seen this target: decide once more.
	newer := v.server.ruling.Load()
	v.decideAgain(newer, v.login, time.Now())
	if newer.bundle != ruling.bundle {
		if verdict := v.restrict(ctx, newer, policies.DecidesTarget, v.login, target); !verdict.Allow {
			o.cut(endPolicy, verdict.Reason)
		}
	}
	// Written down before anything goes to the server, durably.
	if err := v.server.audit.AppendOpening(eventTarget, v.openingRecord(o)); err != nil {
		v.server.log.Error("the audit log cannot be written: new targets are denied", "error", err)
		o.finish(endRefused, auditUnavailable)
		v.refuse(nc, what, auditUnavailable, err.Error())
		return
	}
	v.usesGlass(glassTarget, verdict, target)
	dialing, stop := context.WithTimeout(ctx, dialLimit)
	conn, err := v.server.dial(dialing, address)
	stop()
	if err != nil {
		o.finish(endRefused, targetUnreachable)
		v.refuse(nc, what, targetUnreachable, v.server.explainDial(err, address.Port()).Error())
		return
	}
	if local, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		o.via = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
	}
	then(ctx, o, conn)
}

// serverName takes the fleet's domain off a host name: se-1.example.net is se-1.
func serverName(fleet *inventory.Fleet, host string) string {
	if fleet.Domain == "" {
		return host
	}
	return strings.TrimSuffix(host, "."+fleet.Domain)
}
