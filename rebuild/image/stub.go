package image

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"

	"mayfly/rebuild/cpio"
	"mayfly/rebuild/release"
)

// layStub makes what the initramfs holds beside mayfly-stub: the modules that it loads, and their firmware.
func layStub(packages tree, modules []string) (t tree, lacking []string, err error) {
	t = tree{}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/root"} {
		t.mkdir(dir, 0o755)
	}
	for _, m := range modules {
		t.put(m, &node{mode: 0o644, data: packages[m].data})
	}
	t.write(release.StubModulesPath, 0o644, moduleList(modules))
	if lacking, err = copyFirmware(t, packages, modules); err != nil {
		return nil, nil, err
	}
	if t[strings.TrimSuffix(firmwareRoot, "/")] != nil {
		t.symlink("usr/lib", "/lib") // where the kernel looks
	}
	t.readOnly()
	return t, lacking, nil
}

// stubFiles is the initramfs without what is one machine's own: mayfly-stub as /init, and what layStub laid.
func stubFiles(program []byte, laid tree, epoch int64) ([]cpio.File, error) {
	if program == nil {
		return nil, errors.New("the image needs the program mayfly-stub")
	}
	t := maps.Clone(laid)
	t.put("/init", &node{mode: 0o755, data: program})
	t.write(release.StubEpochPath, 0o644, fmt.Sprintf("%d\n", epoch))
	files := []cpio.File{}
	for _, p := range t.paths() { // a directory's path sorts before what it holds
		if p == "/" {
			continue
		}
		files = append(files, cpio.File{Path: strings.TrimPrefix(p, "/"), Mode: t[p].mode, Data: t[p].payload()})
	}
	// The console is opened before /init runs.
	console := cpio.File{Path: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1}
	return append(files, console), nil
}
