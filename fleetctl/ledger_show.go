package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/inclusion"
	"mayfly/policies/ledger"
)

var ledgerShowVerb = command.Verb{
	Name:    "ledger show",
	Args:    "--ledger DIR|URL [--from N] [--server NAME] [-o table|json]",
	Summary: "show the entries of a ledger",
	Help: `Shows what the ledger says, from entry N on, and proves nothing: ` + "`fleetctl ledger verify`" + ` does. -o json gives one entry a line, as it is in the ledger.

Example:

  fleetctl ledger show --ledger lab/public/ledger --server se-1`,
	Run: runLedgerShow,
}

func runLedgerShow(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	where := flags.String("ledger", "", "`directory` or URL of the ledger")
	from := flags.Uint64("from", 0, "`number` of the first entry")
	server := flags.String("server", "", "lives of this server only: its `name`")
	form := outputFlag(flags)
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := errors.Join(noArguments(flags), checkFormat(*form)); err != nil {
		return err
	}
	s, err := openLedgerSource(ctx, *where, "")
	if err != nil {
		return err
	}
	data, err := s.read(audit.CheckpointFile, audit.MaxCheckpoint)
	if err != nil {
		return fmt.Errorf("reading the ledger's checkpoint: %w", err)
	}
	size, err := claimedSize(data)
	if err != nil {
		return err
	}
	var rows [][]string
	encoder := json.NewEncoder(c.Stdout)
	err = audit.Walk(s.read, []uint64{size}, func(index uint64, text []byte) error {
		e, err := ledger.Parse(text)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if index < *from || *server != "" && serverOf(e) != *server {
			return nil
		}
		if *form == "json" {
			return encoder.Encode(struct {
				Index uint64          `json:"index"`
				Entry json.RawMessage `json:"entry"`
			}{index, text})
		}
		rows = append(rows, append([]string{strconv.FormatUint(index, 10), e.Time.Format(time.RFC3339), e.Event}, told(e)...))
		return nil
	}, func(uint64, tlog.Hash) error { return nil })
	if err != nil || *form == "json" {
		return err
	}
	return show(c.Stdout, *form, nil, []string{"ENTRY", "TIME", "EVENT", "SERVER", "LIFE", "WHAT"}, rows)
}

// claimedSize is the size that a checkpoint names, whoever signed it.
func claimedSize(data []byte) (uint64, error) {
	text, _, signed := strings.Cut(string(data), "\n\n")
	if !signed {
		return 0, errors.New("the ledger's checkpoint is malformed: not signed")
	}
	head, err := inclusion.ParseCheckpoint(text + "\n")
	return head.Size, err
}

func serverOf(e ledger.Entry) string {
	switch {
	case e.Begin != nil:
		return e.Begin.Server
	case e.End != nil:
		return e.End.Server
	}
	return ""
}

// told is an entry in words: whose, which life, what.
func told(e ledger.Entry) []string {
	switch {
	case e.Begin != nil:
		return []string{e.Begin.Server, strconv.FormatUint(e.Begin.Epoch, 10),
			fmt.Sprintf("release %d, %s, until %s", e.Begin.Release, e.Begin.Evidence, e.Begin.Deadline.Format(time.RFC3339))}
	case e.End != nil:
		return []string{e.End.Server, strconv.FormatUint(e.End.Epoch, 10), fmt.Sprintf("%s, %s", e.End.Reason, e.End.Ended.Format(time.RFC3339))}
	case e.Trust != nil:
		return []string{"", "", fmt.Sprintf("trust policy %d", e.Trust.Version)}
	case e.Release != nil:
		return []string{"", "", fmt.Sprintf("%d bytes of statement", len(e.Release.Statement))}
	}
	return []string{"", "", ""}
}
