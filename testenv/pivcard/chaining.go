package pivcard

import "context"

// chain holds the beginning of a command that comes in pieces, and the end of an answer that goes in pieces (ISO/IEC 7816-4, part 5.3).
type chain struct {
	begun bool
	first apdu
	rest  []byte
}

// maxCommand bounds a chained command: the largest object with its tags, and a little. Implementation constant.
const maxCommand = maxObject + 64

// chained puts a command together, runs it, and takes its answer apart.
func (c *Card) chained(ctx context.Context, cmd apdu) ([]byte, Status) {
	if cmd.class&classSecureMessaging != 0 && cmd.class&0x80 == 0 {
		c.chain = chain{}
		return nil, statusSecureMessaging
	}
	if cmd.class&^classChaining != 0 {
		c.chain = chain{}
		return nil, statusClass
	}
	if cmd.instruction == insGetResponse && !c.chain.begun {
		if len(c.chain.rest) == 0 || cmd.p1 != 0 || cmd.p2 != 0 || cmd.class != 0 {
			c.chain = chain{}
			return nil, statusConditions
		}
		return c.piece(c.chain.rest, cmd.want, statusOK)
	}
	c.chain.rest = nil
	begun := c.chain.begun
	if begun {
		first := c.chain.first
		if first.instruction != cmd.instruction || first.p1 != cmd.p1 || first.p2 != cmd.p2 {
			c.chain = chain{}
			return nil, statusLastOfChain
		}
		cmd.data = append(first.data, cmd.data...)
	}
	if len(cmd.data) > maxCommand {
		c.chain = chain{}
		return nil, statusLength
	}
	if cmd.class&classChaining != 0 {
		cmd.data = append([]byte(nil), cmd.data...)
		c.chain = chain{begun: true, first: cmd}
		return nil, statusOK
	}
	c.chain = chain{}
	data, sw := c.run(ctx, cmd)
	return c.piece(data, cmd.want, sw)
}

// piece gives as much of an answer as fits, and keeps the rest for GET RESPONSE.
func (c *Card) piece(data []byte, want int, sw Status) ([]byte, Status) {
	if len(data) <= want {
		c.chain.rest = nil
		return data, sw
	}
	c.chain.rest = data[want:]
	left := len(c.chain.rest)
	if left >= longestShortAnswer {
		left = 0
	}
	return data[:want], statusMore | Status(left)
}
