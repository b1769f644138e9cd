package rawssh

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Message numbers (RFC 4253, section 12; RFC 5656, section 7.1).
const (
	MsgDisconnect = 1
	msgIgnore     = 2
	msgDebug      = 4
	msgExtInfo    = 7
	msgKexInit    = 20
	msgNewKeys    = 21
	msgECDHInit   = 30
	msgECDHReply  = 31
)

const clientVersion = "SSH-2.0-mayfly_rawssh"

// Offer is what the client says it can; empty fields mean the one algorithm that this package speaks.
type Offer struct {
	KeyExchanges, HostKeys, Ciphers []string

	Between []byte // a payload that is sent in the middle of the key exchange, where none belongs; nil: none
}

// Client is a connection after key exchange.
type Client struct {
	HostKey ssh.PublicKey // proven, not trusted
	Version string        // of the server
	Offered []byte        // the server's SSH_MSG_KEXINIT

	conn    net.Conn
	reader  *bufio.Reader
	in, out direction
	session []byte
}

// Dial connects and exchanges keys.
func Dial(ctx context.Context, address string, offer Offer) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c, err := Handshake(conn, offer)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// KeyInit is a SSH_MSG_KEXINIT: sent after a key exchange, it begins another one, which this package never ends.
func KeyInit() []byte { return kexInit(Offer{}) }

// Conn is the connection itself, for bytes that are no packet.
func (c *Client) Conn() net.Conn { return c.conn }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Handshake exchanges versions and keys on a connection.
func Handshake(conn net.Conn, offer Offer) (*Client, error) {
	c := &Client{conn: conn, reader: bufio.NewReader(conn)}
	if _, err := io.WriteString(conn, clientVersion+"\r\n"); err != nil {
		return nil, fmt.Errorf("sending version: %w", err)
	}
	line, err := c.reader.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("reading version: %w", err)
	}
	c.Version = strings.TrimRight(line, "\r\n")
	if err := c.exchange(offer); err != nil {
		return nil, fmt.Errorf("exchanging keys: %w", err)
	}
	return c, nil
}

func (c *Client) exchange(offer Offer) error {
	mine := kexInit(offer)
	if err := c.Write(mine); err != nil {
		return err
	}
	theirs, err := c.Expect(msgKexInit)
	if err != nil {
		return err
	}
	c.Offered = theirs
	if offer.Between != nil {
		if err := c.Write(offer.Between); err != nil {
			return err
		}
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	public := private.PublicKey().Bytes()
	if err := c.Write(ssh.Marshal(struct {
		Public []byte `sshtype:"30"`
	}{public})); err != nil {
		return err
	}
	packet, err := c.Expect(msgECDHReply)
	if err != nil {
		return err
	}
	var reply struct {
		HostKey   []byte `sshtype:"31"`
		Public    []byte
		Signature []byte
	}
	if err := ssh.Unmarshal(packet, &reply); err != nil {
		return err
	}
	peer, err := ecdh.X25519().NewPublicKey(reply.Public)
	if err != nil {
		return err
	}
	shared, err := private.ECDH(peer)
	if err != nil {
		return err
	}
	// The shared secret is hashed as an mpint (RFC 8731, section 3.1).
	secret := ssh.Marshal(struct{ K *big.Int }{new(big.Int).SetBytes(shared)})
	hash := sha256.Sum256(append(ssh.Marshal(struct {
		ClientVersion, ServerVersion    string
		ClientInit, ServerInit, HostKey []byte
		ClientPublic, ServerPublic      []byte
	}{clientVersion, c.Version, mine, theirs, reply.HostKey, public, reply.Public}), secret...))

	if c.HostKey, err = ssh.ParsePublicKey(reply.HostKey); err != nil {
		return err
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(reply.Signature, &signature); err != nil {
		return err
	}
	if err := c.HostKey.Verify(hash[:], &signature); err != nil {
		return err
	}
	c.session = hash[:]

	if err := c.Write([]byte{msgNewKeys}); err != nil {
		return err
	}
	if c.out, err = derive(secret, hash[:], 'A', 'C'); err != nil {
		return err
	}
	if _, err := c.Expect(msgNewKeys); err != nil {
		return err
	}
	c.in, err = derive(secret, hash[:], 'B', 'D')
	return err
}

// kexInit is our SSH_MSG_KEXINIT (RFC 4253, section 7.1).
func kexInit(offer Offer) []byte {
	list := func(names []string, or string) string {
		if len(names) == 0 {
			return or
		}
		return strings.Join(names, ",")
	}
	ciphers := list(offer.Ciphers, ssh.CipherAES256GCM)
	payload := make([]byte, 17)
	payload[0] = msgKexInit
	if _, err := rand.Read(payload[1:]); err != nil {
		panic(err) // crypto/rand never fails
	}
	return append(payload, ssh.Marshal(struct {
		Kex, HostKey, CipherOut, CipherIn, MACOut, MACIn, CompressOut, CompressIn, LanguageOut, LanguageIn string
		FirstFollows                                                                                       bool
		Reserved                                                                                           uint32
	}{
		Kex: list(offer.KeyExchanges, ssh.KeyExchangeCurve25519), HostKey: list(offer.HostKeys, ssh.KeyAlgoED25519),
		CipherOut: ciphers, CipherIn: ciphers, MACOut: ssh.HMACSHA256ETM, MACIn: ssh.HMACSHA256ETM,
		CompressOut: "none", CompressIn: "none",
	})...)
}

// derive makes one direction's AES-256-GCM from the exchange (RFC 4253, section 7.2). The session id is the first exchange's
// hash, and there is only one exchange.
func derive(secret, hash []byte, iv, key byte) (direction, error) {
	one := func(letter byte) []byte {
		sum := sha256.Sum256(append(append(append(append([]byte{}, secret...), hash...), letter), hash...))
		return sum[:]
	}
	block, err := aes.NewCipher(one(key))
	if err != nil {
		return direction{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return direction{}, err
	}
	d := direction{seal: aead}
	copy(d.nonce[:], one(iv))
	return d, nil
}

// Expect reads until a message of this number, skipping what may always come; a disconnect or any other message is an error.
func (c *Client) Expect(number byte) ([]byte, error) {
	for {
		packet, err := c.Read()
		if err != nil {
			return nil, err
		}
		switch packet[0] {
		case number:
			return packet, nil
		case msgIgnore, msgDebug, msgExtInfo:
		case MsgDisconnect:
			return nil, disconnect(packet)
		default:
			return nil, fmt.Errorf("message %d where %d was expected", packet[0], number)
		}
	}
}

// Disconnect is the server's goodbye.
type Disconnect struct {
	Code    uint32
	Message string
}

func (d *Disconnect) Error() string { return fmt.Sprintf("disconnected: %d %q", d.Code, d.Message) }

func disconnect(packet []byte) error {
	if len(packet) < 9 {
		return errors.New("disconnected")
	}
	d := &Disconnect{Code: binary.BigEndian.Uint32(packet[1:])}
	if n := binary.BigEndian.Uint32(packet[5:]); int64(n) <= int64(len(packet)-9) {
		d.Message = string(packet[9 : 9+n])
	}
	return d
}
