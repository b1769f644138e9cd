package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/command"
	"mayfly/policies/request"
)

var requestShowVerb = command.Verb{
	Name:    "request show",
	Args:    "FILE --dir DIR [-o json]",
	Summary: "show what a request is for, who signed it, and whether it is enough",
	Help: `Judges the request by the signed policy in force, as the process that acts does, and changes nothing. Whether it was used before is known to
that process alone. Exit code 3 where it would be refused now.

Example:

  fleetctl request show lab/requests/drain-5f3c9a1b.json --dir lab`,
	Run: runRequestShow,
}

// requestReport is what `fleetctl request show` prints.
type requestReport struct {
	request.Request
	State  string           `json:"state"`  // "good", or why not
	Detail string           `json:"detail"` // of why not
	People []request.Person `json:"people"` // whose signatures count
	Asks   string           `json:"asks"`
}

func runRequestShow(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir, output := dirFlag(fs), outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := checkFormat(*output); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return command.Usagef("one FILE is needed")
	}
	now := time.Now()
	_, b, err := state(*dir).decides(ctx, now)
	if err != nil {
		return err
	}
	s, err := readRequest(fs.Arg(0))
	if err != nil {
		return err
	}
	r, err := request.Parse(s.Data)
	if err != nil {
		return mendRequest(fmt.Errorf("%s: %w", fs.Arg(0), &request.Refusal{Reason: request.Malformed, Err: err}))
	}
	report := requestReport{Request: r, State: "good", People: []request.Person{}, Asks: asks(b.Policy, r.Action)}
	if people, err := request.Signers(b.Policy, *s); err == nil {
		report.People = people
	}
	_, refused := request.Decide(b.Policy, b.Inventory, r.Order, s, now)
	if why := (*request.Refusal)(nil); errors.As(refused, &why) {
		report.State, report.Detail = why.Reason, why.Err.Error()
	}
	rows := [][]string{{"order", r.Order.String()}, {"fleet", r.Fleet}, {"reason", r.Reason}, {"made", r.Made.Format(time.RFC3339)}, {"expires", r.Expires.Format(time.RFC3339)},
		{"signed by", request.Names(report.People)}, {"asks", report.Asks}, {"state", report.State}}
	if err := show(c.Stdout, *output, report, []string{"REQUEST", r.Nonce}, rows); err != nil {
		return err
	}
	return mendRequest(refused)
}

// requestWord is the reason code of a request's refusal, or "".
func requestWord(err error) string {
	var refused *request.Refusal
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return ""
}
