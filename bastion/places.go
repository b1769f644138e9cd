package bastion

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"mayfly/internal/hint"
)

// checkPlaces refuses what serving would fail on when it makes its socket and its log, and lists statements. It changes nothing.
func (c Config) checkPlaces() error {
	if c.Statements != "" {
		if err := checkStatements(c); err != nil {
			return err
		}
	}
	if c.Control != "" {
		if err := directory(filepath.Dir(c.Control)); err != nil {
			return controlMissing(fmt.Errorf("control socket %s: %w", c.Control, err))
		}
	}
	info, err := os.Lstat(c.Audit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := directory(filepath.Dir(c.Audit)); err != nil {
			return hint.New(fmt.Errorf("audit log %s: %w", c.Audit, err), "make the directory above; the log itself is made at the first start")
		}
		return nil
	case err != nil:
		return fmt.Errorf("audit log: %w", err)
	case !info.IsDir():
		return hint.New(fmt.Errorf("audit log %s: not a directory", c.Audit), "a log is a directory; keep a file of an older version as it is, and name another place")
	case info.Mode().Perm()&0o077 != 0:
		return hint.New(fmt.Errorf("audit log %s: mode %04o lets others at it", c.Audit, info.Mode().Perm()), "chmod 700 %s", c.Audit)
	}
	return nil
}

func checkStatements(c Config) error {
	d := statementDir{path: c.Statements, trust: c.Trust, chain: c.TrustChain}
	if _, err := d.stamps(0); err != nil {
		return hint.New(fmt.Errorf("reading statements: %w", err), "make the directory, or leave statements out of bastion.toml")
	}
	return nil
}

func controlMissing(err error) error {
	return hint.New(err, "make the directory, which belongs to the bastion's user (the unit's RuntimeDirectory= does), or name another in bastion.toml")
}

// directory says why a path is none.
func directory(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", path)
	}
	return err
}
