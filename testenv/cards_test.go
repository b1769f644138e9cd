package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
	"mayfly/testenv/pcscd"
	"mayfly/testenv/pivcard"
)

// TestCards plugs in two cards that are programs of their own, lets a user who is nobody in particular find them, pulls one and plugs
// it in again; with the environment all of it ends.
func TestCards(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	needs := append(pcscd.Needs, debian.Need{Name: "yubico-piv-tool", Package: "yubico-piv-tool"})
	if missing := debian.Missing(needs); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // nobody has to get at the socket
		t.Fatal(err)
	}
	e := &environment{module: "..", dir: filepath.Join(root, stateName)}
	e.lab, e.table.Dir = netlab.Of(e.dir), e.dir
	for _, n := range e.lab.Namespaces() {
		e.table.Namespaces = append(e.table.Namespaces, n.Path())
	}
	for _, dir := range []string{e.dir, e.path("bin")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", e.bin("testenv"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building testenv: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if _, err := e.remove(); err != nil {
			t.Error(err)
		}
	})
	if err := e.lab.Create(nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := e.startCards(ctx, "alice", "bob")
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]uint32{}
	for reader, name := range []string{"alice", "bob"} {
		reply, err := pivcard.Ask(ctx, c.control(name), pivcard.Request{Do: "show"})
		if err != nil || reply.Card == nil {
			t.Fatalf("%s: got %+v, %v", name, reply, err)
		}
		serials[name] = reply.Card.Serial
		cmd := c.Command(ctx, "yubico-piv-tool", "-r", c.Reader(reader), "-a", "status")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}} // nobody
		out, err := cmd.CombinedOutput()
		if want := fmt.Sprintf("Serial Number:\t%d", reply.Card.Serial); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: got %s, %v, want %q", name, out, err, want)
		}
	}
	if serials["alice"] == serials["bob"] {
		t.Errorf("both cards have serial number %d", serials["bob"])
	}
	before, err := c.State(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pivcard.Ask(ctx, c.control("bob"), pivcard.Request{Do: "pull"}); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitRemoval(ctx, 1, before); err != nil {
		t.Fatal(err)
	}
	if _, err := pivcard.Ask(ctx, c.control("bob"), pivcard.Request{Do: "insert"}); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitCard(ctx, 1); err != nil {
		t.Error(err)
	}
	ended, err := e.remove()
	if err != nil || ended != 3 {
		t.Errorf("ending the environment: got %d programs, %v, want pcscd and two cards", ended, err)
	}
	if left, err := e.table.Running(); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v, want nothing left", left, err)
	}
}
