package web

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	_ "image/png"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// screenshots is where the manual's pictures go; else they are in the test's artifacts, as all others (docs/testing.md).
var screenshots = flag.String("screenshots", "", "`directory` for the page's screenshots")

// browserLimit is for all that one browser is asked; on a busy machine it starts in half a minute.
const browserLimit = 8 * time.Minute

// live is a fleet that can be changed while somebody looks at it.
type live struct{ in atomic.Pointer[Input] }

func (l *live) gather(context.Context) (View, error) { return Build(*l.in.Load(), noon), nil }

// browser starts Chromium with an empty profile, and the page to look at.
func browser(t *testing.T, in Input) (ctx context.Context, base string, l *live) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs Debian's chromium, which `go run ./testenv test` installs")
	}
	l = &live{}
	l.in.Store(&in)
	server := httptest.NewServer(Handler(Config{Gather: l.gather, BootURL: "http://192.0.2.1:8080/"}))
	t.Cleanup(server.CloseClientConnections)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.WSURLReadTimeout(browserLimit),
		chromedp.Env("HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir, "TMPDIR="+dir)}
	for _, f := range []string{"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars"} {
		options = append(options, chromedp.Flag(f, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), browserLimit)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("ending chromium: %v", err)
		}
		cancel()
	})
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	return ctx, server.URL, l
}

// axe is axe-core's source, by the npm client, which checks it against the hash in the lock file.
func axe(t *testing.T) string {
	t.Helper()
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("needs npm, which `go run ./testenv test` installs")
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", "axe", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// look is how the page is looked at.
type look struct {
	width, height int64
	dark          bool
}

func (l look) name() string {
	if l.dark {
		return fmt.Sprintf("%d-dark", l.width)
	}
	return fmt.Sprintf("%d-light", l.width)
}

func (l look) actions(address string) chromedp.Tasks {
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	return chromedp.Tasks{
		chromedp.EmulateViewport(l.width, l.height),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		chromedp.Navigate(address),
		chromedp.WaitReady("#main"),
	}
}

var looks = []look{{1280, 900, false}, {1280, 900, true}, {360, 740, false}, {360, 740, true}}

// layout finds what is wrong with how a page is laid out: what reaches over the side, text that is cut, tiles over each other.
const layout = `(() => {
  const wrong = [];
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > wide) {
    for (const e of document.querySelectorAll("body *")) {
      const r = e.getBoundingClientRect();
      if (r.right > wide + 1 && r.width > 0 && !e.closest(".scroll, pre, .skip, svg")) wrong.push("over the side: " + e.tagName + "." + e.className + " " + r.right);
    }
    wrong.push("the page is " + document.documentElement.scrollWidth + " wide, the window " + wide);
  }
  const boxes = (s) => [...document.querySelectorAll(s)].map((e) => [e, e.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
  for (const s of [".tile", ".totals > div", ".card", ".part", "header > *", ".filter > *", "main .mood, main > dl, main > section, main > div", ".tile > *"]) {
    const all = boxes(s);
    for (let i = 0; i < all.length; i++) for (let j = i + 1; j < all.length; j++) {
      const [a, b] = [all[i][1], all[j][1]];
      if (all[i][0].contains(all[j][0])) continue;
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1) wrong.push("one over the other: " + s + " " + i + " and " + j);
    }
  }
  for (const [e, r] of boxes("h1, h2, h3, dd, dt, .figures, .state, td, button")) if (e.scrollWidth > e.clientWidth + 1 && !e.closest(".scroll") && getComputedStyle(e).display !== "inline") wrong.push("cut: " + e.tagName + " " + e.textContent.slice(0, 40));
  return wrong.slice(0, 10);
})()`

// violations runs axe and says what it found.
const violations = `axe.run(document, {resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then((r) => JSON.stringify(r.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 120) + " " + n.failureSummary.slice(0, 200)).join(" | "))))`

func awaits(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// Every page is laid out well, passes axe, and is not blank: wide and narrow, light and dark.
func TestChromiumPages(t *testing.T) {
	source := axe(t)
	in := fleet(3000)
	ctx, base, _ := browser(t, in)
	dir := t.ArtifactDir()
	for _, p := range pages {
		name := strings.TrimPrefix(p.Path, "/")
		if name == "" {
			name = "overview"
		}
		for _, l := range looks {
			var wrong []string
			var found, said string
			var shot []byte
			tasks := append(l.actions(base+p.Path), chromedp.Evaluate(layout, &wrong), chromedp.Text("#main", &said),
				chromedp.Evaluate(source+";true", nil), chromedp.Evaluate(violations, &found, awaits), chromedp.FullScreenshot(&shot, 100))
			if err := chromedp.Run(ctx, tasks); err != nil {
				t.Fatalf("%s %s: %v", p.Path, l.name(), err)
			}
			for _, w := range wrong {
				t.Errorf("%s %s: %s", p.Path, l.name(), w)
			}
			var list []string
			if err := json.Unmarshal([]byte(found), &list); err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				t.Errorf("%s %s: axe: %s", p.Path, l.name(), v)
			}
			if p.Path == "/" {
				for _, place := range places {
					if !strings.Contains(said, place) {
						t.Errorf("%s: region %s is not on the page", l.name(), place)
					}
				}
			}
			if err := os.WriteFile(filepath.Join(dir, name+"-"+l.name()+".png"), shot, 0o644); err != nil {
				t.Fatal(err)
			}
			if colours := painted(t, shot); colours < 12 {
				t.Errorf("%s %s: the screenshot has %d colours: it is blank", p.Path, l.name(), colours)
			}
		}
	}
}

// The manual's pictures can be made, and show a fleet.
func TestChromiumManual(t *testing.T) {
	dir := *screenshots
	if dir == "" {
		dir = t.ArtifactDir()
	}
	ctx, base, _ := browser(t, fleet(480))
	for name, at := range map[string]struct {
		path string
		look look
	}{
		"page-overview.png":     {"/", look{1280, 1130, false}},
		"page-servers-dark.png": {"/servers?region=fra", look{1280, 620, true}},
		"page-plan.png":         {"/plan", look{1280, 820, false}},
	} {
		var shot []byte
		if err := chromedp.Run(ctx, at.look.actions(base+at.path), chromedp.WaitVisible("#live:not(.old)"), chromedp.CaptureScreenshot(&shot)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), shot, 0o644); err != nil {
			t.Fatal(err)
		}
		if colours := painted(t, shot); colours < 12 || len(shot) > 400<<10 {
			t.Errorf("%s: %d colours in %d bytes", name, colours, len(shot))
		}
	}
}

// painted counts the colours of a screenshot.
func painted(t *testing.T, shot []byte) int {
	t.Helper()
	img, _, err := image.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[3]uint32]bool{}
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y += 3 {
		for x := b.Min.X; x < b.Max.X; x += 3 {
			r, g, bl, _ := img.At(x, y).RGBA()
			seen[[3]uint32{r, g, bl}] = true
		}
	}
	return len(seen)
}

// Without JavaScript the page is whole.
func TestChromiumWithoutScript(t *testing.T) {
	ctx, base, _ := browser(t, fleet(300))
	for path, want := range map[string]string{"/": "Regions", "/servers": "of 300 servers", "/plan": "Begins now", "/quarantine": "First cause"} {
		var said string
		if err := chromedp.Run(ctx, emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(base+path), chromedp.Text("#main", &said)); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said, want) {
			t.Errorf("%s: got %.300q, want %q in it", path, said, want)
		}
	}
}

// A change is seen without a reload; what had the focus keeps it, the page stays where it was scrolled to, what was opened stays open, and a part that
// did not change is not touched.
func TestChromiumLive(t *testing.T) {
	ctx, base, l := browser(t, fleet(300))
	var first, after string
	if err := chromedp.Run(ctx, chromedp.EmulateViewport(800, 500), chromedp.Navigate(base+"/"),
		chromedp.WaitVisible("#live:not(.old)"),
		chromedp.Evaluate(`window.here = 1; document.getElementById("part-ages").marked = 1; document.getElementById("d-ages").open = true;
			document.querySelector('#part-regions a[href="/servers?region=fra"]').focus(); window.scrollTo(0, 300); true`, nil),
		chromedp.Text("#part-mood", &first)); err != nil {
		t.Fatal(err)
	}
	in := fleet(300)
	in.Snapshot.Regions[2].Floor = 1 << 30
	in.Pause.On, in.Pause.By, in.Pause.Why = true, "anna", "a look at fra"
	l.in.Store(&in)
	var kept struct {
		Here, Marked int
		Focus        string
		Y            float64
		Open         bool
	}
	if err := chromedp.Run(ctx,
		chromedp.Poll(`document.querySelector("#part-alerts") && document.querySelector("#part-alerts").textContent.includes("paused")`, nil, chromedp.WithPollingTimeout(browserLimit)),
		chromedp.Text("#part-mood", &after),
		chromedp.Evaluate(`({Here: window.here || 0, Marked: document.getElementById("part-ages").marked || 0, Focus: document.activeElement.getAttribute("href") || "", Y: window.scrollY, Open: document.getElementById("d-ages").open})`, &kept)); err != nil {
		t.Fatal(err)
	}
	if first == after || kept.Here != 1 {
		t.Errorf("got %q and then %q, the same document: %v", first, after, kept.Here == 1)
	}
	if kept.Focus != "/servers?region=fra" || kept.Y != 300 || !kept.Open || kept.Marked != 1 {
		t.Errorf("got %+v, want focus, scroll and the open table kept, and the chart not touched", kept)
	}
}

// What a server says cannot run, and nothing that the page does is against its own policy.
func TestChromiumHostile(t *testing.T) {
	ctx, base, _ := browser(t, fleet(3000))
	for _, p := range pages {
		var title string
		var broken []string
		if err := chromedp.Run(ctx,
			chromedp.ActionFunc(func(ctx context.Context) error {
				_, err := page.AddScriptToEvaluateOnNewDocument(`window.broken = []; document.addEventListener("securitypolicyviolation", (e) => window.broken.push(e.violatedDirective + " " + e.blockedURI));`).Do(ctx)
				return err
			}),
			chromedp.Navigate(base+p.Path), chromedp.WaitVisible("#live:not(.old)"), chromedp.Title(&title), chromedp.Evaluate("window.broken", &broken)); err != nil {
			t.Fatal(err)
		}
		if want := p.Name + " · harbour · mayfly"; title != want || len(broken) > 0 {
			t.Errorf("%s: got title %q and violations %q, want %q and none", p.Path, title, broken, want)
		}
	}
}
