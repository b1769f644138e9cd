package pivcard

import "context"

// authenticate is GENERAL AUTHENTICATE: with the management key, or a use of a slot's private key.
func (c *Card) authenticate(ctx context.Context, cmd apdu) ([]byte, Status) {
	if cmd.p2 == slotManagement {
		return c.authenticateManagement(ctx, cmd)
	}
	if !holdsKey(cmd.p2) || cmd.p2 == slotAttestation {
		return nil, statusSlot
	}
	k, ok := c.state.Slots[slotName(cmd.p2)]
	if !ok || k.Algorithm != cmd.p1 {
		return nil, statusData
	}
	f, rest, ok := next(cmd.data)
	if !ok || f.tag != tagTemplate || len(rest) != 0 {
		return nil, statusData
	}
	parts, ok := fields(f.value)
	if !ok || len(parts) != 2 || len(parts[tagResponse]) != 0 {
		return nil, statusData
	}
	if _, ok := parts[tagResponse]; !ok {
		return nil, statusData
	}
	// The PIN first: a card without it does not ask for a touch.
	if k.PIN == PINOnce && !c.session.verified || k.PIN == PINAlways && !c.session.fresh {
		return nil, statusSecurity
	}
	c.session.fresh = false
	if !c.touched(ctx, k.Touch) {
		return nil, statusSecurity
	}
	var out []byte
	err := errData
	if data, ok := parts[tagChallenge]; ok {
		out, err = k.private.sign(data)
	} else if peer, ok := parts[tagExponentiation]; ok {
		out, err = k.private.agree(peer)
	}
	if err != nil {
		return nil, statusData
	}
	c.counts.Signatures++
	return tlv(tagTemplate, tlv(tagResponse, out)), statusOK
}

// touched asks for a touch where the policy wants one. The lock is not held meanwhile; the card takes no other command, and no change from outside.
func (c *Card) touched(ctx context.Context, p TouchPolicy) bool {
	if p != TouchAlways && p != TouchCached {
		return true
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	return c.Touch.ask(ctx, p == TouchCached)
}
