package main

import (
	"fmt"
	"slices"
	"sync"

	"mayfly/rebuild/join"
)

// warnings go with every health message: what the controller has to know, each once.
type warnings struct {
	mu   sync.Mutex // guards list
	list []string
}

// add keeps the first join.MaxWarnings.
func (w *warnings) add(format string, args ...any) {
	text := clip(fmt.Sprintf(format, args...), join.MaxWarning)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.list, text) && len(w.list) < join.MaxWarnings {
		w.list = append(w.list, text)
	}
}

func (w *warnings) all() []string {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}
