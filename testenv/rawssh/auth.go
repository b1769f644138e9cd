package rawssh

import (
	"crypto/rand"
	"errors"
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
	MsgPublicKeyOK    = 60
)

// Reply is the server's answer to a request for authentication.
type Reply struct {
	Success bool
	Partial bool     // the method was accepted, another has to follow
	Usable  bool     // the server takes a signature by the key that was asked about
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
			return Reply{Partial: failure.Partial, Methods: strings.Split(failure.Methods, ",")}, nil
		case MsgPublicKeyOK:
			return Reply{Usable: true}, nil
		case msgIgnore, msgDebug, msgExtInfo, msgAuthBanner:
		case MsgDisconnect:
			return Reply{}, fmt.Errorf("authenticating by %s: %w", method, disconnect(packet))
		default:
			return Reply{}, fmt.Errorf("authenticating by %s: message %d", method, packet[0])
		}
	}
}

// Ask asks whether a signature by a key would be taken (RFC 4252, section 7). The blob need not be a key.
func (c *Client) Ask(user, algorithm string, blob []byte) (Reply, error) {
	return c.Authenticate(user, "publickey", ssh.Marshal(struct {
		Signed    bool
		Algorithm string
		Blob      []byte
	}{false, algorithm, blob}))
}

// Sign logs in by a signature of this session. The signer need not be the key's.
func (c *Client) Sign(user string, key ssh.PublicKey, signer ssh.Signer) (Reply, error) {
	request := ssh.Marshal(struct {
		User, Service, Method string `sshtype:"50"`
		Signed                bool
		Algorithm             string
		Blob                  []byte
	}{user, "ssh-connection", "publickey", true, key.Type(), key.Marshal()})
	signature, err := signer.Sign(rand.Reader, append(ssh.Marshal(struct{ Session []byte }{c.session}), request...))
	if err != nil {
		return Reply{}, fmt.Errorf("signing: %w", err)
	}
	return c.Authenticate(user, "publickey", ssh.Marshal(struct {
		Signed    bool
		Algorithm string
		Blob      []byte
		Signature []byte
	}{true, key.Type(), key.Marshal(), ssh.Marshal(signature)}))
}

// Login asks for the service and signs.
func (c *Client) Login(user string, signer ssh.Signer) error {
	if err := c.Service(); err != nil {
		return err
	}
	reply, err := c.Sign(user, signer.PublicKey(), signer)
	if err == nil && !reply.Success {
		err = errors.New("refused")
	}
	return err
}
