package bastion

import (
	"io"
	"log/slog"
	"net"
	"testing"

	"mayfly/testenv/softkey"
)

// These measure client and server together, in one process; `testenv bench bastion` measures the server's share beside its peers.

// speedFixture is a bastion with an audit log and without a reader of its records.
func speedFixture(b *testing.B) *fixture {
	b.Helper()
	f := newFixture(b)
	f.policy.SSH.MaxStartups, f.policy.SSH.MaxPerSource, f.policy.SSH.MaxSessions, f.policy.SSH.MaxPerEngineer = 4096, 1024, 16384, 1024
	f.writeBundle(2)
	f.start()
	f.server.log = slog.New(slog.DiscardHandler)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-f.spy.entries:
			case <-done:
				return
			}
		}
	}()
	b.Cleanup(func() { close(done) })
	return f
}

func BenchmarkLogin(b *testing.B) {
	f := speedFixture(b)
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		signer := f.anna.Signer(softkey.Always)
		for pb.Next() {
			client, err := f.client("anna", signer)
			if err != nil {
				b.Error(err)
				return
			}
			client.Close()
		}
	})
}

func BenchmarkForward(b *testing.B) {
	const piece = 1 << 20
	zeros := make([]byte, piece)
	for _, way := range []string{"up", "down"} {
		b.Run(way, func(b *testing.B) {
			f := speedFixture(b)
			f.target("10.77.0.11:22", func(conn *net.TCPConn) {
				for err := error(nil); way == "down" && err == nil; {
					_, err = conn.Write(zeros)
				}
				io.Copy(io.Discard, conn)
			})
			client := f.login("anna", f.anna.Signer(softkey.Always))
			channel, err := client.Dial("tcp", "se-1:22")
			if err != nil {
				b.Fatal(err)
			}
			defer channel.Close()
			b.SetBytes(piece)
			b.ReportAllocs()
			buffer := make([]byte, piece)
			for b.Loop() {
				if way == "up" {
					_, err = channel.Write(zeros)
				} else {
					_, err = io.ReadFull(channel, buffer)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
