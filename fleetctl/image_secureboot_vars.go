package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/uki"
)

var imageSecureBootVarsVerb = command.Verb{
	Name:    "image secureboot-vars",
	Args:    "--enrol DIR --from FILE --out FILE",
	Summary: "enrol a fleet's Secure Boot keys in a virtual machine's file of variables",
	Help: `Writes the PK, KEK and db of DIR (the enrol directory of ` + "`fleetctl image secureboot-keys`" + `) into a copy of OVMF's variables
(Debian: /usr/share/OVMF/OVMF_VARS_4M.fd). A virtual machine that begins with the copy has Secure Boot on, under the fleet's keys and
nobody else's; secure_boot_vars of a server's power section names it.

Example:

  fleetctl image secureboot-vars --enrol secureboot/enrol --from /usr/share/OVMF/OVMF_VARS_4M.fd --out vars.fd`,
	Run: runSecureBootVars,
}

func runSecureBootVars(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := fs.String("enrol", "", "`directory` with PK.esl, KEK.esl and db.esl")
	from := fs.String("from", "", "`file` of OVMF's variables without keys")
	out := fs.String("out", "", "`file` to make")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	if *dir == "" || *from == "" || *out == "" {
		return command.Usagef("--enrol, --from and --out are needed")
	}
	var keys []uki.Enrolled
	for _, v := range []uki.Variable{uki.PK, uki.KEK, uki.DB} {
		list, err := read(filepath.Join(*dir, v.Name+listSuffix), "`fleetctl image secureboot-keys` makes it")
		if err != nil {
			return err
		}
		keys = append(keys, uki.Enrolled{Variable: v, List: list})
	}
	file, err := readBounded(*from, "Debian's package ovmf has it", uki.MaxVariables)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(*out); err == nil {
		return hint.New(fmt.Errorf("%s is there already", *out), "a machine may run with it: name another file")
	}
	vars, err := uki.Enrol(file, keys, time.Now())
	if err != nil {
		return hint.New(fmt.Errorf("%s: %w", *from, err), "take OVMF's own file, without keys: Debian's is OVMF_VARS_4M.fd")
	}
	if err := durable.WriteFile(*out, vars, 0o600); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, *out)
	return nil
}
