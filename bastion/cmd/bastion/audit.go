package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

const auditVerifyHelp = `It reads a whole audit log and checks it by the verifier key alone: every record is hashed again, and all of them have
to give the root hash that the log's key signed. The key is a file with one line, NAME+HASH+KEY: a copy of the log's audit_key.pub
that was kept elsewhere since the log began.

An older checkpoint that was kept elsewhere (a copy of the file "checkpoint") shows with --against that nothing was cut off or
written anew since. --witness names a file with a witness's verifier key; it may be given several times, and each witness must
have cosigned. With --proof it checks one proof that "bastion audit prove" wrote instead, without the log.

It ends with exit code 3, and the reason, when the log or the proof does not hold.

  bastion audit verify --dir audit --key bastion.pub --against yesterday.checkpoint`

const auditTailHelp = `It prints the last records as JSON lines, each with its number. It verifies nothing. With --follow it goes on until it is
interrupted. --refused prints counts of refusals and what else strangers caused: that is kept apart, and not signed.

  bastion audit tail --dir audit -n 20 --event login --follow`

const auditProveHelp = `It writes to standard output what shows that one record is in the log: the record, its number, the hashes that lead from it to
a signed checkpoint, and that checkpoint (c2sp.org/tlog-proof). "bastion audit verify --proof FILE --key FILE" checks it, and takes
nothing else. The record is named by its number, from 0, or by a connection's reference: then it is that connection's
closing record.

  bastion audit prove --dir audit --connection 0123456789abcdef > anna.tlog-proof`

// maxKeyFiles bounds how many witnesses one call names.
const maxKeyFiles = 16

func auditVerbs() []command.Verb {
	return []command.Verb{
		{Name: "audit verify", Args: "--dir DIR --key FILE [--against FILE] [--witness FILE]... [-o json] | --proof FILE --key FILE [--witness FILE]...",
			Summary: "check an audit log, or a proof of one record, by its key", Help: auditVerifyHelp, Run: auditVerify},
		{Name: "audit tail", Args: "--dir DIR [-n N] [--event EVENT] [--follow | --refused]", Summary: "print the last records of an audit log", Help: auditTailHelp, Run: auditTail},
		{Name: "audit prove", Args: "--dir DIR INDEX | --dir DIR --connection ID", Summary: "write a proof that a record is in an audit log", Help: auditProveHelp, Run: auditProve},
	}
}

func auditVerify(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := fs.String("dir", "", "the log's `directory`")
	key := fs.String("key", "", "`file` with the log's verifier key")
	against := fs.String("against", "", "`file` with an older checkpoint of the log")
	proof := fs.String("proof", "", "`file` with a proof to check instead of a log")
	output := fs.String("o", "text", "output `form`: text or json")
	var witnesses []string
	fs.Func("witness", "`file` with the verifier key of a witness that must have cosigned", func(path string) error {
		witnesses = append(witnesses, path)
		return nil
	})
	if err := c.Parse(fs); err != nil {
		return err
	}
	switch {
	case *key == "" || (*dir == "") == (*proof == "") || fs.NArg() > 0:
		return command.Usagef("want --key FILE, and --dir DIR or --proof FILE")
	case *proof != "" && *against != "":
		return command.Usagef("--against has no part in checking a proof")
	case *output != "text" && *output != "json":
		return command.Usagef("-o %s: want text or json", *output)
	}
	trusted, err := loadTrusted(*key, *against, witnesses)
	if err != nil {
		return err
	}
	if *proof != "" {
		return verifyProof(c.Stdout, *proof, trusted, *output)
	}
	report, err := audit.Verify(*dir, trusted)
	if err != nil {
		return refuseForged(err)
	}
	if *output == "json" {
		return encode(c.Stdout, report)
	}
	return printVerified(c.Stdout, report)
}

// refuseForged makes a log that does not hold exit code 3; what could not be read is 1.
func refuseForged(err error) error {
	if errors.Is(err, audit.ErrForged) {
		return command.Refuse(err)
	}
	return err
}

func loadTrusted(key, against string, witnesses []string) (audit.Trusted, error) {
	var t audit.Trusted
	var err error
	if t.Log, err = audit.ReadVerifier(key); err != nil {
		return t, err
	}
	if against != "" {
		if t.Against, err = durable.ReadFile(against, audit.MaxCheckpoint); err != nil {
			return t, hint.New(fmt.Errorf("reading the older checkpoint: %w", err), `it is a copy of the log's file "checkpoint"`)
		}
	}
	if len(witnesses) > maxKeyFiles {
		return t, command.Usagef("more than %d witnesses", maxKeyFiles)
	}
	for _, path := range witnesses {
		var v note.Verifier
		data, err := durable.ReadFile(path, 4096)
		if err == nil {
			v, err = audit.NewWitnessVerifier(strings.TrimSpace(string(data)))
		}
		if err != nil {
			return t, fmt.Errorf("reading a witness's key %s: %w", path, err)
		}
		t.Witnesses = append(t.Witnesses, v)
	}
	return t, nil
}

func verifyProof(out io.Writer, path string, trusted audit.Trusted, form string) error {
	data, err := durable.ReadFile(path, audit.MaxProof)
	if err != nil {
		return fmt.Errorf("reading the proof: %w", err)
	}
	proven, err := audit.VerifyProof(data, trusted)
	if err != nil {
		return refuseForged(err)
	}
	if form == "json" {
		return encode(out, proven)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "log\t%s\nrecord\t%d of %d\ntime\t%s\nevent\t%s\n", proven.Origin, proven.Index, proven.Size, proven.Entry.Time.Format(time.RFC3339Nano), proven.Entry.Event)
	printCosigned(w, proven.Cosigned)
	fmt.Fprintf(w, "content\t%s\n", proven.Entry.Record)
	return w.Flush()
}

func printVerified(out io.Writer, r audit.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "log\t%s\nrecords\t%d\nroot hash\t%s\n", r.Origin, r.Size, r.Root)
	if r.Last != nil {
		fmt.Fprintf(w, "last record\t%s\n", r.Last.Format(time.RFC3339Nano))
	}
	if r.Unsigned > 0 {
		fmt.Fprintf(w, "not signed yet\t%d\n", r.Unsigned)
	}
	if r.Against != nil {
		fmt.Fprintf(w, "extends\tthe older checkpoint of %d records\n", *r.Against)
	}
	printCosigned(w, r.Cosigned)
	return w.Flush()
}

func printCosigned(w io.Writer, all []audit.Cosigning) {
	for _, c := range all {
		fmt.Fprintf(w, "cosigned\t%d records by %s, %s\n", c.Size, c.Witness, c.Time.Format(time.RFC3339))
	}
}

func auditProve(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := fs.String("dir", "", "the log's `directory`")
	connection := fs.String("connection", "", "prove the closing record of the connection with this `reference`")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if *dir == "" || (*connection == "") == (fs.NArg() == 0) || fs.NArg() > 1 {
		return command.Usagef("want --dir DIR, and INDEX or --connection ID")
	}
	var index uint64
	var err error
	if *connection != "" {
		index, err = closingOf(*dir, *connection)
	} else if index, err = strconv.ParseUint(fs.Arg(0), 10, 63); err != nil {
		return command.Usagef("INDEX %q: want a number", fs.Arg(0))
	}
	if err != nil {
		return err
	}
	proof, err := audit.Prove(*dir, index)
	if err != nil {
		return err
	}
	_, err = c.Stdout.Write(proof.Marshal())
	return err
}

// closingOf finds the closing record of a connection.
func closingOf(dir, connection string) (index uint64, err error) {
	found := errors.New("found")
	_, err = audit.Read(dir, 0, func(i uint64, text []byte) error {
		e, err := audit.ParseEntry(text)
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		var r struct {
			Connection string `json:"connection"`
		}
		if e.Event == "connection" && json.Unmarshal(e.Record, &r) == nil && r.Connection == connection {
			index = i
			return found
		}
		return nil
	})
	switch {
	case errors.Is(err, found):
		return index, nil
	case err != nil:
		return 0, err
	}
	return 0, hint.New(fmt.Errorf("no closing record of connection %q", connection), "bastion audit tail --event connection lists them; an open session has none yet")
}

func encode(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
