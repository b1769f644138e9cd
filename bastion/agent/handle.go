package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"mayfly/internal/hint"
)

// client is one connection. One goroutine handles its messages, in order.
type client struct {
	agent *Agent
	who   peer
	binds bindings
	chain []*chained
	last  *Refusal // of the last request; nil if it was done
}

var failure = []byte{msgFailure}

// handle answers one message. Whatever is in it, there is an answer: what a client sends never ends the agent.
func (c *client) handle(ctx context.Context, message []byte) (reply []byte) {
	defer func() {
		if p := recover(); p != nil {
			c.agent.log.Error("internal error", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.last = refuse(ReasonInternal, "internal error")
			reply = failure
		}
	}()
	var kind byte
	if len(message) > 0 {
		kind, message = message[0], message[1:]
	}
	if kind == msgExtension && isWhy(message) {
		return c.why()
	}
	reply, refusal, purpose := c.answer(ctx, kind, message)
	c.last = refusal
	if refusal != nil {
		c.refused(refusal, purpose)
		return failure
	}
	return reply
}

// answer does what is asked for. purpose is what a signature would have been for, "" where nothing was to be signed.
func (c *client) answer(ctx context.Context, kind byte, body []byte) (reply []byte, refusal *Refusal, purpose string) {
	switch kind {
	case msgRequestIdentities:
		reply, refusal = c.list(ctx, body)
	case msgSignRequest:
		return c.sign(ctx, body)
	case msgExtension:
		reply, refusal = c.extension(body)
	case msgAddIdentity, msgAddConstrained, msgAddSmartcard, msgAddCardConstraint:
		refusal = refuse(ReasonUnsupported, "a request to add a key: keys are on cards").hint("ssh-add to another agent, and --chain its socket")
	case msgRemoveIdentity, msgRemoveAll, msgRemoveSmartcard:
		refusal = refuse(ReasonUnsupported, "a request to remove keys: a card is taken out by hand")
	case msgLock, msgUnlock:
		refusal = refuse(ReasonUnsupported, "a request to lock or unlock: the card's PIN and touch do that")
	case 0:
		refusal = refuse(ReasonMalformed, "an empty message, or one of type 0")
	default:
		refusal = refuse(ReasonUnsupported, "a request of type %d", kind)
	}
	return reply, refusal, purpose
}

func (c *client) refused(r *Refusal, purpose string) {
	args := []any{"reason", r.Reason, "error", r.Error(), "client", c.who.String()}
	if purpose != "" {
		args = append(args, "for", purpose)
	}
	if h := hint.Of(r); h != "" {
		args = append(args, "hint", h)
	}
	c.agent.log.Warn("refused", args...)
	if purpose != "" && r.Reason != ReasonClientGone && r.Reason != ReasonPINCancelled {
		c.agent.tell(r, purpose)
	}
}

// isWhy is whether an extension is ours.
func isWhy(body []byte) bool {
	r := reader{data: body}
	return string(r.string("extension", 256)) == extensionWhy && r.end() == nil
}

// why answers our own extension: reason, text and hint of this connection's last refusal, empty where there was none.
func (c *client) why() []byte {
	reply := []byte{msgSuccess}
	if c.last == nil {
		return appendString(appendString(appendString(reply, ""), ""), "")
	}
	return appendString(appendString(appendString(reply, c.last.Reason), c.last.Error()), hint.Of(c.last))
}

// list answers with the keys of all cards, then with those of the chained agents that answer. A key is listed once.
func (c *client) list(ctx context.Context, body []byte) ([]byte, *Refusal) {
	if len(body) > 0 {
		return nil, refuse(ReasonMalformed, "a request for keys with %d bytes too many", len(body))
	}
	own, refusal := c.agent.keyring.list(ctx)
	if refusal != nil && (len(c.chain) == 0 || refusal.Reason == ReasonClientGone) {
		return nil, refusal
	}
	if refusal != nil {
		c.agent.log.Warn("cards left out", "reason", refusal.Reason, "error", refusal)
	}
	var keys []byte
	count := uint32(0)
	listed := map[string]bool{}
	add := func(blob []byte, comment string) {
		if !listed[string(blob)] {
			listed[string(blob)] = true
			keys = appendString(appendString(keys, blob), comment)
			count++
		}
	}
	for _, k := range own {
		add(k.Public.Marshal(), comment(k))
	}
	for _, others := range c.chained(ctx) {
		for _, k := range others {
			if len(keys)+len(k.Blob)+len(k.Comment) < maxMessage/2 {
				add(k.Blob, k.Comment)
			}
		}
	}
	return append(binary.BigEndian.AppendUint32([]byte{msgIdentitiesAnswer}, count), keys...), nil
}

// comment is what ssh-add -l shows: never a line of its own.
func comment(k placed) string {
	if k.Comment == "" {
		return fmt.Sprintf("%s slot %s", k.card, k.Slot)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, k.Comment)
}

// extension takes session-bind@openssh.com. Others are not known here, nor passed on.
func (c *client) extension(body []byte) ([]byte, *Refusal) {
	r := reader{data: body}
	name := r.string("extension's name", 256)
	if r.err != nil {
		return nil, refuse(ReasonMalformed, "%w", r.err)
	}
	if string(name) == extensionChain {
		return c.comesThrough(r.data)
	}
	if string(name) != extensionBind {
		return nil, refuse(ReasonUnsupported, "extension %s", shown(string(name)))
	}
	b, refusal := parseBind(r.data)
	if refusal == nil {
		refusal = c.binds.add(b)
	}
	if refusal != nil {
		return nil, refusal
	}
	c.agent.log.Debug("bound", "host", c.agent.hosts.resolve(b.HostKey).String(), "forwarded", b.Forwarded, "client", c.who.String())
	return []byte{msgSuccess}, nil
}

// comesThrough takes the agents that this connection comes through. One that has come through this agent already, or through too many, sees this agent's
// own keys alone.
func (c *client) comesThrough(via []byte) ([]byte, *Refusal) {
	if len(via) == 0 || len(via)%agentID != 0 || len(via) > maxChainLength*agentID {
		return nil, refuse(ReasonMalformed, "%s: %d bytes, want up to %d identifiers of %d", extensionChain, len(via), maxChainLength, agentID)
	}
	round := len(via) == maxChainLength*agentID
	for id := range slices.Chunk(via, agentID) {
		round = round || bytes.Equal(id, c.agent.id[:])
	}
	for _, chain := range c.chain {
		chain.close()
		chain.via = append(bytes.Clone(via), c.agent.id[:]...)
	}
	if round {
		c.agent.log.Debug("chained agents are left out: the connection comes through this agent, or through too many", "client", c.who.String())
		c.chain = nil
	}
	return []byte{msgSuccess}, nil
}

// sign answers a request to sign: ours by a card, others' by the chained agent that has the key.
func (c *client) sign(ctx context.Context, body []byte) (reply []byte, refusal *Refusal, purpose string) {
	r := reader{data: body}
	blob, data, flags := r.string("key", maxMessage), r.string("data", maxMessage), r.uint32("flags")
	if err := r.end(); err != nil {
		return nil, refuse(ReasonMalformed, "a request to sign: %w", err), ""
	}
	key, found, refusal := c.find(ctx, blob)
	if refusal != nil {
		return nil, refusal, "sign"
	}
	if !found {
		reply, refusal = c.passOn(ctx, blob, data, flags)
		return reply, refusal, "sign"
	}
	p, refusal := c.agent.rules.judge(key.Public, data, c.binds, c.agent.hosts.resolve)
	purpose = p.String()
	if refusal != nil {
		return nil, refusal, purpose
	}
	sig, refusal := c.agent.sign(ctx, key, data, purpose)
	if refusal != nil {
		return nil, refusal, purpose
	}
	c.agent.log.Info("signed", "for", purpose, "card", key.card.String(), "slot", key.Slot, "key", fingerprint(key.Public), "client", c.who.String())
	return appendString([]byte{msgSignResponse}, ssh.Marshal(sig)), nil, purpose
}

// find says on which card a key is. With chained agents it is nobody's refusal that it is on none: one of them may have it. A card that another program
// keeps is waited for only if none has.
func (c *client) find(ctx context.Context, blob []byte) (placed, bool, *Refusal) {
	patience := c.agent.keyring.busy
	if len(c.chain) > 0 {
		patience = listWait
	}
	key, found, refusal := c.agent.keyring.find(ctx, blob, patience)
	if refusal == nil || len(c.chain) == 0 || refusal.Reason == ReasonClientGone {
		return key, found, refusal
	}
	c.agent.log.Warn("cards left out", "reason", refusal.Reason, "error", refusal)
	if _, has := c.chainWith(ctx, blob); has {
		return placed{}, false, nil
	}
	if refusal.Reason == ReasonCardBusy {
		return c.agent.keyring.find(ctx, blob, c.agent.keyring.busy)
	}
	return placed{}, false, refusal
}

// chainWith is the chained agent that lists a key.
func (c *client) chainWith(ctx context.Context, blob []byte) (*chained, bool) {
	for i, keys := range c.chained(ctx) {
		if has(keys, blob) {
			return c.chain[i], true
		}
	}
	return nil, false
}

// chained are the keys of each chained agent, asked all at once. One that does not answer has none.
func (c *client) chained(ctx context.Context) [][]*sshagent.Key {
	all := make([][]*sshagent.Key, len(c.chain))
	var asking sync.WaitGroup
	for i, chain := range c.chain {
		asking.Go(func() {
			keys, err := chain.list(ctx, c.binds)
			if err != nil {
				c.agent.log.Warn("chained agent left out", "socket", chain.socket, "error", err)
				return
			}
			all[i] = keys
		})
	}
	asking.Wait()
	return all
}

// passOn asks the chained agent that lists the key.
func (c *client) passOn(ctx context.Context, blob, data []byte, flags uint32) ([]byte, *Refusal) {
	chain, has := c.chainWith(ctx, blob)
	switch {
	case ctx.Err() != nil:
		return nil, refuse(ReasonClientGone, "%w", context.Cause(ctx))
	case !has:
		return nil, refuse(ReasonUnknownKey, "a signature by a key that no plugged card has").hint("ssh-add -l lists the keys there are; plug the card in")
	}
	sig, err := chain.sign(ctx, c.binds, blob, data, flags)
	switch {
	case ctx.Err() != nil:
		return nil, refuse(ReasonClientGone, "%w", context.Cause(ctx))
	case err != nil:
		return nil, refuse(ReasonChain, "the agent at %s: %w", chain.socket, err)
	}
	c.agent.log.Info("signed by a chained agent", "socket", chain.socket, "client", c.who.String())
	return appendString([]byte{msgSignResponse}, ssh.Marshal(sig)), nil
}
