package inventory

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"

	"mayfly/internal/tomlfile"
)

// maxHostKeys is how many keys a host may have: one, and the next while it changes.
const maxHostKeys = 4

// ed25519Blob is what every Ed25519 public key begins with on the wire (RFC 8709, section 4), before its 32 bytes.
var ed25519Blob = []byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20")

// hostKeys checks the keys of a host's sshd: they are what clients compare, so they are one key each, without options or comment.
func hostKeys(path string, s Server) error {
	if len(s.HostKeys) > maxHostKeys {
		return tomlfile.At(path, "one, and the next one while it changes", "server %q has %d host keys, at most %d", s.Name, len(s.HostKeys), maxHostKeys)
	}
	for i, key := range s.HostKeys {
		if !isEd25519(key) {
			return tomlfile.At(path, "the first two words of the host's /etc/ssh/ssh_host_ed25519_key.pub", "server %q: %.80q is no ssh-ed25519 public key", s.Name, key)
		}
		if slices.Contains(s.HostKeys[:i], key) {
			return tomlfile.At(path, "say it once", "server %q has a host key twice", s.Name)
		}
	}
	return nil
}

func isEd25519(key string) bool {
	text, ok := strings.CutPrefix(key, "ssh-ed25519 ")
	blob, err := base64.StdEncoding.Strict().DecodeString(text)
	return ok && err == nil && len(blob) == len(ed25519Blob)+32 && bytes.HasPrefix(blob, ed25519Blob) && base64.StdEncoding.EncodeToString(blob) == text
}
