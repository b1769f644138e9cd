package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

// TestImageUpdate runs the verbs that make images, on Debian's own packages. The program is built without the race detector, under which
// unpacking a kernel takes a minute.
//
//	relock FILE NAME VERSION [OUT]  say in a lock file that a package has another version
//	restate FILE                    let a release's statement name another root
//	reown FILE                      let a bill of materials say that a file is from another package
//	mirror VAR DIR                  serve a package store, and put its address into the environment
func TestImageUpdate(t *testing.T) {
	if testing.Short() {
		t.Skip("asks apt and builds images; left out with -short")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("SKIPPED: no apt-get on this host")
	}
	bin := t.TempDir()
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "fleetctl"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/update",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			lab, err := filepath.Abs("testdata/lab")
			if err != nil {
				return err
			}
			for name, value := range map[string]string{"LAB": lab, "SOURCE": source, "STORE": filepath.Join(cache, "mayfly", "packages"),
				"BOOT": "127.0.0.1:1", "JOIN": "127.0.0.1:2", "CHECKIN": "127.0.0.1:3"} {
				e.Setenv(name, value)
			}
			for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
				value, err := exec.Command("go", "env", name).Output()
				if err != nil {
					return err
				}
				e.Setenv(name, strings.TrimSpace(string(value)))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": scriptCode, "lab": scriptLab, "key": scriptKey, "flip": scriptFlip, "relock": scriptRelock, "mirror": scriptMirror, "restate": scriptRestate, "reown": scriptReown,
		},
	})
}

func scriptRelock(ts *testscript.TestScript, neg bool, args []string) {
	l, err := image.ParseLock([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	for i := range l.Packages {
		if l.Packages[i].Name == args[1] {
			l.Packages[i].Version = args[2]
		}
	}
	data, err := l.Marshal()
	ts.Check(err)
	out := args[0]
	if len(args) > 3 {
		out = args[3]
	}
	ts.Check(os.WriteFile(ts.MkAbs(out), data, 0o644))
}

func scriptRestate(ts *testscript.TestScript, neg bool, args []string) {
	s, err := release.Parse([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	s.Root.SHA256 = strings.Repeat("ab", 32)
	data, err := s.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

func scriptReown(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	const related = `"relatedSpdxElement": "`
	owners := regexp.MustCompile(related+`SPDXRef-Deb-[^"]+`).FindAllString(text, -1)
	i := slices.IndexFunc(owners, func(o string) bool { return o != owners[0] })
	if i < 0 {
		ts.Fatalf("%s: files are of one package", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, owners[0], owners[i], 1)), 0o644))
}

func scriptMirror(ts *testscript.TestScript, neg bool, args []string) {
	s := httptest.NewServer(http.FileServer(http.Dir(args[1])))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}
