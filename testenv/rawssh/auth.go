package rawssh

import (
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Message numbers (RFC 4252, section 6).
const (
	msgServiceRequest = 5
	msgServiceAccept  = 6
	MsgAuthRequest    = 50
	MsgAuthFailure    = 51
	MsgAuthSuccess    = 52
	msgAuthBanner     = 53
)

// Reply is the server's answer to a request for authentication.
type Reply struct {
	Success bool
	Methods []string // that can continue
}

// Service asks for the user authentication service.
func (c *Client) Service() error {
	if err := c.Write(ssh.Marshal(struct {
		Name string `sshtype:"5"`
	}{"ssh-userauth"})); err != nil {
		return fmt.Errorf("asking for authentication: %w", err)
	}
	if _, err := c.Expect(msgServiceAccept); err != nil {
		return fmt.Errorf("asking for authentication: %w", err)
	}
	return nil
}

// None asks to be let in with nothing.
func (c *Client) None(user string) (Reply, error) { return c.Authenticate(user, "none", nil) }

// Password sends a password, offered or not (RFC 4252, section 8).
func (c *Client) Password(user, password string) (Reply, error) {
	return c.Authenticate(user, "password", ssh.Marshal(struct {
		Change   bool
		Password string
	}{false, password}))
}

// Authenticate sends one SSH_MSG_USERAUTH_REQUEST with these method fields and returns the answer.
func (c *Client) Authenticate(user, method string, fields []byte) (Reply, error) {
	request := ssh.Marshal(struct {
		User, Service, Method string `sshtype:"50"`
	}{User: user, Service: "ssh-connection", Method: method})
	if err := c.Write(append(request, fields...)); err != nil {
		return Reply{}, fmt.Errorf("authenticating by %s: %w", method, err)
	}
	for {
		packet, err := c.Read()
		if err != nil {
			return Reply{}, fmt.Errorf("authenticating by %s: %w", method, err)
		}
		switch packet[0] {
		case MsgAuthSuccess:
			return Reply{Success: true}, nil
		case MsgAuthFailure:
			var failure struct {
				Methods string `sshtype:"51"`
				Partial bool
			}
			if err := ssh.Unmarshal(packet, &failure); err != nil {
				return Reply{}, fmt.Errorf("authenticating by %s: %w", method, err)
			}
			return Reply{Methods: strings.Split(failure.Methods, ",")}, nil
		case msgIgnore, msgDebug, msgExtInfo, msgAuthBanner:
		case MsgDisconnect:
			return Reply{}, fmt.Errorf("authenticating by %s: %w", method, disconnect(packet))
		default:
			return Reply{}, fmt.Errorf("authenticating by %s: message %d", method, packet[0])
		}
	}
}
