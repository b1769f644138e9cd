package netlab

import (
	"net"
	"testing"
)

// interfaces are those of the namespace that do runs in.
func interfaces(t *testing.T, do func(func() error) error) (names []string) {
	t.Helper()
	err := do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			if i.Flags&net.FlagUp != 0 {
				names = append(names, i.Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestLoopbackAlone: in a private namespace, and in the cards' of the lab, what listens on every address is heard by nobody else.
func TestLoopbackAlone(t *testing.T) {
	lab := makeLab(t)
	private, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := private.Close(); err != nil {
			t.Error(err)
		}
	}()
	for name, do := range map[string]func(func() error) error{"private": private.Do, "cards": lab.Cards.Do} {
		if got := interfaces(t, do); len(got) != 1 || got[0] != "lo" {
			t.Errorf("%s: got interfaces %q that are up, want lo alone", name, got)
		}
		var listener net.Listener
		if err := do(func() (err error) {
			listener, err = net.Listen("tcp4", "0.0.0.0:0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		address := net.JoinHostPort("127.0.0.1", port(t, listener))
		dial := func() error {
			conn, err := net.Dial("tcp4", address)
			if err != nil {
				return err
			}
			return conn.Close()
		}
		if err := do(dial); err != nil {
			t.Errorf("%s: from inside: %v", name, err)
		}
		if err := lab.Core.Do(dial); err == nil {
			t.Errorf("%s: it answers to %s in another namespace", name, address)
		}
	}
}

func port(t *testing.T, l net.Listener) string {
	t.Helper()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
