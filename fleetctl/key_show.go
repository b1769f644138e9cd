package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies"
)

var keyShowVerb = command.Verb{
	Name:    "key show",
	Args:    "NAME|FINGERPRINT [--dir DIR] [--audit DIR] [-o json]",
	Summary: "show a person's keys or one key: evidence, age, last use",
	Help: `FINGERPRINT is "SHA256:…", as "fleetctl key list" shows it. When a key was last used is read from the audit log of a bastion (its
audit directory, or a directory of several such, as DIR/audit is for bastions that are rebuilt); it is shown as the log says it, and
"bastion audit verify" proves the log.

Example:

  fleetctl key show anna --dir lab --audit /var/lib/bastion/audit`,
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		dir, output := dirFlag(flags), outputFlag(flags)
		log := flags.String("audit", "", "audit `directory` of a bastion, or one of several")
		if err := c.Parse(flags); err != nil {
			return err
		}
		which, err := oneArgument(flags, "a person's NAME, or a key's FINGERPRINT")
		if err := errors.Join(err, checkFormat(*output)); err != nil {
			return err
		}
		p, err := state(*dir).keys()
		if err != nil {
			return err
		}
		report := showReport{Keys: []usedKey{}}
		for _, k := range keyReports(p) {
			if k.Name == which || k.Fingerprint == which {
				report.Keys = append(report.Keys, usedKey{keyReport: k})
			}
		}
		if len(report.Keys) == 0 {
			return refuseKey(policies.KeyUnknown, "fleetctl key list shows whose and which there are", "no key of %q, and nobody of that name has one", which)
		}
		if *log != "" {
			uses, err := readUses(*log)
			if err != nil {
				return err
			}
			for i := range report.Keys {
				report.Keys[i].used(uses[report.Keys[i].Fingerprint])
			}
		}
		now := time.Now()
		var rows [][]string
		for _, k := range report.Keys {
			rows = append(rows, k.facts()...)
			rows = append(rows, []string{"challenged", k.age(now)}, []string{"last use", k.lastUse(*log)}, []string{})
		}
		return show(c.Stdout, *output, report, []string{"KEY", which}, rows)
	},
}

// showReport is what `fleetctl key show -o json` prints. Its fields stay.
type showReport struct {
	Keys []usedKey `json:"keys"`
}

type usedKey struct {
	keyReport
	Logins  int       `json:"logins,omitempty"`      // in the log that was read
	Last    time.Time `json:"last_login,omitzero"`   // the newest of them
	Source  string    `json:"last_source,omitempty"` // where it came from
	Bastion string    `json:"last_log,omitempty"`    // the log that has it
}

func (k *usedKey) used(u use) {
	k.Logins, k.Last, k.Source, k.Bastion = u.logins, u.last, u.source, u.log
}

func (k usedKey) age(now time.Time) string {
	if k.Proof == nil || k.Proof.Made.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%s, %d days ago", k.Proof.Made.Format(time.RFC3339), int(now.Sub(k.Proof.Made).Hours()/24))
}

func (k usedKey) lastUse(log string) string {
	switch {
	case log == "":
		return "not looked up: --audit DIR"
	case k.Logins == 0:
		return "never, in that log"
	}
	return fmt.Sprintf("%s from %s, %d logins in all", k.Last.Format(time.RFC3339), k.Source, k.Logins)
}

// use is what logs say of a key.
type use struct {
	logins      int
	last        time.Time
	source, log string
}

// maxLogDepth is how deep below a directory logs are looked for: DIR/audit has SERVER/LIFE.
const maxLogDepth = 3

// readUses reads the logins in the audit logs of a directory, by the key's fingerprint.
func readUses(dir string) (map[string]use, error) {
	uses, logs := map[string]use{}, 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			return nil
		}
		if audit.IsLog(path) {
			logs++
			if err := noteUses(uses, path); err != nil {
				return err
			}
			return fs.SkipDir
		}
		below, err := filepath.Rel(dir, path)
		if err == nil && strings.Count(below, string(filepath.Separator)) >= maxLogDepth {
			err = fs.SkipDir
		}
		return err
	})
	if err == nil && logs == 0 {
		err = hint.New(fmt.Errorf("%s: no audit log there", dir), "a bastion's audit directory is the one that its bastion.toml names")
	}
	return uses, err
}

func noteUses(uses map[string]use, log string) error {
	_, err := audit.Read(log, 0, func(index uint64, text []byte) error {
		e, err := audit.ParseEntry(text)
		if err != nil {
			return fmt.Errorf("%s: record %d: %w", log, index, err)
		}
		if e.Event != "login" {
			return nil
		}
		var r struct {
			Key    string `json:"key"`
			Source string `json:"source"`
		}
		if err := json.Unmarshal(e.Record, &r); err != nil {
			return fmt.Errorf("%s: record %d: %w", log, index, err)
		}
		u := uses[r.Key]
		u.logins++
		if e.Time.After(u.last) {
			u.last, u.source, u.log = e.Time, r.Source, log
		}
		uses[r.Key] = u
		return nil
	})
	return err
}
