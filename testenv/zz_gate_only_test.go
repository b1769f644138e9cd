package main

import (
	"mayfly/internal/command"
	"testing"
)

func TestGateOnly(t *testing.T) {
	c := newClone(t)
	t.Setenv(envTestBastion, "1")
	if code, out := c.run(t, "up"); code != command.OK {
		t.Fatalf("up: %d %s", code, out)
	}
	d := c.open(t)
	rebuiltBastion(t, d)
}
