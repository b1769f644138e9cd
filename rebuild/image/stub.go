package image

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"mayfly/rebuild/cpio"
	"mayfly/rebuild/release"
)

// stubFiles is the initramfs without what is one machine's own: mayfly-stub as /init and the modules that it loads.
func stubFiles(program []byte, packages tree, modules []string, epoch int64) ([]cpio.File, error) {
	if program == nil {
		return nil, errors.New("the image needs the program mayfly-stub")
	}
	t := tree{}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/root"} {
		t.mkdir(dir, 0o755)
	}
	t.put("/init", &node{mode: 0o755, data: program})
	for _, m := range modules {
		t.put(m, &node{mode: 0o644, data: packages[m].data})
	}
	t.write(release.StubModulesPath, 0o644, moduleList(modules))
	t.write(release.StubEpochPath, 0o644, fmt.Sprintf("%d\n", epoch))
	files := []cpio.File{}
	for _, p := range t.paths() { // a directory's path sorts before what it holds
		if p == "/" {
			continue
		}
		files = append(files, cpio.File{Path: strings.TrimPrefix(p, "/"), Mode: t[p].mode, Data: t[p].data})
	}
	// The console is opened before /init runs.
	console := cpio.File{Path: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1}
	return append(files, console), nil
}
