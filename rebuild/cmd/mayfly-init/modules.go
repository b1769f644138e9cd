package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/release"
)

const maxModules = 128

// moduleOrder reads the list of modules strictly.
func moduleOrder(data []byte) ([]string, error) {
	var list []string
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		line := s.Text()
		switch {
		case !strings.HasPrefix(line, "/") || path.Clean(line) != line || !strings.HasSuffix(line, ".ko"):
			return nil, fmt.Errorf("%s: %q is no module's path", release.ModulesPath, line)
		case len(list) >= maxModules:
			return nil, fmt.Errorf("%s: more than %d modules", release.ModulesPath, maxModules)
		}
		list = append(list, line)
	}
	return list, s.Err()
}

// moduleParameters are those of modules that need some. A watchdog that was armed is not stopped by closing it.
var moduleParameters = map[string]string{
	"softdog":  "nowayout=1",
	"wdat_wdt": "nowayout=1",
	"iTCO_wdt": "nowayout=1",
	"i6300esb": "nowayout=1",
}

// loadModules loads what the list at path names.
func loadModules(list string) error {
	data, err := os.ReadFile(list)
	if err != nil {
		return fmt.Errorf("loading modules: %w", err)
	}
	modules, err := moduleOrder(data)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(name string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("loading module: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.FinitModule(int(f.Fd()), moduleParameters[strings.TrimSuffix(path.Base(name), ".ko")], 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("loading module %s: %w", name, err)
	}
	return nil
}
