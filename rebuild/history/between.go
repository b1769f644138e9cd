package history

import (
	"context"
	"slices"
)

// between lists the commits that can be reached from one and not from the other, parents before children. The parents are those that the commits
// themselves name.
func (v *verifier) between(ctx context.Context, from, to string) ([]string, error) {
	parents := map[string][]string{} // of commits that were read
	reach := func(start string, known map[string]bool) (order []string, err error) {
		type step struct {
			id   string
			next int // parent to go to
		}
		seen := map[string]bool{start: true}
		for path := []step{{id: start}}; len(path) > 0; {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			at := &path[len(path)-1]
			above, ok := parents[at.id]
			if !ok {
				c, err := v.read(at.id)
				if err != nil {
					return nil, err
				}
				above = c.parents
				if parents[at.id] = above; len(parents) > maxCommits {
					return nil, refuse(TooLong, to, "it has more than %d commits before it", maxCommits)
				}
			}
			if at.next < len(above) {
				id := above[at.next]
				at.next++
				if !seen[id] && !known[id] {
					seen[id] = true
					path = append(path, step{id: id})
				}
				continue
			}
			order = append(order, at.id)
			path = path[:len(path)-1]
		}
		return order, nil
	}
	before, err := reach(from, nil)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, id := range before {
		known[id] = true
	}
	if known[to] && to != from {
		return nil, refuse(NoAncestor, to, "commit %s, from which on the history is checked, comes after it", short(from))
	}
	if to == from {
		return nil, nil
	}
	after, err := reach(to, known)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(after, func(id string) bool { return slices.Contains(parents[id], from) }) {
		return nil, refuse(NoAncestor, to, "commit %s, from which on the history is checked, is no ancestor of it", short(from))
	}
	return after, nil
}
