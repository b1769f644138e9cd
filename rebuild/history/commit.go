package history

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
)

// gitNamespace is what git signs commits for (gpg.format = ssh).
const gitNamespace = "git"

// commit is a commit object.
type commit struct {
	id      string
	tree    string
	parents []string
	subject string
	signed  []byte // all of it but its signature
	sig     []byte // armored; nil if it has none
}

// parseCommit reads a commit object: headers, one a line, continued by lines that begin with a space; an empty line; the message.
func parseCommit(id string, data []byte) (*commit, error) {
	c := &commit{id: id}
	signature := "gpgsig"
	if len(id) == 2*sha256.Size {
		signature = "gpgsig-sha256"
	}
	head, message, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		return nil, errors.New("a commit without a message")
	}
	head = append(head[:len(head):len(head)], '\n')
	var signed bytes.Buffer
	var name string
	for line := range bytes.Lines(head) {
		if line[0] == ' ' {
			if name == "" {
				return nil, errors.New("its first header is continued from nothing")
			}
			if name == signature {
				c.sig = append(c.sig, line[1:]...)
				continue
			}
			signed.Write(line)
			continue
		}
		var value string
		name, value, ok = strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if !ok || name == "" {
			return nil, fmt.Errorf("header %q", line)
		}
		switch name {
		case "gpgsig", "gpgsig-sha256":
			if name != signature {
				return nil, fmt.Errorf("a signature of another format of repository: header %s", name)
			}
			if c.sig != nil {
				return nil, errors.New("two signatures in one commit")
			}
			c.sig = append([]byte(value), '\n')
			continue
		case "tree":
			if c.tree != "" || !isID(value) {
				return nil, fmt.Errorf("header %q", line)
			}
			c.tree = value
		case "parent":
			if !isID(value) {
				return nil, fmt.Errorf("header %q", line)
			}
			c.parents = append(c.parents, value)
		}
		signed.Write(line)
	}
	if c.tree == "" {
		return nil, errors.New("a commit without a tree")
	}
	signed.WriteByte('\n')
	signed.Write(message)
	c.signed = signed.Bytes()
	subject, _, _ := bytes.Cut(message, []byte("\n"))
	c.subject = printable(string(subject))
	return c, nil
}

// printable is a text as it may stand on a terminal.
func printable(s string) string {
	const longest = 72
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\uFFFD' || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return s
}

// signer returns who signed the commit.
func (c *commit) signer(people People) (string, error) {
	if len(c.sig) == 0 {
		return "", refuse(Unsigned, c.id, "it is not signed")
	}
	s, err := sshsig.Parse(bytes.TrimSpace(c.sig))
	if err != nil {
		return "", refuse(BadSignature, c.id, "its signature is none that counts: %v", err)
	}
	name, ok := people.owner(s.Key())
	if !ok {
		return "", refuse(SignerUnknown, c.id, "its signature is by %s, nobody's enrolled key", ssh.FingerprintSHA256(s.Key()))
	}
	if err := s.Verify(gitNamespace, c.signed); err != nil {
		return "", refuse(BadSignature, c.id, "the signature by %s does not hold: %v", name, err)
	}
	return name, nil
}
