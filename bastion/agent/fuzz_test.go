package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// FuzzSessionBind: what is taken is whole, is signed by its host, and comes again to the same.
func FuzzSessionBind(f *testing.F) {
	host := newHostKey(f)
	certificate := certify(f, host.PublicKey(), newHostKey(f), "a")
	good := bindContents(f, host.PublicKey(), host, sessionID(1), true)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(bindContents(f, certificate, host, sessionID(1), false))
	f.Add(bindContents(f, newSigner(f).PublicKey(), host, sessionID(2), false))
	f.Fuzz(func(t *testing.T, contents []byte) {
		b, refusal := parseBind(contents)
		if refusal != nil {
			if b != nil || refusal.Reason != ReasonBindMalformed && refusal.Reason != ReasonBindSignature {
				t.Fatalf("%v beside %v", b, refusal)
			}
			return
		}
		flag := byte(0)
		if b.Forwarded {
			flag = 1
		}
		again := appendString(appendString([]byte(nil), b.HostKey.Marshal()), b.SessionID)
		if !bytes.HasPrefix(contents, again) || contents[len(contents)-1] != flag || len(b.SessionID) < minSessionID || len(b.SessionID) > maxSessionID {
			t.Fatalf("%x is not as it came", contents)
		}
	})
}

// FuzzUserauthRequest: what is taken for a login or a file writes itself again, byte for byte; nothing is both; what is shown is one printable line.
func FuzzUserauthRequest(f *testing.F) {
	key, host := newSigner(f).PublicKey(), newHostKey(f).PublicKey()
	f.Add(loginData(sessionID(1), "anna", key, nil))
	f.Add(loginData(sessionID(1), "anna\x00", key, host))
	f.Add(fileData("git"))
	f.Add(fileData("\xff\n"))
	f.Add([]byte(sshsigMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, refusal := rules{}.judge(key, data, nil, func(k ssh.PublicKey) Host { return Host{Key: k} })
		if shownText := p.String(); strings.ContainsFunc(shownText, func(r rune) bool { return r < ' ' || r > '~' && r != '…' }) {
			t.Fatalf("shown: %q", shownText)
		}
		login, err := parseLogin(data)
		_, isFile, fileErr := parseFile(data)
		switch {
		case err == nil && isFile:
			t.Fatal("a login and a file")
		case err == nil:
			if again := loginData(login.SessionID, login.User, login.Key, login.HostKey); !strings.HasPrefix(login.Key.Type(), "ssh-rsa") && !bytes.Equal(again, data) {
				t.Fatalf("%x comes again as %x", data, again)
			}
		case !(isFile && fileErr == nil) && refusal == nil:
			t.Fatal("what is neither is not refused")
		}
	})
}

// FuzzAgentMessage: each message has one bounded answer, and the agent answers the next.
func FuzzAgentMessage(f *testing.F) {
	cards := &fakeCards{}
	card := cards.plug(f, 1)
	a := New(Config{Cards: cards, Log: discard()})
	host := newHostKey(f)
	sign := appendString(appendString([]byte{msgSignRequest}, card.public().Marshal()), fileData("git"))
	f.Add([]byte{msgRequestIdentities})
	f.Add(append(sign, 0, 0, 0, 0))
	f.Add(append(appendString([]byte{msgExtension}, extensionBind), bindContents(f, host.PublicKey(), host, sessionID(1), false)...))
	f.Add(appendString([]byte{msgExtension}, extensionWhy))
	for kind := range 30 {
		f.Add([]byte{byte(kind), 0, 0, 0, 1, 0})
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		c := &client{agent: a}
		for _, m := range [][]byte{message, message, {msgRequestIdentities}} {
			reply := c.handle(context.Background(), m)
			if len(reply) == 0 || len(reply) > 2*maxMessage {
				t.Fatalf("an answer of %d bytes", len(reply))
			}
			if c.last != nil && c.last.Reason == ReasonInternal {
				t.Fatal(c.last)
			}
		}
		if c.last != nil {
			t.Fatalf("after %x nothing goes: %v", message, c.last)
		}
		// The same through the framing, in pieces.
		framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
		got, err := readMessage(&pieces{framed}, func() error { return nil })
		if len(message) <= maxMessage && (err != nil || !bytes.Equal(got, message)) {
			t.Fatalf("framing: %x, %v", got, err)
		}
	})
}

// pieces reads a byte at a time.
type pieces struct{ data []byte }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, errNobody
	}
	n := copy(b[:1], p.data)
	p.data = p.data[n:]
	return n, nil
}

// FuzzAssuan: whatever a pinentry says, the conversation ends, and what it gives is bounded; escapes come again to the same.
func FuzzAssuan(f *testing.F) {
	f.Add("OK\nOK\nOK\nOK\nOK\nOK\nD 123456\nOK\n")
	f.Add("OK\nOK\nOK\nOK\nOK\nOK\nERR 83886179 Operation cancelled <Pinentry>\n")
	f.Add("OK\n# x\nS y\r\nOK\nOK\nERR 1\nD %25%0A\nOK\n")
	f.Add("ERR x\n")
	f.Add(strings.Repeat("S x\n", 100))
	f.Add("D " + strings.Repeat("1", 2000))
	f.Fuzz(func(t *testing.T, said string) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		var sent bytes.Buffer
		pin, err := Pinentry{Program: "x"}.converse(ctx, strings.NewReader(said), &sent, question)
		if len(pin) > maxPIN || err != nil && len(pin) > 0 {
			t.Fatalf("got %q, %v", pin, err)
		}
		for line := range strings.Lines(sent.String()) {
			if len(line) > assuanLine || !strings.HasSuffix(line, "\n") {
				t.Fatalf("sent a line of %d bytes", len(line))
			}
		}
		escaped, _ := escapeAssuan(said, 3*len(said))
		again, err := appendUnescaped(make([]byte, 0, len(said)), []byte(escaped))
		if err != nil || string(again) != said {
			t.Fatalf("%q comes again as %q, %v", said, again, err)
		}
	})
}
