package client

import (
	"fmt"
	"math/rand/v2"

	"mayfly/internal/hint"
	"mayfly/tunnel/checkin"
)

// candidates returns the servers that take new sessions, in random order, each equally likely to be first. region "" is any.
func candidates(l *checkin.List, region, except string, shuffle func(n int, swap func(i, j int))) ([]checkin.Server, error) {
	var found []checkin.Server
	inRegion := 0
	for _, s := range l.Servers {
		if region != "" && s.Region != region {
			continue
		}
		inRegion++
		if !s.Draining && s.Name != except {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		if region != "" && inRegion == 0 {
			return nil, hint.New(fmt.Errorf("choosing a server: none in region %q", region), "%s", regionsHint(l))
		}
		return nil, fmt.Errorf("choosing a server: of %d none takes new sessions", inRegion)
	}
	shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found, nil
}

func regionsHint(l *checkin.List) string {
	seen, text := map[string]bool{}, "regions with servers at present:"
	for _, s := range l.Servers {
		if !seen[s.Region] {
			seen[s.Region] = true
			text += " " + s.Region
		}
	}
	if len(seen) == 0 {
		return "the fleet lists no server at present: try again in a minute"
	}
	return text
}

// Choose is candidates in an order of chance.
func Choose(l *checkin.List, region string) ([]checkin.Server, error) {
	return candidates(l, region, "", rand.Shuffle)
}
