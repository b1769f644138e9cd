package main

import (
	"bytes"
	"strings"
	"testing"

	"mayfly/fleetctl/deploy"
)

// TestDeployedCommands: each command in the units and in cron is a verb that is there, with flags that it has.
func TestDeployedCommands(t *testing.T) {
	verbs := map[string]bool{}
	for _, f := range deploy.Files("/var/lib/mayfly", "/usr/local/bin/fleetctl") {
		for line := range strings.Lines(string(f.Data)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			_, args, ok := strings.Cut(strings.TrimSpace(line), "/usr/local/bin/fleetctl ")
			if !ok {
				continue
			}
			words := strings.Fields(args)
			verbs[f.Name+" "+words[0]] = true
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), append(words, "--help"), nil, &stdout, &stderr); code != 0 || stderr.Len() > 0 || !strings.Contains(stdout.String(), "fleetctl "+words[0]) {
				t.Errorf("%s: %q: got exit code %d, %q", f.Name, words, code, stderr.String())
			}
		}
	}
	for _, want := range []string{"mayfly-signer.service signer", "mayfly-serve.service serve", "mayfly-checkin.service checkin", "mayfly-rotate.service rotate", "mayfly.cron rotate"} {
		if !verbs[want] {
			t.Errorf("%s: not there, of %v", want, verbs)
		}
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"rotate", "--no-such-flag", "--help"}, nil, &stderr, &stderr); code != 2 {
		t.Errorf("an unknown flag before --help: got exit code %d, so the test would prove nothing", code)
	}
}
