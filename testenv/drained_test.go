package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
)

// drainedFor is what bob gets of se-1 in the test, after it has drained.
const drainedFor = 45 * time.Second

// drained takes se-1 out of traffic for bob: no shell before it is drained and alice has approved, none after, and it comes back
// by a rebuild alone.
func drained(t *testing.T, d *demo) {
	const name = "se-1"
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	fleetctl := func(args ...string) string {
		t.Helper()
		out, err := d.fleetctl(ctx, args...)
		if err != nil {
			t.Fatalf("fleetctl %s: %v", args[0], err)
		}
		return out
	}
	bobs := d.e.path("ssh", "config-bob")
	fleetctl("ssh-config", "--user", colleague, "-o", bobs)
	shell := func(ctx context.Context, run string) *exec.Cmd {
		cmd := d.e.command(ctx, "ssh", "-F", bobs, "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", name, run)
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+d.agentSocket(colleague))
		return cmd
	}
	tried := func() string { // what is said when bob tries
		limit, cancel := context.WithTimeout(ctx, sshLimit)
		defer cancel()
		out, err := outputOf(shell(limit, "hostname"), d.e.lab.Client.Start)
		var f *failure
		if errors.As(err, &f) {
			return f.said
		}
		return out
	}
	says := func(what, want string) {
		t.Helper()
		said := ""
		await(t, ctx, d, name, what+": "+want, func() bool {
			said = tried()
			return strings.Contains(said, want)
		})
	}
	server := func() store.Server {
		t.Helper()
		all, err := d.servers(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return all[name]
	}

	policy, err := os.ReadFile(d.e.fleet("policy.toml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(policy), "version = 1\n", "version = 2\n", 1)
	text = strings.Replace(text, "[rotation]\n", "[[grant]]\nengineers = [\""+colleague+"\"]\nservers = [\"region:se\"]\nports = [22]\napproval = true\ndrained = true\n\n"+
		"[[operator]]\nengineers = [\""+engineer+"\", \""+colleague+"\"]\nactions = [\"drain\"]\n\n[rotation]\n", 1)
	if err := os.WriteFile(d.e.fleet("policy.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	fleetctl("policy", "bundle")
	fleetctl("policy", "sign", "--key", d.e.approverKey("ana"))
	fleetctl("policy", "sign", "--key", d.e.approverKey("bo"))
	fleetctl("policy", "publish", "--witness", witnessURL)
	says("with traffic on it", "server_not_drained")

	before := server()
	began := time.Now()
	if said, err := d.refusedBy(ctx, "drain", name, "--reason", "disk full"); err != nil || !strings.Contains(said, "request_missing") {
		t.Errorf("drain without a request: got %q, %v", said, err)
	}
	signed := d.e.command(ctx, d.e.bin("fleetctl"), "drain", name, "--reason", "disk full", "--for", drainedFor.String(), "--sign", d.e.path("keys", engineer)+".pub")
	signed.Dir = d.e.fleet()
	signed.Env = append(signed.Env, "SSH_AUTH_SOCK="+d.agentSocket(engineer))
	if out, err := outputOf(signed, d.e.lab.Core.Start); err != nil || !strings.Contains(out, "is drained until") {
		t.Fatalf("drain: got %q, %v", out, err)
	}
	t.Logf("drained in %s", time.Since(began).Round(time.Millisecond))
	if s := server(); s.State != inventory.Draining || !s.Tainted || !s.Drained || s.Epoch != before.Epoch {
		t.Errorf("drained: got %+v", s)
	}
	request := d.e.fleet("r.json") // a request to drain the next one as well
	order := d.e.command(ctx, d.e.bin("fleetctl"), "request", "make", "drain", "se-2", "--reason", "x", "--out", request, "--key", d.e.path("keys", engineer)+".pub")
	order.Dir, order.Env = d.e.fleet(), append(order.Env, "SSH_AUTH_SOCK="+d.agentSocket(engineer))
	if _, err := outputOf(order, d.e.lab.Core.Start); err != nil {
		t.Fatal(err)
	}
	if said, err := d.refusedBy(ctx, "drain", "se-2", "--reason", "x", "--request", request); err != nil || !strings.Contains(said, "under the floor") {
		t.Errorf("the next one of the region: got %q, %v", said, err)
	}
	says("without an approval", "approval_missing")

	approve := d.e.command(ctx, d.e.bin("fleetctl"), "approve", "--engineer", colleague, "--server", name, "--reason", "disk full", "--key", d.e.path("keys", engineer)+".pub")
	approve.Dir = d.e.fleet()
	approve.Env = append(approve.Env, "SSH_AUTH_SOCK="+d.agentSocket(engineer))
	if _, err := outputOf(approve, d.e.lab.Core.Start); err != nil {
		t.Fatal(err)
	}
	says("drained and approved", name)
	live := shell(ctx, "sleep 600")
	if err := d.e.lab.Client.Start(live); err != nil {
		t.Fatal(err)
	}
	ended := make(chan time.Time, 1)
	go func() {
		_ = live.Wait() // 255, when the bastion cuts it
		ended <- time.Now()
	}()
	if names, err := rotateOnce(ctx, d); err != nil || len(names) > 0 {
		t.Errorf("rotate while bob is on it: got %q, %v", names, err)
	}
	held := server().HeldUntil
	end := held.Add(-policies.DrainedMargin)
	select {
	case at := <-ended:
		if late := at.Sub(end); late < -time.Second || late > 3*time.Second {
			t.Errorf("bob's shell ended %s after the statement", late)
		} else {
			t.Logf("bob's shell ended %s after the statement", late)
		}
	case <-ctx.Done():
		t.Fatal("bob's shell goes on after the statement's end")
	}
	says("after the statement", "server_not_drained")
	select {
	case <-time.After(time.Until(held)): // from when the signer lets it be rebuilt
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}

	if names, err := rotateOnce(ctx, d); err != nil || !slices.Equal(names, []string{name}) {
		t.Errorf("rotate: got %q, %v, want %s rebuilt alone", names, err, name)
	}
	if s := server(); s.State != inventory.Serving || s.Tainted || s.Epoch <= before.Epoch || s.BootID == before.BootID {
		t.Errorf("rebuilt: got %+v", s)
	}
	says("rebuilt", "server_not_drained")
}

// rotateOnce runs `fleetctl rotate` for what is due, and returns the servers that it moved. The rebuilt bastion is another test's: its life may
// be due as well.
func rotateOnce(ctx context.Context, d *demo) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, rotateLimit)
	defer cancel()
	out, err := d.fleetctl(ctx, "rotate", "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", out, err)
	}
	var result struct {
		Result  string
		Servers []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return nil, fmt.Errorf("%s: %w", out, err)
	}
	if result.Result != "done" && result.Result != "nothing due" {
		return nil, fmt.Errorf("rotate: %s", out)
	}
	var names []string
	for _, s := range result.Servers {
		if s.Name != gate.Name {
			names = append(names, s.Name)
		}
	}
	return names, nil
}
