package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/testenv/debian"
)

// TestContainers brings the fleet up as containers, logs in, rebuilds all of them, and takes them away. Podman needs control groups that the
// machine has mounted; docker's daemon gets its own where there are none.
func TestContainers(t *testing.T) {
	engines := []string{inventory.EngineDocker}
	if haveCgroups() {
		engines = append(engines, inventory.EnginePodman)
	}
	for _, engine := range engines {
		if missing := debian.Missing(engineNeeds[engine]); len(missing) > 0 {
			t.Skipf("needs %s", debian.Describe(missing))
		}
	}
	c := newClone(t)
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			if code, out := c.run(t, "up", "--hosts", "container", "--engine", engine); code != command.OK || !strings.Contains(out, "The fleet is up.") {
				t.Fatalf("up: got exit %d, %q", code, out)
			}
			c.env.engine = engine
			d := c.open(t)
			if code, _ := c.run(t, "up"); code != command.Failed {
				t.Errorf("up with machines beside containers: got exit %d, want %d", code, command.Failed)
			}
			want := "unverified unverified unverified"
			if got := evidenceOf(t, d); got != want {
				t.Errorf("got evidence %q, want %q", got, want)
			}
			write := "hostname; echo left > /tmp/left; cat /tmp/left; touch /usr/bin/x"
			got, err := outputOf(c.env.command(t.Context(), "ssh", "-F", c.env.sshConfig(), "-o", "BatchMode=yes", "se-1", write), nil)
			if !strings.HasPrefix(got, "se-1\nleft\n") || err == nil || !strings.Contains(err.Error(), "Read-only file system") {
				t.Errorf("got %q, %v, want a read-only root and a /tmp that can be written", got, err)
			}
			before, err := d.servers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rotate := append(strings.Fields(c.env.within(c.env.lab.Core)), c.env.bin("fleetctl"), "rotate", "--all", "--dir", c.env.fleet())
			if _, err := c.env.output(t.Context(), rotate[0], rotate[1:]...); err != nil {
				t.Fatal(err)
			}
			after, err := d.servers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range machines {
				a, b := before[m.Name], after[m.Name]
				if b.State != inventory.Serving || b.Epoch <= a.Epoch || b.HostKey == a.HostKey || b.BootID == a.BootID {
					t.Errorf("%s was not destroyed and made anew: before %+v, after %+v", m.Name, a, b)
				}
			}
			got, err = outputOf(c.env.command(t.Context(), "ssh", "-F", c.env.sshConfig(), "-o", "BatchMode=yes", "se-1", "ls /tmp"), nil)
			if err != nil || strings.TrimSpace(got) != "" {
				t.Errorf("/tmp of the new life: got %q, %v, want nothing", got, err)
			}
			if code, _ := c.run(t, "down"); code != command.OK {
				t.Errorf("down: got exit %d", code)
			}
			c.nothingLeft(t)
		})
	}
}

// evidenceOf is what the servers' lives rest on, by `fleetctl status`.
func evidenceOf(t *testing.T, d *demo) string {
	t.Helper()
	out, err := d.fleetctl(t.Context(), "status", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Servers []struct {
			Name     string `json:"name"`
			Evidence string `json:"evidence"`
		} `json:"servers"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var words []string
	for _, s := range status.Servers {
		words = append(words, s.Evidence)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestEngineOf(t *testing.T) {
	for _, tt := range []struct{ hosts, engine, want, err string }{
		{"machine", "", "", ""}, {"container", "", "docker", ""}, {"container", "podman", "podman", ""},
		{"machine", "podman", "", "--engine goes with"}, {"container", "lxc", "", "--engine takes"}, {"jail", "", "", "--hosts takes"},
	} {
		got, err := engineOf(tt.hosts, tt.engine)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(fmt.Sprint(err), tt.err) {
			t.Errorf("%s %s: got %q, %v", tt.hosts, tt.engine, got, err)
		}
	}
}
