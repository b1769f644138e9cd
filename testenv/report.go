package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// check is one thing that was looked at, really.
type check struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
}

// report is what a demo found. Its JSON form is fixed (docs/testing.md#report).
type report struct {
	Checks        []check `json:"checks"`
	Servers       int     `json:"servers"`
	Rebuilt       int     `json:"rebuilt"`
	BelowFloor    int     `json:"below_floor"`
	FailedFetches int     `json:"failed_fetches"`

	mu   sync.Mutex
	talk io.Writer // lines as things happen
}

// check runs f and writes down how it went. An error is a failed check; the caller goes on unless nothing after it can make sense.
func (r *report) check(name string, f func() (detail string, err error)) bool {
	began := time.Now()
	detail, err := f()
	return r.add(name, detail, err, time.Since(began))
}

func (r *report) add(name, detail string, err error, took time.Duration) bool {
	c := check{Name: name, OK: err == nil, Detail: detail, Seconds: took.Seconds()}
	if err != nil {
		c.Detail = strings.TrimSpace(strings.Join([]string{detail, err.Error()}, " "))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Checks = append(r.Checks, c)
	if err != nil {
		fmt.Fprintf(r.talk, "demo:   FAILED %s: %s\n", c.Name, c.Detail)
	}
	return err == nil
}

func (r *report) passed() int {
	n := 0
	for _, c := range r.Checks {
		if c.OK {
			n++
		}
	}
	return n
}

// good reports whether everything that was promised held.
func (r *report) good() bool {
	return len(r.Checks) >= minChecks && r.passed() == len(r.Checks) && r.Rebuilt == r.Servers && r.BelowFloor == 0 && r.FailedFetches == 0
}

// minChecks is the least that a whole run makes.
const minChecks = 25

func (r *report) lastLine() string {
	floor := "never below floor"
	if r.BelowFloor > 0 {
		floor = fmt.Sprintf("%d times below floor", r.BelowFloor)
	}
	return fmt.Sprintf("demo: %d checks, %d passed, %d servers rebuilt, %s, %d failed fetches",
		len(r.Checks), r.passed(), r.Rebuilt, floor, r.FailedFetches)
}

func (r *report) printTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tRESULT\tSECONDS\tDETAIL")
	for _, c := range r.Checks {
		result := "ok"
		if !c.OK {
			result = "FAILED"
		}
		fmt.Fprintf(table, "%s\t%s\t%.1f\t%s\n", c.Name, result, c.Seconds, oneLine(c.Detail))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, r.lastLine())
	return err
}

func (r *report) printJSON(w io.Writer) error {
	if r.Checks == nil {
		r.Checks = []check{}
	}
	return json.NewEncoder(w).Encode(r)
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}
