package policies

import "fmt"

// Level is an SSH algorithm level: "pq-preferred" or "pq-only".
type Level string

// SSH algorithm levels of the bastion's own hop.
const (
	PQPreferred Level = "pq-preferred" // post-quantum key exchange first, X25519 for clients that do not have it
	PQOnly      Level = "pq-only"      // post-quantum key exchange or nothing
)

// Algorithms is what an SSH server of a level offers and accepts, in order of preference. No list is ever empty: to the
// library an empty list means its own defaults.
type Algorithms struct {
	KeyExchanges []string
	Ciphers      []string
	MACs         []string // AES-GCM needs none; libraries ask for a list all the same
	HostKeys     []string // signature algorithms of the host key and of its certificate
	PublicKeys   []string // users' signature algorithms
}

// Algorithms returns the level's lists. It knows no level but the named ones.
func (l Level) Algorithms() (Algorithms, error) {
	a := Algorithms{
		KeyExchanges: []string{"mlkem768x25519-sha256"},
		Ciphers:      []string{"aes256-gcm@openssh.com", "aes128-gcm@openssh.com"},
		MACs:         []string{"hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"},
		HostKeys:     []string{"ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"},
		PublicKeys:   []string{skEd25519, skECDSA},
	}
	switch l {
	case PQOnly:
		return a, nil
	case PQPreferred:
		a.KeyExchanges = append(a.KeyExchanges, "curve25519-sha256", "curve25519-sha256@libssh.org")
		return a, nil
	}
	return Algorithms{}, fmt.Errorf("unknown SSH level %q", string(l))
}
