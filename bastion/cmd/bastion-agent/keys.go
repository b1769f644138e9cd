package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"mayfly/bastion/card"
	"mayfly/internal/command"
)

const keysHelp = `It lists each card in a reader, its serial number and firmware, and its keys: slot, type, when the card asks for PIN and touch, whether the
card made the key or somebody brought it, and the line for authorized_keys. This is what the card says; only its attestation proves it (see
bastion-agent enroll). A card that another program has for itself is listed with that.

  bastion-agent keys
  bastion-agent keys -o json`

var keysVerb = command.Verb{
	Name:    "keys",
	Args:    "[-o json]",
	Summary: "list cards and their keys",
	Help:    keysHelp,
	Run:     keys,
}

func keys(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	output := fs.String("o", "text", "output `form`: text or json")
	if err := c.Parse(fs); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return command.Usagef("keys takes no words, got %q", fs.Arg(0))
	case *output != "text" && *output != "json":
		return command.Usagef("-o %s: want text or json", *output)
	}
	listing, err := card.List(ctx, reach())
	if err != nil {
		return err
	}
	if *output == "json" {
		return encode(c.Stdout, listing)
	}
	if len(listing.Cards) == 0 {
		return &card.Error{Fault: card.Removed, Err: errors.New("there is no card in any reader")}
	}
	return printListing(c.Stdout, listing)
}

// encode writes JSON for programs.
func encode(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func printListing(out io.Writer, l card.Listing) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range l.Cards {
		switch {
		case c.Serial == 0:
			fmt.Fprintf(w, "%s\n", c.Reader)
		default:
			fmt.Fprintf(w, "%d, firmware %s, in %s\n", c.Serial, c.Firmware, c.Reader)
		}
		for _, k := range c.Keys {
			fmt.Fprintf(w, "  %s\t%s\tPIN %s\ttouch %s\t%s\n", k.Slot, k.Type, k.PINPolicy, k.Touch, k.Origin)
			if k.Error != "" {
				fmt.Fprintf(w, "  \t%s\n", k.Error)
			}
			if k.Public != "" {
				fmt.Fprintf(w, "  \t%s\n", k.Public)
			}
		}
		if c.Error != "" {
			fmt.Fprintf(w, "  %s\n", c.Error)
		} else if len(c.Keys) == 0 {
			fmt.Fprintf(w, "  no keys\n")
		}
		if c.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", c.Hint)
		}
	}
	return w.Flush()
}
