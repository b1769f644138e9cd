package mutate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// Verdicts on a mutation.
const (
	Caught   = "caught"
	Survived = "SURVIVED"
	Broken   = "error" // it did not compile, no test ran, or the test fails without it as well
)

// Result is what became of one mutation.
type Result struct {
	Name    string  `json:"name"`
	Verdict string  `json:"verdict"`
	By      string  `json:"by,omitempty"` // the test that failed first
	Detail  string  `json:"detail,omitempty"`
	File    string  `json:"file"`
	Why     string  `json:"why"`
	Seconds float64 `json:"seconds"`
}

// Report is of a whole run.
type Report struct {
	Results []Result `json:"results"`
	Caught  int      `json:"caught"`
	Of      int      `json:"of"`
	Seconds float64  `json:"seconds"`
}

// Options of Run.
type Options struct {
	Root    string     // the module's
	Table   []Mutation // to run
	Passing bool       // the tests are known to pass without a change: do not see to it first
	Workers int        // at once; as many as there are processors when zero
	Log     io.Writer  // a line for each, as it ends
	Environ []string   // of go test; this process's when nil
}

// Implementation constants.
const (
	testLimit  = "4m"             // go test -timeout, of one mutation
	endWait    = 10 * time.Second // for a go test that was told to end
	maxDetail  = 1000
	maxWorkers = 8
)

// Run takes out one guard after another. The error is of the run itself; what survived is in the report.
func Run(ctx context.Context, o Options) (Report, error) {
	began := time.Now()
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Workers <= 0 {
		o.Workers = min(runtime.NumCPU(), maxWorkers)
	}
	dir, err := os.MkdirTemp("", "mayfly-mutate-")
	if err != nil {
		return Report{}, fmt.Errorf("making the mutations' directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if !o.Passing {
		if err := o.passing(ctx); err != nil {
			return Report{}, err
		}
	}
	report := Report{Results: make([]Result, len(o.Table)), Of: len(o.Table)}
	var work sync.WaitGroup
	var talk sync.Mutex
	next := make(chan int)
	for range o.Workers {
		work.Go(func() {
			for i := range next {
				r := o.one(ctx, dir, o.Table[i])
				report.Results[i] = r
				talk.Lock()
				fmt.Fprintf(o.Log, "testenv: mutate: %s: %s %s (%.1f s)\n", r.Name, r.Verdict, r.By, r.Seconds)
				talk.Unlock()
			}
		})
	}
	for i := range o.Table {
		next <- i
	}
	close(next)
	work.Wait()
	for _, r := range report.Results {
		if r.Verdict == Caught {
			report.Caught++
		}
	}
	report.Seconds = time.Since(began).Seconds()
	return report, ctx.Err()
}

// passing sees that every test of the table passes as the source is.
func (o Options) passing(ctx context.Context) error {
	tests := map[string][]string{}
	for _, m := range o.Table {
		if !slices.Contains(tests[m.Package], m.Test) {
			tests[m.Package] = append(tests[m.Package], m.Test)
		}
	}
	for pkg, all := range tests {
		for _, test := range all { // one by one: a "/" in an expression does not go with "|"
			said, err := o.test(ctx, "", pkg, test)
			if err != nil || said.failed != "" || said.passed == 0 {
				return fmt.Errorf("%s -run %s does not pass as the source is, so it proves nothing: %w %s", pkg, test, err, said.failed)
			}
		}
	}
	return nil
}

// one takes out one guard.
func (o Options) one(ctx context.Context, dir string, m Mutation) (r Result) {
	began := time.Now()
	r = Result{Name: m.Name, File: m.File, Why: m.Why, Verdict: Broken}
	defer func() { r.Seconds = time.Since(began).Seconds() }()
	changed, err := m.Apply(o.Root)
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	file, overlay := filepath.Join(dir, m.Name+".go"), filepath.Join(dir, m.Name+".json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(o.Root, m.File): file}})
	if err == nil {
		err = errors.Join(os.WriteFile(file, changed, 0o600), os.WriteFile(overlay, replace, 0o600))
	}
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	said, err := o.test(ctx, overlay, m.Package, m.Test)
	switch {
	case ctx.Err() != nil:
		r.Detail = ctx.Err().Error()
	case said.failed != "":
		r.Verdict, r.By = Caught, said.failed
	case err == nil && said.passed > 0:
		r.Verdict = Survived
	case err == nil:
		r.Detail = "no test ran"
	default:
		r.Detail = "it does not compile, or the tests did not end by themselves: " + said.words
	}
	return r
}

// answer is what go test said.
type answer struct {
	failed string // the first test that failed
	passed int
	words  string // what was said outside of tests: a compiler's errors
}

func (o Options) test(ctx context.Context, overlay, pkg, test string) (answer, error) {
	args := []string{"test", "-json", "-count=1", "-vet=off", "-timeout=" + testLimit, "-run=" + test}
	if overlay != "" {
		args = append(args, "-overlay="+overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir, cmd.Env = o.Root, o.Environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go test hands no signal on to the test
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = endWait
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return read(&out), err
}

// read reads `go test -json` (go doc test2json).
func read(in io.Reader) (a answer) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			e.Action, e.Output = "build-output", lines.Text()+"\n"
		}
		switch {
		case e.Action == "build-output" && len(a.words) < maxDetail:
			a.words += e.Output
		case e.Action == "fail" && e.Test != "" && a.failed == "":
			a.failed = e.Test
		case e.Action == "pass" && e.Test != "":
			a.passed++
		}
	}
	return a
}

// Bad says that not every guard was caught, or nil.
func (r Report) Bad() error {
	var bad []string
	for _, x := range r.Results {
		switch x.Verdict {
		case Survived:
			bad = append(bad, x.Name+" survived")
		case Broken:
			bad = append(bad, x.Name+": "+x.Detail)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d mutations were not caught: %s", len(bad), r.Of, strings.Join(bad, "; "))
}

// WriteTable prints the report for people.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MUTATION\tVERDICT\tBY\tSECONDS\tWITHOUT IT")
	for _, x := range r.Results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f\t%s\n", x.Name, x.Verdict, x.By, x.Seconds, x.Why)
	}
	fmt.Fprintf(t, "%d of %d caught in %.0f s\n", r.Caught, r.Of, r.Seconds)
	return t.Flush()
}
