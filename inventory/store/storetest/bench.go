package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// many is how many servers a large fleet has.
const many = 100_000

// BenchServers measures reading all servers of a large fleet.
func BenchServers(b *testing.B, k Kind) {
	s := k.Open(b)(b)
	c := &store.Content{}
	for i := range many {
		boot := fmt.Sprintf("%032x", i)
		c.Servers = append(c.Servers, store.Record{Server: store.Server{Name: fmt.Sprintf("s%07d", i), State: inventory.Serving, Epoch: 3, Since: now, Cause: "baked", Release: "7",
			BootID: boot, TLSKey: boot + boot, HostKey: "ssh-ed25519 " + boot, TunnelKey: boot, Evidence: "attested", BootedAt: now, JoinedAt: now, Deadline: now.Add(time.Hour)},
			Report: []byte(`{"boot_id":"` + boot + `","ready":true}`), ReportAt: now})
	}
	var data bytes.Buffer
	if err := errors.Join(c.Write(&data), s.Import(b.Context(), &data)); err != nil {
		b.Fatal(err)
	}
	c = nil
	b.ResetTimer()
	for b.Loop() {
		all, err := s.Servers(b.Context())
		if err != nil || len(all) != many {
			b.Fatalf("%d servers, %v", len(all), err)
		}
	}
}
