package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"mayfly/inventory"
	"mayfly/policies"
)

const (
	sshdPath    = "/usr/sbin/sshd"
	sshdConfig  = sshDir + "/sshd_config"
	hostKeyFile = sshDir + "/host_key"
	hostCert    = sshDir + "/host_key-cert.pub"
	revokedFile = sshDir + "/revoked_keys"
)

// certificateType is of a host's certificate, and of the session authority's for engineers.
const certificateType = "ssh-ed25519-cert-v01@openssh.com"

// known92 is what Debian 12's OpenSSH 9.2 knows of what a policy may name. It refuses to start with any other name.
var known92 = map[string]bool{
	"sntrup761x25519-sha512@openssh.com": true,
	"curve25519-sha256":                  true,
	"curve25519-sha256@libssh.org":       true,
	"aes256-gcm@openssh.com":             true,
	"aes128-gcm@openssh.com":             true,
	"hmac-sha2-512-etm@openssh.com":      true,
	"hmac-sha2-256-etm@openssh.com":      true,
	"ssh-ed25519":                        true,
	certificateType:                      true,
	"sk-ssh-ed25519@openssh.com":         true,
	"sk-ecdsa-sha2-nistp256@openssh.com": true,
	"ecdsa-sha2-nistp256":                true,
	"ecdsa-sha2-nistp384":                true,
}

// sshdAlgorithms is the strongest subset of a level that OpenSSH 9.2 supports. ML-KEM comes with 9.9: where the level names it,
// the post-quantum exchange that 9.2 has takes its place.
func sshdAlgorithms(p policies.Policy) (policies.Algorithms, error) {
	a, err := p.Algorithms()
	if err != nil {
		return policies.Algorithms{}, fmt.Errorf("choosing sshd's algorithms: %w", err)
	}
	kex := slices.Clone(a.KeyExchanges)
	for i, k := range kex {
		if k == "mlkem768x25519-sha256" {
			kex[i] = "sntrup761x25519-sha512@openssh.com"
		}
	}
	a.KeyExchanges = kex
	for _, list := range []*[]string{&a.KeyExchanges, &a.Ciphers, &a.MACs, &a.HostKeys, &a.PublicKeys} {
		*list = slices.DeleteFunc(slices.Clone(*list), func(name string) bool { return !known92[name] })
		if len(*list) == 0 {
			return policies.Algorithms{}, errors.New("choosing sshd's algorithms: OpenSSH 9.2 knows none of a list; an empty list would be its default")
		}
	}
	return a, nil
}

// sshdSettings is what sshd_config is rendered from.
type sshdSettings struct {
	listen     netip.Addr
	algorithms policies.Algorithms
	engineers  []engineer
	bastions   []netip.Addr
	authority  string // of recorded sessions, "TYPE BASE64"; "" is none
	dir        string // of host key, certificate, authorized keys and revoked keys
	verify     bool   // a signature has to say that PIN or biometry was asked for
}

// sshdConfiguration renders sshd_config. Without anybody who may log in, it denies everybody: sshd allows all users when no
// AllowUsers line is there.
func sshdConfiguration(s sshdSettings) []byte {
	var b strings.Builder
	line := func(key string, values ...string) { fmt.Fprintf(&b, "%s %s\n", key, strings.Join(values, " ")) }
	list := func(key string, values []string) { line(key, strings.Join(values, ",")) }

	line("Port", fmt.Sprint(inventory.PortSSH))
	line("AddressFamily", "inet")
	line("ListenAddress", s.listen.String())
	line("HostKey", s.dir+"/host_key")
	line("HostCertificate", s.dir+"/host_key-cert.pub")
	line("PidFile", "none")

	list("HostKeyAlgorithms", s.algorithms.HostKeys)
	list("KexAlgorithms", s.algorithms.KeyExchanges)
	list("Ciphers", s.algorithms.Ciphers)
	list("MACs", s.algorithms.MACs)
	accepted := slices.Clone(s.algorithms.PublicKeys)
	if s.authority != "" {
		accepted = append(accepted, certificateType)
	}
	list("PubkeyAcceptedAlgorithms", accepted)
	line("CASignatureAlgorithms", "ssh-ed25519")
	line("RekeyLimit", "1G", "1h")
	line("Compression", "no")

	line("AuthenticationMethods", "publickey")
	line("PubkeyAuthentication", "yes")
	options := []string{"touch-required"} // of security keys: sshd asks no other type for a flag that its signatures do not have
	if s.verify {
		options = append(options, "verify-required")
	}
	line("PubkeyAuthOptions", options...)
	line("RevokedKeys", s.dir+"/revoked_keys") // without the file sshd refuses every key
	line("AuthorizedKeysFile", s.dir+"/authorized_keys/%u")
	if s.authority != "" {
		// Who has no file of principals, because no grant for sessions leads here, gets in by no certificate.
		line("TrustedUserCAKeys", s.dir+"/session_authority.pub")
		line("AuthorizedPrincipalsFile", s.dir+"/principals/%u")
	}
	line("StrictModes", "yes")
	for _, off := range []string{"PasswordAuthentication", "KbdInteractiveAuthentication", "HostbasedAuthentication", "GSSAPIAuthentication",
		"KerberosAuthentication", "PermitEmptyPasswords", "PermitRootLogin", "UsePAM", "UseDNS", "PermitUserRC", "PermitUserEnvironment",
		"AllowAgentForwarding", "AllowTcpForwarding", "AllowStreamLocalForwarding", "X11Forwarding", "PermitTunnel", "GatewayPorts",
		"PrintMotd", "PrintLastLog", "ExposeAuthInfo"} {
		line(off, "no")
	}
	line("DisableForwarding", "yes")
	line("PermitOpen", "none")
	line("PermitListen", "none")

	line("LogLevel", "INFO") // the least that names who logged in; see logins.go for where it goes
	line("Banner", "none")
	line("VersionAddendum", "none")
	line("LoginGraceTime", "30")
	line("MaxAuthTries", "6") // an agent may hold several keys
	line("MaxSessions", "8")
	line("MaxStartups", "16:30:64")
	line("ClientAliveInterval", "30")
	line("ClientAliveCountMax", "3")
	line("TCPKeepAlive", "yes")

	var who []string
	for _, e := range s.engineers {
		for _, a := range s.bastions {
			who = append(who, e.name+"@"+a.String())
		}
	}
	if len(who) == 0 {
		line("DenyUsers", "*")
	} else {
		line("AllowUsers", who...)
	}
	return []byte(b.String())
}

// sshdService says what it has to say to take, which keeps engineers' logins and nothing else.
func sshdService(take func(io.ReadCloser)) spec {
	return spec{name: "sshd", path: sshdPath, args: []string{"-D", "-e", "-f", sshdConfig}, users: true, said: take}
}
