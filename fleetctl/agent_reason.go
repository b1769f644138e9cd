package main

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"mayfly/internal/hint"
)

// extensionWhy asks bastion-agent why it refused; docs/formats/agent.md. The protocol's own failure says nothing.
const extensionWhy = "why@mayfly"

// maxReason bounds what is printed of an agent's answer, in bytes.
const maxReason = 1000

// refusedBy says why an agent did not sign, if it is one that does; otherwise the error is as it was.
func refusedBy(c agent.ExtendedAgent, err error) error {
	answer, failed := c.Extension(extensionWhy, nil)
	if failed != nil {
		return err
	}
	var why struct {
		Reason string `sshtype:"6"` // SSH_AGENT_SUCCESS
		Text   string
		Hint   string
	}
	if ssh.Unmarshal(answer, &why) != nil || why.Reason == "" {
		return err
	}
	told := fmt.Errorf("ssh-agent did not sign: %s (%s)", oneLine(why.Text), oneLine(why.Reason))
	if why.Hint == "" {
		return told
	}
	return hint.New(told, "%s", oneLine(why.Hint))
}

// oneLine is text that moves nothing on a terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), maxReason)], ""))
}
