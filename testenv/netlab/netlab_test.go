package netlab

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
}

func makeLab(t *testing.T, taps ...string) Lab {
	t.Helper()
	needRoot(t)
	lab := Of(t.TempDir())
	if err := lab.Create(taps); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Remove(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func TestNamesDiffer(t *testing.T) {
	a, b := Of("/a/.testenv"), Of("/b/.testenv")
	if a.Core.Name == b.Core.Name {
		t.Errorf("two directories share %q", a.Core.Name)
	}
	if got := a.Core.Name; len(got) != len("mf-123456-core") || !strings.HasPrefix(got, "mf-") {
		t.Errorf("got name %q, want mf-<6 hex>-core", got)
	}
}

// TestReach holds the lab's promise: what reaches what, and that the target cannot answer the client.
func TestReach(t *testing.T) {
	lab := makeLab(t, "tap-a", "tap-b")
	target, err := lab.Target.Listen("tcp", netip.AddrPortFrom(WebTarget, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go echo(target)
	controller, err := lab.Core.Listen("tcp", netip.AddrPortFrom(Controller, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	go echo(controller)

	tests := []struct {
		name string
		ns   Namespace
		from netip.Addr
		to   netip.Addr
		want bool
	}{
		{"client to controller", lab.Client, Engineer, Controller, true},
		{"client's other address to controller", lab.Client, OffList, Controller, true},
		{"management to target", lab.Core, Controller, WebTarget, true},
		{"target to controller", lab.Target, netip.Addr{}, Controller, true},
		{"client to target", lab.Client, Engineer, WebTarget, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wait := 20 * time.Second // a loaded machine may be slow to answer
			if !test.want {
				wait = 700 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			conn, err := test.ns.DialContext(ctx, "tcp", netip.AddrPortFrom(test.to, 80).String(), test.from)
			if got := err == nil; got != test.want {
				t.Fatalf("got connected %v (%v), want %v", got, err, test.want)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
}

func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}()
	}
}

func TestHostIsUntouched(t *testing.T) {
	links := func() string {
		interfaces, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, i := range interfaces {
			names = append(names, i.Name)
		}
		return strings.Join(names, " ")
	}
	needRoot(t)
	before := links()
	lab := makeLab(t, "tap-a")
	if got := links(); got != before {
		t.Errorf("got host interfaces %q, want %q", got, before)
	}
	out, err := runIn(lab.Core, "cat", "/proc/net/dev")
	if err != nil || !strings.Contains(out, "tap-a:") || !strings.Contains(out, "mf0:") {
		t.Errorf("got interfaces of core %q (%v), want tap-a and mf0", out, err)
	}
}

func runIn(n Namespace, args ...string) (string, error) {
	var out strings.Builder
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.Run(cmd)
	return out.String(), err
}

func TestRemoveTwiceAndHalfMade(t *testing.T) {
	needRoot(t)
	lab := Of(t.TempDir())
	if err := lab.Remove(); err != nil {
		t.Errorf("removing a lab that is not there: %v", err)
	}
	if err := lab.Core.create(); err != nil {
		t.Fatal(err)
	}
	// A run killed between making the file and mounting on it.
	if err := os.WriteFile(lab.Client.Path(), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := lab.Remove(); err != nil {
			t.Error(err)
		}
	}
	for _, n := range lab.Namespaces() {
		if n.Exists() {
			t.Errorf("%s is still there", n.Name)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	needRoot(t)
	lab := Of(t.TempDir())
	if err := lab.Create([]string{"this-name-is-too-long-for-linux"}); err == nil {
		t.Error("got nil, want an error for a tap name that Linux refuses")
	}
	for _, n := range lab.Namespaces() {
		if n.Exists() {
			t.Errorf("%s is still there", n.Name)
		}
	}
}

func TestDialRefusesNames(t *testing.T) {
	if _, err := (Namespace{"x"}).DialContext(t.Context(), "tcp", "example.org:80", netip.Addr{}); err == nil {
		t.Error("got nil, want an error: names are resolved outside the namespace")
	}
}
