package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
)

var sshConfigVerb = command.Verb{
	Name:    "ssh-config",
	Args:    "--dir DIR [--bastion HOST:PORT] [--known-hosts FILE] [--known-hosts-at PATH] [--identity PATH] [--agent PATH] [-o FILE]",
	Summary: "write an ssh_config and a known_hosts that reach every server through the bastion",
	Help: `Prints, or writes to FILE, a whole ssh_config: an entry for each bastion, each server and each host of the signed inventory, host keys
checked against the fleet's SSH host CAs, never asked about; no passwords, no forwarding. The known_hosts that it goes by is written as
well, with the CAs, the revoked ones and the keys of hosts that nobody rebuilds: DIR/public/known_hosts, or --known-hosts.

With several bastions the first one is the way in; the others are named in a comment, and ssh -J takes any of them.

For another machine, --known-hosts-at says where known_hosts will lie there, and --identity where the engineer's key does; both may begin
with ~/, the home of whoever runs ssh. --agent names the socket of bastion-agent, where the key is on a PIV card. Without --known-hosts-at the ssh_config works here, where known_hosts was written. A known_hosts that
names CAs of which DIR knows nothing is newer than DIR, and is not overwritten.

--bastion reaches the first bastion at another address, for example through a local proxy; its name is checked all the same.

Example:

  fleetctl ssh-config --dir lab --known-hosts lab.known_hosts --known-hosts-at '~/.ssh/lab.known_hosts' -o lab.conf

  fleetctl ssh-config --dir lab -o lab.conf && ssh -F lab.conf se-1`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		bastion := fs.String("bastion", "", "`HOST:PORT` at which the first bastion is reached")
		out := fs.String("o", "", "`file` to write (default: standard output)")
		knownHostsTo := fs.String("known-hosts", "", "`file` of the known_hosts to write (default: DIR/public/known_hosts)")
		knownHostsAt := fs.String("known-hosts-at", "", "`path` of that known_hosts on the engineer's machine: absolute, or ~/…")
		user := fs.String("user", "", "account `name` on servers (default: ssh's own)")
		identity := fs.String("identity", "", "`path` of the engineer's key, or public key in the agent: a file here, or absolute or ~/… there (default: what the agent offers)")
		agent := fs.String("agent", "", "`path` of the socket at which bastion-agent listens, absolute or ~/… (default: ssh's own, SSH_AUTH_SOCK)")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *agent != "" && !elsewhere(*agent) {
			return command.Usagef("--agent %s: want an absolute path or ~/…, as it is on the engineer's machine", *agent)
		}
		d := state(*dir)
		f, err := d.namedFleet(ctx, time.Now())
		if err != nil {
			return err
		}
		cas, err := d.hostCAs()
		if err != nil {
			return err
		}
		if *knownHostsTo == "" {
			*knownHostsTo = d.knownHostsFile()
		}
		known, err := filepath.Abs(*knownHostsTo)
		if err != nil {
			return err
		}
		if *knownHostsAt == "" {
			*knownHostsAt = known
		} else if !elsewhere(*knownHostsAt) {
			return command.Usagef("--known-hosts-at %s: want an absolute path or ~/…, as it is on the engineer's machine", *knownHostsAt)
		}
		if *identity != "" && !elsewhere(*identity) {
			if *identity, err = filepath.Abs(*identity); err != nil {
				return err
			}
		}
		text, err := sshConfig(f, sshOptions{knownHosts: *knownHostsAt, bastion: *bastion, user: *user, identity: *identity, agent: *agent})
		if err != nil {
			return err
		}
		if err := notNewer(known, cas); err != nil {
			return err
		}
		if err := writeIfOther(known, knownHosts(f, cas)); err != nil {
			return err
		}
		if *out == "" {
			_, err = c.Stdout.Write(text)
			return err
		}
		return durable.WriteFile(*out, text, 0o644)
	},
}

// elsewhere says whether ssh takes a path as meant wherever it is run: from the root, or from the user's home.
func elsewhere(path string) bool {
	return filepath.IsAbs(path) || strings.HasPrefix(path, "~/") || strings.HasPrefix(path, "%d/")
}

// sshPath writes a path for ssh_config, where % begins a token; that of the home may stand at the beginning.
func sshPath(path string) string {
	home := ""
	if rest, ok := strings.CutPrefix(path, "%d/"); ok {
		home, path = "%d/", rest
	}
	return `"` + home + strings.ReplaceAll(path, "%", "%%") + `"`
}

// notNewer refuses to overwrite a known_hosts with what is older: one that names a CA, or a retired one, that the list does not.
func notNewer(path string, l signer.HostCAs) error {
	old, err := read(path, "")
	if err != nil {
		return nil // not there; what cannot be read cannot be written either, or says so then
	}
	for line := range strings.Lines(string(old)) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != "@cert-authority" && fields[0] != "@revoked" {
			continue
		}
		key := fields[2] + " " + fields[3]
		if !slices.ContainsFunc(l.CAs, func(c signer.HostCA) bool { return c.Key == key }) {
			return command.Refuse(hint.New(fmt.Errorf("%s names a CA that ssh-host-cas.json does not: it is newer", path),
				"bring ssh-host-cas.json here from where `fleetctl ca` was run, into --dir; where that known_hosts is another fleet's, delete it"))
		}
	}
	return nil
}

// writeIfOther leaves a file alone that holds the same already: who may read the directory need not be able to write there.
func writeIfOther(path string, data []byte) error {
	if old, err := read(path, ""); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return durable.WriteFile(path, data, 0o644)
}

type sshOptions struct {
	knownHosts string // where it lies when ssh is run
	bastion    string // HOST:PORT, or empty
	user       string
	identity   string
	agent      string
}

// sshConfig renders the file. It takes names from the inventory, which holds DNS labels only.
func sshConfig(f inventory.Fleet, o sshOptions) ([]byte, error) {
	bastions := f.AllBastions()
	if len(bastions) == 0 {
		return nil, hint.New(fmt.Errorf("fleet %s has no bastion", f.Name), "add a [[bastion]], or a [[server]] with role = \"bastion\", to fleet.toml")
	}
	for what, s := range map[string]string{"path of known_hosts": o.knownHosts, "--user": o.user, "--identity": o.identity, "--bastion": o.bastion} {
		if strings.ContainsAny(s, "\"\n\r") {
			return nil, command.Usagef("%s: %q cannot be written into an ssh_config", what, s)
		}
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# ssh_config of fleet %s, made by `fleetctl ssh-config`. Use it with: ssh -F FILE SERVER", f.Name)
	line("# It is whole: nothing of /etc/ssh/ssh_config or ~/.ssh/config is needed, or read with -F.")
	line("")
	line("# The way in. Every bastion is checked under its name in the fleet, wherever it is reached.")
	var all []string
	for i, x := range bastions {
		host, port := x.Address.String(), strconv.Itoa(int(x.Port))
		if i == 0 && o.bastion != "" {
			var err error
			if host, port, err = net.SplitHostPort(o.bastion); err != nil || host == "" {
				return nil, command.Usagef("--bastion %q: it is HOST:PORT", o.bastion)
			}
		}
		if i == 1 {
			line("# When %s is down, any of these is as good: ssh -F FILE -J %s SERVER", bastions[0].Name, x.Name)
		}
		line("Host %s", x.Name)
		line("    HostName %s", host)
		line("    Port %s", port)
		line("    HostKeyAlias %s", f.FQDN(x.Name))
		all = append(all, x.Name)
	}
	server := func(x inventory.Server) {
		line("Host %s", x.Name)
		line("    HostName %s", x.Name)
		line("    Port %d", inventory.PortSSH)
		line("    HostKeyAlias %s", f.FQDN(x.Name))
		line("    ProxyJump %s", bastions[0].Name)
		all = append(all, x.Name)
	}
	rebuilt := slices.DeleteFunc(f.Rebuilt(), func(x inventory.Server) bool { return x.Role == inventory.RoleBastion }) // named above
	if len(rebuilt) > 0 {
		line("")
		line("# The servers. The bastion knows them by these names, and nobody else needs to. Each life of a server has a new key, and a")
		line("# certificate of an hour for it: their keys change all the time, and no warning is ever right to wave away.")
		for _, x := range rebuilt {
			server(x)
		}
	}
	if len(f.Rebuilt()) < len(f.Servers) {
		line("")
		line("# Hosts that nobody rebuilds. Each has a key of its own, which the signed inventory names; a certificate is not asked for.")
		for _, x := range f.Servers {
			if x.Role != inventory.RoleHost {
				continue
			}
			if len(x.HostKeys) == 0 {
				line("# The inventory has no host_keys of %s: ssh will refuse it.", x.Name)
			}
			server(x)
			line("    HostKeyAlgorithms ssh-ed25519")
		}
	}
	line("")
	line("# A host is who it says it is when the fleet's SSH host CA, or the signed inventory, says so: no first-use question, no stored keys.")
	line("Host %s", strings.Join(all, " "))
	line("    # CAs, retired CAs (@revoked) and the keys of hosts. Fetch it again after `fleetctl ca`.")
	line("    UserKnownHostsFile %s", sshPath(o.knownHosts))
	line("    GlobalKnownHostsFile none")
	line("    StrictHostKeyChecking yes")
	line("    HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com")
	line("    UpdateHostKeys no")
	line("    VerifyHostKeyDNS no")
	line("    # A touched hardware key, and nothing else.")
	line("    PreferredAuthentications publickey")
	line("    PubkeyAuthentication yes")
	line("    PasswordAuthentication no")
	line("    KbdInteractiveAuthentication no")
	line("    GSSAPIAuthentication no")
	line("    HostbasedAuthentication no")
	if o.user != "" {
		line("    User %s", o.user)
	}
	if o.identity != "" {
		line("    # This key only, whatever else the agent holds.")
		line("    IdentityFile %s", sshPath(o.identity))
		line("    IdentitiesOnly yes")
	}
	if o.agent != "" {
		line("    # The agent that asks the card, and says where a signature goes.")
		line("    IdentityAgent %s", sshPath(o.agent))
	}
	line("    # The bastion opens ports on servers; nothing is forwarded back. An agent is never needed behind it.")
	line("    ForwardAgent no")
	line("    ForwardX11 no")
	line("    ClearAllForwardings yes")
	line("    # A session ends when its server leaves, rather than hang.")
	line("    ServerAliveInterval 5")
	line("    ServerAliveCountMax 3")
	return []byte(b.String()), nil
}
