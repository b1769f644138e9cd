package main

import (
	"embed"
	"io"
	"strings"

	"mayfly/internal/command"
)

// units are for the service managers of Linux and macOS.
//
//go:embed units
var units embed.FS

// unitNames are what --print-unit takes.
var unitNames = []string{"bastion-agent.service", "bastion-agent.socket", "mayfly.bastion-agent.plist"}

func printUnit(w io.Writer, name string) error {
	data, err := units.ReadFile("units/" + name)
	if err != nil {
		return command.Usagef("--print-unit %s: want one of %s", name, strings.Join(unitNames, ", "))
	}
	_, err = w.Write(data)
	return err
}
