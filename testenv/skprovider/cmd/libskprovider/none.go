//go:build !cgo || !skprovider

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "libskprovider: error: this is a library, built without its C part\nhint: build it with skprovider.Build: cgo, the tag skprovider, -buildmode=c-shared")
	os.Exit(2)
}
