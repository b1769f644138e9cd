package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"mayfly/fleetctl/signer"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
)

// hostCAs reads the published list of SSH host CAs. It is a copy beside the signer's own, which only the signer reads.
func (d state) hostCAs() (signer.HostCAs, error) {
	data, err := read(d.hostCAsFile(), "")
	if errors.Is(err, fs.ErrNotExist) {
		if own, err := signer.LoadHostCAs(string(d)); err == nil { // where the CA was moved to, before its first change
			return own, nil
		}
		return signer.HostCAs{}, hint.New(err, "`fleetctl ca publish` writes it; --dir names the state directory")
	}
	if err != nil {
		return signer.HostCAs{}, err
	}
	l, err := signer.ParseHostCAs(data)
	if err != nil {
		return signer.HostCAs{}, fmt.Errorf("%s: %w", d.hostCAsFile(), err)
	}
	return l, nil
}

// publishHostCAs writes the copy, and known_hosts by it.
func (d state) publishHostCAs(f inventory.Fleet, l signer.HostCAs) error {
	data, err := l.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.public(), 0o755); err != nil { // where the CA lies alone
		return fmt.Errorf("making the public directory: %w", err)
	}
	if err := durable.WriteFile(d.hostCAsFile(), data, 0o644); err != nil {
		return err
	}
	return durable.WriteFile(d.knownHostsFile(), knownHosts(f, l), 0o644)
}

// knownHosts says who speaks for the fleet's hosts: the SSH host CAs, by full and by short name, and a host that nobody rebuilds for
// itself. It is the same for everybody, and public.
func knownHosts(f inventory.Fleet, l signer.HostCAs) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# known_hosts of fleet %s, made by fleetctl.", f.Name)
	names := strings.Join(certifiedNames(f), ",")
	for _, ca := range l.CAs {
		switch ca.State {
		case signer.CACurrent:
			line("# This CA certifies hosts, for an hour at a time.")
		case signer.CANext:
			line("# This CA will take over; it certifies nothing yet.")
		case signer.CARetiring:
			line("# This CA certifies no more; what it certified last still counts.")
		case signer.CARetired:
			continue
		}
		line("@cert-authority %s %s %s-host-ca", names, ca.Key, f.Name)
	}
	for _, ca := range l.CAs {
		if ca.State == signer.CARetired {
			line("# Retired %s: nothing by it is believed.", ca.Since.Format("2006-01-02"))
			line("@revoked * %s", ca.Key)
		}
	}
	for _, s := range f.Servers {
		for _, key := range s.HostKeys {
			line("# %s is rebuilt by nobody here: it has a key of its own, which the signed inventory names.", s.Name)
			line("%s,%s %s", f.FQDN(s.Name), s.Name, key)
		}
	}
	return []byte(b.String())
}

// certifiedNames are the names that the CAs speak for: never those of hosts that have keys of their own.
func certifiedNames(f inventory.Fleet) []string {
	var names []string
	rebuilt := f.Rebuilt()
	if len(rebuilt) > 0 {
		names = append(names, "*."+f.Domain)
	}
	for _, b := range f.Bastions {
		if len(rebuilt) == 0 {
			names = append(names, f.FQDN(b.Name))
		}
		names = append(names, b.Name)
	}
	for _, s := range rebuilt {
		names = append(names, s.Name)
	}
	for _, s := range f.Servers {
		if s.Role == inventory.RoleHost && len(rebuilt) > 0 {
			names = append(names, "!"+f.FQDN(s.Name))
		}
	}
	return names
}
