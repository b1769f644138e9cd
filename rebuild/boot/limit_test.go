package boot

import (
	"net"
	"testing"
	"time"
)

func TestLimited(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLimited(inner, 2, 2)
	defer l.Close()
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.DialTimeout("tcp", inner.Addr().String(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	dial()
	first, second := <-accepted, <-accepted
	over := dial()
	if err := over.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := over.Read(make([]byte, 1)); err == nil {
		t.Error("a connection over the bound was kept")
	} else if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Error("a connection over the bound was not closed")
	}
	for range 2 { // closing twice gives one place back
		_ = first.Close()
	}
	dial()
	third := <-accepted
	if l.all != 2 || len(l.from) != 1 {
		t.Errorf("%d connections from %d addresses, want 2 from 1", l.all, len(l.from))
	}
	_, _ = second.Close(), third.Close()
	if l.all != 0 || len(l.from) != 0 {
		t.Errorf("%d connections from %d addresses after all were closed", l.all, len(l.from))
	}
}

func TestReportCount(t *testing.T) {
	c := &reportCount{seen: make(map[life]int)}
	for i := range maxReportsOfALife + 3 {
		if got, want := c.allow(life{"se-1", 1}), i < maxReportsOfALife; got != want {
			t.Errorf("report %d: got %v, want %v", i+1, got, want)
		}
	}
	if !c.allow(life{"se-2", 1}) || !c.allow(life{"se-1", 2}) {
		t.Error("another server's, or the next life's, first report is refused")
	}
	if len(c.seen) != 2 {
		t.Errorf("%d lives are counted, want the two present ones", len(c.seen))
	}
}
