package debian

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Need is a program or file that a command uses, and the package that has it.
type Need struct {
	Name    string // a program, looked for in PATH and the sbin directories; or an absolute path, which may be a pattern
	Package string
}

// sbin is where Debian keeps administrators' programs; a user's PATH lacks it.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Path returns PATH with the sbin directories that it lacks.
func Path(path string) string {
	parts := filepath.SplitList(path)
	for _, dir := range sbin {
		if !slices.Contains(parts, dir) {
			parts = append(parts, dir)
		}
	}
	return strings.Join(parts, string(filepath.ListSeparator))
}

// Missing returns the needs that this machine does not meet, in order.
func Missing(needs []Need) []Need {
	var missing []Need
	for _, n := range needs {
		if !n.met() {
			missing = append(missing, n)
		}
	}
	return missing
}

func (n Need) met() bool {
	if filepath.IsAbs(n.Name) {
		found, err := filepath.Glob(n.Name)
		return err == nil && len(found) > 0
	}
	if _, err := exec.LookPath(n.Name); err == nil {
		return true
	}
	for _, dir := range sbin {
		info, err := os.Stat(filepath.Join(dir, n.Name))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// Packages returns the packages of the needs, each once, sorted.
func Packages(needs []Need) []string {
	var packages []string
	for _, n := range needs {
		packages = append(packages, n.Package)
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// Describe names the needs for a person: "qemu-system-x86_64 (qemu-system-x86), wg (wireguard-tools)".
func Describe(needs []Need) string {
	var parts []string
	for _, n := range needs {
		parts = append(parts, fmt.Sprintf("%s (%s)", n.Name, n.Package))
	}
	return strings.Join(parts, ", ")
}

// Line is the one command that meets the needs.
func Line(needs []Need) string {
	return "sudo apt-get update && sudo apt-get install --yes --no-install-recommends " + strings.Join(Packages(needs), " ")
}
