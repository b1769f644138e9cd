package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"
)

// inputs names what a plan was made from: the SHA-256 of all of it. What is small is hashed as JSON, the servers field by field.
func inputs(s Snapshot, r Rules, h Health, now time.Time) string {
	zones := make([]string, 0, len(s.Zones))
	for name, z := range s.Zones {
		if z != nil {
			zones = append(zones, name)
		}
	}
	slices.Sort(zones)
	servers := s.Servers
	s.Servers = nil
	data, err := json.Marshal(struct {
		Snapshot Snapshot
		Rules    Rules
		Zones    []string
		Now      time.Time
		Servers  int
	}{s, r, zones, now.UTC(), len(servers)})
	if err != nil {
		panic("plan: internal error: " + err.Error())
	}
	sum := sha256.New()
	sum.Write(data)
	buf := make([]byte, 0, 1<<12)
	text := func(v string) { buf = append(binary.AppendUvarint(buf, uint64(len(v))), v...) }
	number := func(v uint64) { buf = binary.AppendUvarint(buf, v) }
	flag := func(v bool) { buf = append(buf, bit(v)) }
	moment := func(t time.Time) {
		flag(t.IsZero())
		if !t.IsZero() {
			buf = binary.BigEndian.AppendUint64(buf, uint64(t.UnixNano()))
		}
	}
	for i := range servers {
		x := &servers[i]
		text(x.Name)
		text(x.Region)
		text(x.Role)
		text(string(x.State))
		text(x.Domains.Rack)
		text(x.Domains.Switch)
		text(x.Domains.BMC)
		text(x.Domains.Mirror)
		number(uint64(x.Capacity))
		number(x.Epoch)
		number(x.Release)
		for _, v := range [...]bool{x.Bastion, x.Control, x.Internal, x.Spare, x.Revoked, x.Tainted} {
			flag(v)
		}
		moment(x.Deadline)
		moment(x.HeldUntil)
		heard, ok := h[x.Name]
		flag(ok)
		moment(heard)
		if len(buf) > 1<<11 {
			sum.Write(buf)
			buf = buf[:0]
		}
	}
	sum.Write(buf)
	return hex.EncodeToString(sum.Sum(nil))
}
