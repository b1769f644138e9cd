//go:build pcsc

package cardpeers

import (
	"encoding/pem"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/pivcard"
)

// sshdScript is a server's sshd for one connection on its stdin, with the account alice, in a mount namespace of its own.
const sshdScript = `set -e
cd "$1"
mount -t tmpfs -o mode=755 none /run
mkdir /run/sshd
cp authorized_keys /run/authorized_keys
chmod 644 /run/authorized_keys
(grep -v '^\(sshd\|alice\):' /etc/passwd; echo sshd:x:101:65534::/run/sshd:/bin/false; echo alice:*:54324:54324::/:/bin/sh) > /run/passwd
mount --bind /run/passwd /etc/passwd
exec /usr/sbin/sshd -i -e -f "$1/sshd_config"
`

const sshdConfig = `HostKey DIR/host_key
AuthorizedKeysFile /run/authorized_keys
AuthenticationMethods publickey
StrictModes no
UsePAM no
PidFile none
`

// askpass types the PIN that is in the file.
const askpass = `#!/bin/sh
cat DIR/pin
`

func useSSHWithYKCS11(t *testing.T, do doer) {
	d := sit(t, newest)
	d.useSSH(do, library(t, ykcs11), func() {})
}

// useSSHWithOpenSC uses an older card, since OpenSC sees no key without a certificate, and yubico-piv-tool puts none on a newer one.
func useSSHWithOpenSC(t *testing.T, do doer) {
	d := sit(t, older)
	d.useSSH(do, library(t, openscPKCS11), d.holdTouchKey)
}

// useSSH uses OpenSSH's client with a library, and Debian's sshd.
func (d *desk) useSSH(do doer, module string, hold func()) {
	if _, err := d.card.Generate(pivcard.KeyPlan{Slot: "9a", Algorithm: "p256", PIN: "once", Touch: "always"}); err != nil {
		d.t.Fatal(err)
	}
	hold()
	d.pin(pivcard.DefaultPIN)
	d.write("sshd.sh", []byte(sshdScript))
	d.write("sshd_config", []byte(strings.ReplaceAll(sshdConfig, "DIR", d.home)))
	d.write("askpass", []byte(strings.ReplaceAll(askpass, "DIR", d.home)))
	d.must(d.run("chmod", "700", "askpass"))
	d.must(d.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host_key"))

	var public ssh.PublicKey
	do(seen, d, func() {
		public = d.ecdsaKey(d.must(d.run("ssh-keygen", "-D", module)))
		d.write("authorized_keys", ssh.MarshalAuthorizedKey(public))
		d.write("key.pub", ssh.MarshalAuthorizedKey(public))
	})
	login := func() said {
		d.t.Helper()
		cmd := d.withPIN("ssh", "-F", "none", "-o", "PKCS11Provider="+module, "-o", "IdentityFile=none", "-o", "IdentityAgent=none",
			"-o", "PreferredAuthentications=publickey", "-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile="+d.path("known_hosts"),
			"-o", "ProxyCommand=unshare --mount sh "+d.path("sshd.sh")+" "+d.home, "alice@server", "echo", "in", "as", "alice")
		return d.result(cmd)
	}
	do(sign, d, func() {
		if err := d.card.Touch.SetMode(pivcard.TouchAuto); err != nil {
			d.t.Fatal(err)
		}
		d.must(login(), "in as alice")
		if got := d.card.Touch.State(); got.Given != 1 {
			d.t.Errorf("got touches %+v, want one for a login", got.Touches)
		}
	})
	do(attest, d, func() {
		slot := d.parse([]byte(d.must(d.run("yubico-piv-tool", "-a", "attest", "-s", "9a"))))
		device := d.parse([]byte(d.must(d.run("yubico-piv-tool", "-a", "read-certificate", "-s", "f9"))))
		c := d.challenge()
		d.write("challenge", c.Signed())
		d.withAgent(module, func(socket string) {
			cmd := d.Command(d.ctx, "ssh-keygen", "-Y", "sign", "-n", namespace, "-f", "key.pub", "challenge")
			cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket)
			d.must(d.result(cmd))
		})
		block, _ := pem.Decode(d.read("challenge.sig"))
		if block == nil {
			d.t.Fatalf("ssh-keygen wrote %q", d.read("challenge.sig"))
		}
		d.enrol(public, c, block.Bytes, slot, device)
	})
	d.touches(do, login, "in as alice")
	do(pinBlocks, d, func() {
		d.pin("000000")
		for range 3 {
			d.mustNot(login())
		}
		d.pin(pivcard.DefaultPIN)
		d.mustNot(login())
		d.must(d.run("yubico-piv-tool", "-a", "status"), "PIN tries left:\t0")
	})
}

// pin is what askpass types from now on.
func (d *desk) pin(pin string) {
	d.t.Helper()
	d.write("pin", []byte(pin+"\n"))
}

// withPIN is a client that is told the PIN by askpass.
func (d *desk) withPIN(name string, args ...string) *exec.Cmd {
	cmd := d.Command(d.ctx, name, args...)
	cmd.Env = append(cmd.Env, "SSH_ASKPASS="+d.path("askpass"), "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:0")
	return cmd
}

// ecdsaKey reads the one key of that kind among lines of ssh-keygen's or ssh-add's: ykcs11 shows the card's attestation key as well.
func (d *desk) ecdsaKey(lines string) ssh.PublicKey {
	d.t.Helper()
	var found []ssh.PublicKey
	for line := range strings.Lines(lines) {
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil && key.Type() == ssh.KeyAlgoECDSA256 {
			found = append(found, key)
		}
	}
	if len(found) != 1 {
		d.t.Fatalf("got %d ECDSA keys in %q, want one", len(found), lines)
	}
	return found[0]
}

// withAgent runs OpenSSH's agent with the library's keys.
func (d *desk) withAgent(module string, do func(socket string)) {
	d.t.Helper()
	socket := d.path("agent")
	agent := d.withPIN("ssh-agent", "-D", "-a", socket)
	agent.Cancel = func() error { return agent.Process.Signal(syscall.SIGTERM) }
	if err := agent.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = agent.Wait() // it ends by the signal
		close(ended)
	}()
	defer func() {
		if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
			d.t.Error(err)
		}
		<-ended
	}()
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-ended:
			d.t.Fatal("ssh-agent ended")
		case <-d.ctx.Done():
			d.t.Fatalf("ssh-agent: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	add := d.withPIN("ssh-add", "-s", module)
	add.Env = append(add.Env, "SSH_AUTH_SOCK="+socket)
	d.must(d.result(add), "Card added")
	do(socket)
}
