package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where container engines look for control groups.
const cgroupRoot = "/sys/fs/cgroup"

// haveCgroups says whether control groups are mounted, as every booted Debian has them and a bare root has not.
func haveCgroups() bool {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return false
	}
	return st.Type == unix.CGROUP2_SUPER_MAGIC || st.Type == unix.TMPFS_MAGIC
}

// mountCgroups mounts control groups for this process and what it becomes, and for nobody else. It has to hold on to its thread.
func mountCgroups() error {
	if haveCgroups() {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	controllers, err := legacyControllers()
	if err != nil {
		return err
	}
	if len(controllers) == 0 { // all of them are the unified hierarchy's
		if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mounting cgroup2: %w", err)
		}
		return nil
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mounting control groups: %w", err)
	}
	var errs []error
	for _, c := range controllers {
		dir := filepath.Join(cgroupRoot, c)
		if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("cgroup", dir, "cgroup", 0, c)); err != nil {
			errs = append(errs, fmt.Errorf("mounting control group %s: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

// legacyControllers are those that hang in a hierarchy of their own.
func legacyControllers() (list []string, err error) {
	f, err := os.Open("/proc/cgroups")
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's control groups: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) == 4 && fields[1] != "0" && fields[3] == "1" {
			list = append(list, fields[0])
		}
	}
	return list, nil
}
