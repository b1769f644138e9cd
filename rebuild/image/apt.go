package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"mayfly/internal/hint"
)

// architecture of the machines that an image is for, in Debian's words.
const architecture = "amd64"

// Bounds of what is read from apt.
const (
	maxAptOutput = 16 << 20
	maxAptError  = 4 << 10
	maxRounds    = 20 // depth of dependencies
)

// apt is the host's package client, used for what it knows of the archive and for downloads. It sees the host's sources, but not what
// is installed on the host, nor the host's pins: Debian's own packages come first, and nothing is ever installed.
type apt struct {
	dir string // private state
	own bool   // use lists of our own, not the host's
}

// record is what the archive says of a package.
type record struct {
	Package
	depends []dependency
}

// dependency is a list of alternatives by package name.
type dependency []string

const aptPreferences = `Package: *
Pin: release o=Debian
Pin-Priority: 990
`

func newApt(dir string) (*apt, error) {
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	return &apt{dir: dir}, os.WriteFile(filepath.Join(dir, "preferences"), []byte(aptPreferences), 0o644)
}

// update fetches lists of our own. apt-get reports failure when any source fails, also one that we do not need: what
// matters is whether the packages are found afterwards, so its error is returned for the case that they are not.
func (a *apt) update(ctx context.Context) error {
	a.own = true
	_, err := a.run(ctx, "", "apt-get", "update")
	return err
}

func (a *apt) run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	options := []string{
		"-q",
		"-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Etc::preferences=" + filepath.Join(a.dir, "preferences"),
		"-o", "Dir::Etc::preferencesparts=/dev/null",
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "APT::Architecture=" + architecture,
		"-o", "APT::Architectures=" + architecture,
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::Retries=2",
	}
	if a.own {
		options = append(options, "-o", "Dir::State::lists="+filepath.Join(a.dir, "lists"))
	}
	if os.Geteuid() == 0 {
		// The user _apt cannot write where we download to; what arrives is checked by hash.
		options = append(options, "-o", "APT::Sandbox::User=root")
	}
	cmd := exec.CommandContext(ctx, name, append(options, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	stdout, stderr := &bounded{left: maxAptOutput}, &bounded{left: maxAptError}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, hint.New(err, "image lock needs Debian's apt; an image can be built elsewhere from the lock file and the store")
		}
		return stdout.Bytes(), fmt.Errorf("%s %s: %w: %s", name, args[0], err, lastLine(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// records asks for the newest version of each package. Names without a record are left out: apt-cache fails for those, and still
// prints the others.
func (a *apt) records(ctx context.Context, names []string) (map[string]record, error) {
	out, err := a.run(ctx, "", "apt-cache", append([]string{"show", "--no-all-versions"}, names...)...)
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return nil, err
	}
	return parseRecords(bytes.NewReader(out))
}

// parseRecords reads the stanzas that apt-cache prints.
func parseRecords(r io.Reader) (map[string]record, error) {
	out := map[string]record{}
	var now record
	end := func() error {
		if now.Name == "" {
			return nil
		}
		if !isHash(now.SHA256) || now.Size <= 0 || now.Version == "" || now.Arch == "" || now.File == "" {
			return fmt.Errorf("apt's record of %s lacks a version, size, file or SHA-256", now.Name)
		}
		if now.Source == "" {
			now.Source = now.Name
		}
		if _, twice := out[now.Name]; !twice {
			out[now.Name] = now
		}
		now = record{}
		return nil
	}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if in.Text() == "" {
			if err := end(); err != nil {
				return nil, err
			}
			continue
		}
		key, value, ok := strings.Cut(in.Text(), ": ")
		if !ok {
			continue
		}
		switch key {
		case "Package":
			now.Name = value
		case "Version":
			now.Version = value
		case "Architecture":
			now.Arch = value
		case "Source":
			now.Source, _, _ = strings.Cut(value, " ")
		case "Filename":
			now.File = value
		case "SHA256":
			now.SHA256 = value
		case "Size":
			size, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("apt's record of %s: size: %w", now.Name, err)
			}
			now.Size = size
		case "Depends", "Pre-Depends":
			now.depends = append(now.depends, parseDepends(value)...)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("reading apt's records: %w", err)
	}
	return out, end()
}

// parseDepends reads a Depends field (Debian policy, section 7.1). Versions are not compared: one archive's newest packages fit
// each other, and what is missing in the root is found when libraries are checked.
func parseDepends(value string) []dependency {
	var out []dependency
	for group := range strings.SplitSeq(value, ",") {
		var d dependency
		for alternative := range strings.SplitSeq(group, "|") {
			fields := strings.Fields(alternative)
			if len(fields) == 0 {
				continue
			}
			name, _, _ := strings.Cut(fields[0], ":")
			d = append(d, name)
		}
		if len(d) > 0 {
			out = append(out, d)
		}
	}
	return out
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), b.left)
	b.left -= keep
	b.Buffer.Write(p[:keep])
	return len(p), nil
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
