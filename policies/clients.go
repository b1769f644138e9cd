package policies

import (
	"slices"
	"strings"
)

// Names of algorithms that decide who can connect.
const (
	kexMLKEM   = "mlkem768x25519-sha256"
	kexX25519  = "curve25519-sha256"
	suffixGCM  = "-gcm@openssh.com"
	oldX25519  = "curve25519-sha256@libssh.org"
	aes256GCM  = "aes256-gcm@openssh.com"
	aes128GCM  = "aes128-gcm@openssh.com"
	macSHA512  = "hmac-sha2-512-etm@openssh.com"
	macSHA256  = "hmac-sha2-256-etm@openssh.com"
	edHost     = "ssh-ed25519"
	edKey      = edHost // the same name, of a user's key
	ecdsa256   = "ecdsa-sha2-nistp256"
	ecdsa384   = "ecdsa-sha2-nistp384"
	edHostCert = "ssh-ed25519-cert-v01@openssh.com"
)

// reasons say why an algorithm is offered.
var reasons = map[string]string{
	kexMLKEM:   "what is recorded today stays closed to tomorrow's quantum computers; X25519 holds if ML-KEM should not",
	kexX25519:  "for clients without ML-KEM",
	oldX25519:  "the same, by its older name",
	aes256GCM:  "authenticated encryption that Terrapin does not touch",
	aes128GCM:  "the same, for clients that prefer it",
	macSHA512:  "never used beside AES-GCM, but a list has to be sent",
	macSHA256:  "the same",
	edHostCert: "nobody is asked about a host key",
	edHost:     "as a host key, for clients that have pinned it; as a user key, for PIV cards: software's is refused by name",
	ecdsa256:   "for keys of PIV cards, which their evidence tells from software's; that is refused by name",
	ecdsa384:   "the same",
	skEd25519:  "a security key: the private half never leaves it, and each signature takes a touch",
	skECDSA:    "the same, for security keys without Ed25519",
}

// Why says why an algorithm is on a level's list.
func Why(algorithm string) string { return reasons[algorithm] }

// LockedOut is a widely used client that finds nothing to agree on.
type LockedOut struct {
	Client   string `json:"client"`
	Versions string `json:"versions"`
	Lacks    string `json:"lacks"`
}

// clients are widely used ones, with the version since which they have what a level may ask for. Versions as their own change logs give
// them or as they were tried; "" is always, "-" none that was seen.
var clients = []struct{ name, gcm, mlkem, tried string }{
	{"OpenSSH", "", "9.9", ""},
	{"PuTTY, plink", "0.78", "0.83", ""},
	{"Paramiko", "3.5.0", "-", "up to 3.5"},
	{"AsyncSSH", "", "-", "up to 2.10; later ones were not tried"},
	{"Dropbear", "-", "-", "as Debian 12 builds 2022.83"},
}

// LockedOut lists the widely used clients that cannot connect with these algorithms.
func (a Algorithms) LockedOut() []LockedOut {
	onlyGCM := !slices.ContainsFunc(a.Ciphers, func(c string) bool { return !strings.HasSuffix(c, suffixGCM) })
	onlyMLKEM := !slices.ContainsFunc(a.KeyExchanges, func(k string) bool { return k != kexMLKEM })
	list := []LockedOut{}
	for _, c := range clients {
		since, lacks := "", ""
		if onlyGCM && c.gcm != "" {
			since, lacks = c.gcm, "AES-GCM"
		}
		if onlyMLKEM && since != "-" && c.mlkem != "" { // every client had AES-GCM first
			since, lacks = c.mlkem, kexMLKEM
		}
		switch since {
		case "":
		case "-":
			list = append(list, LockedOut{c.name, c.tried, lacks})
		default:
			list = append(list, LockedOut{c.name, "before " + since, lacks})
		}
	}
	return list
}
