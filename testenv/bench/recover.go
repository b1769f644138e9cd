package bench

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// recovered makes a panic an error. What runs in goroutines of its own defers it: a panic there would end the program at once, and leave
// network namespaces and servers behind.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = errors.Join(*err, fmt.Errorf("internal error: %v\n%s", p, debug.Stack()))
	}
}
