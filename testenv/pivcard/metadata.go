package pivcard

import "bytes"

// Tags of GET METADATA (Yubico's PIV extensions).
const (
	metaAlgorithm = 0x01
	metaPolicy    = 0x02
	metaOrigin    = 0x03
	metaPublic    = 0x04
	metaDefault   = 0x05
	metaTries     = 0x06

	originGenerated  = 1
	originImported   = 2
	algorithmOfAPIN  = 0xFF
	policyNotApplies = 0
)

// metadata is Yubico's GET METADATA.
func (c *Card) metadata(cmd apdu) ([]byte, Status) {
	if cmd.p1 != 0 {
		return nil, statusSlot
	}
	flag := func(b bool) []byte {
		if b {
			return []byte{1}
		}
		return []byte{0}
	}
	switch cmd.p2 {
	case referencePIN, referencePUK:
		s, standard := c.state.PIN, DefaultPIN
		if cmd.p2 == referencePUK {
			s, standard = c.state.PUK, DefaultPUK
		}
		return bytes.Join([][]byte{
			tlv(metaAlgorithm, []byte{algorithmOfAPIN}),
			tlv(metaDefault, flag(bytes.Equal(s.Value, padded(standard)))),
			tlv(metaTries, []byte{byte(s.Tries), byte(s.Left)}),
		}, nil), statusOK
	case slotManagement:
		m := c.state.Management
		return bytes.Join([][]byte{
			tlv(metaAlgorithm, []byte{m.Algorithm}),
			tlv(metaPolicy, []byte{policyNotApplies, byte(m.Touch)}),
			tlv(metaDefault, flag(bytes.Equal(m.Key, defaultManagementKey))),
		}, nil), statusOK
	}
	if !holdsKey(cmd.p2) {
		return nil, statusSlot
	}
	k, ok := c.state.Slots[slotName(cmd.p2)]
	if !ok {
		return nil, statusReference
	}
	origin := byte(originGenerated)
	if k.Imported {
		origin = originImported
	}
	return bytes.Join([][]byte{
		tlv(metaAlgorithm, []byte{k.Algorithm}),
		tlv(metaPolicy, []byte{byte(k.PIN), byte(k.Touch)}),
		tlv(metaOrigin, []byte{origin}),
		tlv(metaPublic, k.private.template()),
	}, nil), statusOK
}
