package bastion

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/testenv/rawssh"
	"mayfly/testenv/softkey"
)

// One test for each known flaw of the SSH library's server, or of who uses it wrongly, against a live bastion. docs/testing.md has the table. A
// flaw of parts that no bastion has in it is in TestCVEPartsThatAreNotThere.

// raw is a client of raw packets after the key exchange.
func (f *fixture) raw(offer rawssh.Offer) *rawssh.Client {
	f.t.Helper()
	c, err := rawssh.Dial(f.t.Context(), f.address, offer)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	if err := c.Conn().SetDeadline(time.Now().Add(patience)); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// rawLogin is raw, logged in as anna.
func (f *fixture) rawLogin() *rawssh.Client {
	f.t.Helper()
	c := f.raw(rawssh.Offer{})
	if err := c.Login("anna", f.anna.Signer(softkey.Always)); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// openRaw opens a channel to se-1 with this window and returns the bastion's number for it.
func (f *fixture) openRaw(c *rawssh.Client, mine, window uint32) uint32 {
	f.t.Helper()
	if err := c.Write(channelOpen("direct-tcpip", mine, window, ssh.Marshal(struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{"se-1", 22, "127.0.0.1", 1}))); err != nil {
		f.t.Fatal(err)
	}
	packet, err := c.Expect(91)
	if err != nil {
		f.t.Fatal(err)
	}
	return binary.BigEndian.Uint32(packet[5:])
}

func channelOpen(kind string, mine, window uint32, rest []byte) []byte {
	return append(ssh.Marshal(struct {
		Kind              string `sshtype:"90"`
		Mine, Window, Max uint32
	}{kind, mine, window, 32 << 10}), rest...)
}

// number is a message and a channel's number.
func number(message byte, channel uint32, rest ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{message}, channel), rest...)
}

// refusedFor waits for the closing record of a login that must not have been let in.
func (f *fixture) refusedFor(want policies.Reason) closingRecord {
	f.t.Helper()
	r := f.closing()
	if r.Outcome != "refused" || r.Reason != want {
		f.t.Errorf("got %s, %s (%s), want refused, %s", r.Outcome, r.Reason, r.Detail, want)
	}
	return r
}

// works sees another engineer log in and get an answer from a target.
func (f *fixture) works() {
	f.t.Helper()
	client, err := f.client("bert", f.bert.Signer(softkey.Always))
	if err != nil {
		f.t.Fatalf("another engineer: %v", err)
	}
	defer client.Close()
	f.answers(client)
}

// answers has bytes go to bert's target and back.
func (f *fixture) answers(client *ssh.Client) {
	f.t.Helper()
	conn, err := client.Dial("tcp", "nl-1:22")
	if err != nil {
		f.t.Fatalf("another engineer: %v", err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "still here"); err != nil {
		f.t.Fatalf("another engineer: %v", err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
		f.t.Fatalf("another engineer: %v", err)
	}
}

// attacked is a bastion with both engineers' targets.
func attacked(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	f.target("10.77.0.13:22", echo)
	return f
}

// TestCVE2023_48795 (Terrapin): there is no cipher that it works on, the strict key exchange is offered, and who takes it may put nothing between.
func TestCVE2023_48795(t *testing.T) {
	for _, level := range []policies.Level{policies.PQOnly, policies.PQPreferred} {
		a, err := policies.SSH{Level: level}.Algorithms()
		if err != nil {
			t.Fatal(err)
		}
		for _, cipher := range a.Ciphers {
			if !strings.Contains(cipher, "-gcm@") {
				t.Errorf("%s offers %s", level, cipher)
			}
		}
	}
	f := attacked(t)
	f.start()
	c := f.raw(rawssh.Offer{})
	if !bytes.Contains(c.Offered, []byte("kex-strict-s-v00@openssh.com")) {
		t.Error("the strict key exchange is not offered")
	}
	c.Close()
	f.refusedFor(leftEarly)
	strict := rawssh.Offer{KeyExchanges: []string{ssh.KeyExchangeCurve25519, "kex-strict-c-v00@openssh.com"}, Between: []byte{2, 0, 0, 0, 0}}
	if c, err := rawssh.Dial(t.Context(), f.address, strict); err == nil {
		c.Close()
		t.Error("a packet within a strict key exchange was taken")
	}
	f.refusedFor(protocolError)
}

// TestCVE2024_45337 asks about one engineer's key and signs by another's: whose signature it is decides, in the record as well.
func TestCVE2024_45337(t *testing.T) {
	f := attacked(t)
	f.start()
	c := f.raw(rawssh.Offer{})
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	anna, bert := f.anna.Public(), f.bert.Public()
	for _, key := range []ssh.PublicKey{bert, anna} { // the last that was asked about is hers
		if reply, err := c.Ask("anna", key.Type(), key.Marshal()); err != nil || !reply.Usable {
			t.Fatalf("asking: %+v, %v", reply, err)
		}
	}
	if reply, err := c.Sign("anna", bert, f.bert.Signer(softkey.Always)); err != nil || reply.Success {
		t.Fatalf("signed by bert's key: %+v, %v", reply, err)
	}
	c.Close()
	if r := f.refusedFor(policies.KeyUnknown); r.Key != ssh.FingerprintSHA256(bert) || r.Evidence != "" {
		t.Errorf("record: %+v", r)
	}
	// The other way round: bert's key is asked about last, and anna signs. She is who is recorded.
	c = f.raw(rawssh.Offer{})
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []ssh.PublicKey{anna, bert} {
		if reply, err := c.Ask("anna", key.Type(), key.Marshal()); err != nil || !reply.Usable {
			t.Fatalf("asking: %+v, %v", reply, err)
		}
	}
	if reply, err := c.Sign("anna", anna, f.anna.Signer(softkey.Always)); err != nil || !reply.Success {
		t.Fatalf("signed by her own: %+v, %v", reply, err)
	}
	c.Close()
	if r := f.closing(); r.Outcome != "accepted" || r.User != "anna" || r.Key != ssh.FingerprintSHA256(anna) || r.ClaimedKey != "" {
		t.Errorf("record: %+v", r)
	}
}

// TestCVE2024_7594 has certificates that name nobody let nobody in, and CVE-2026-35414: a comma does not make two names of one.
func TestCVE2024_7594(t *testing.T) {
	f := attacked(t)
	f.authority()
	f.writeBundle(2)
	f.start()
	signer, err := ssh.ParsePrivateKey(f.read("user_ca"))
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{nil, {""}, {"bert,anna"}} {
		c := &ssh.Certificate{Key: f.anna.Public(), CertType: ssh.UserCert, ValidPrincipals: names, ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()),
			ValidBefore: uint64(time.Now().Add(time.Hour).Unix()), Permissions: ssh.Permissions{CriticalOptions: map[string]string{"source-address": "127.0.0.1/32"}}}
		if err := c.SignCert(constant{}, signer); err != nil {
			t.Fatal(err)
		}
		certified, err := ssh.NewCertSigner(c, f.anna.Signer(softkey.Always))
		if err != nil {
			t.Fatal(err)
		}
		if client, err := f.client("anna", certified); err == nil {
			client.Close()
			t.Errorf("%q: logged in", names)
		}
		f.refusedFor(policies.CertificatePrincipal)
		f.forgive()
	}
}

// forgive takes the penalty of this test's source away.
func (f *fixture) forgive() { f.server.penalties.clear(network(loopback)) }

// TestCVE2025_22869 begins new keys in the middle of a session, never ends it, and has the target send without end: the bastion stops reading.
func TestCVE2025_22869(t *testing.T) {
	f := attacked(t)
	const enough = 24 << 20 // what kernels buffer on the way, and a bastion that does not stop would pass at once
	stopped := make(chan int, 1)
	begin := make(chan struct{})
	f.target("10.77.0.12:22", echo)
	f.target("10.77.0.11:22", func(conn *net.TCPConn) {
		<-begin
		conn.SetWriteDeadline(time.Now().Add(3 * time.Second))
		n, block := 0, make([]byte, 64<<10)
		for n < 8*enough {
			m, err := conn.Write(block)
			n += m
			if err != nil {
				break
			}
		}
		stopped <- n
	})
	f.start()
	c := f.rawLogin()
	f.openRaw(c, 0, 1<<31)
	if err := c.Write(rawssh.KeyInit()); err != nil {
		t.Fatal(err)
	}
	close(begin)
	if n := <-stopped; n > enough {
		t.Errorf("the bastion took %d bytes of the target, want %d at most", n, enough)
	}
	f.works()
	c.Close()
	for r := f.closing(); r.User != "anna"; r = f.closing() {
	}
}

// TestCVE2025_58181 claims four thousand million mechanisms in a request of a method that is not offered.
func TestCVE2025_58181(t *testing.T) {
	f := attacked(t)
	f.start()
	c := f.raw(rawssh.Offer{})
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	before := allocated()
	if reply, err := c.Authenticate("anna", "gssapi-with-mic", []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 6}); err == nil && reply.Success {
		t.Error("let in")
	}
	if n := allocated() - before; n > 4<<20 {
		t.Errorf("%d bytes allocated", n)
	}
	c.Close()
	f.refusedFor(methodRefused)
}

// allocated is what this process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// held is what this process holds after a collection.
func held() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestCVE2026_39827 has many channels refused: none stays behind.
func TestCVE2026_39827(t *testing.T) {
	f := attacked(t)
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	refuse := func(n int) {
		for range n {
			if _, _, err := client.OpenChannel("session", nil); err == nil {
				t.Fatal("opened")
			}
		}
	}
	refuse(500)
	before := held()
	const channels = 5000
	refuse(channels)
	if after := held(); after > before+channels*400 { // both ends are in this process; a channel with its window is thousands
		t.Errorf("%d bytes before, %d after", before, after)
	}
	f.hangUp(client)
	if r := f.closing(); r.MoreRefused != channels+500-maxRefused || r.Refused[0].Reason != channelRefused {
		t.Errorf("record: %d and %d more refused", len(r.Refused), r.MoreRefused)
	}
}

// TestCVE2026_39828: no step lets anybody in by half, so no restriction can be lost between two.
func TestCVE2026_39828(t *testing.T) {
	f := attacked(t)
	f.start()
	c := f.raw(rawssh.Offer{})
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() (rawssh.Reply, error){
		"none":      func() (rawssh.Reply, error) { return c.None("anna") },
		"password":  func() (rawssh.Reply, error) { return c.Password("anna", "x") },
		"wrong key": func() (rawssh.Reply, error) { return c.Sign("anna", f.bert.Public(), f.bert.Signer(softkey.Always)) },
	} {
		if reply, err := try(); err != nil || reply.Partial || reply.Success || strings.Join(reply.Methods, " ") != "publickey" {
			t.Errorf("%s: %+v, %v", name, reply, err)
		}
	}
	c.Close()
	f.refusedFor(policies.KeyUnknown)
}

// TestCVE2026_39829 offers RSA keys whose size is what checking a signature costs.
func TestCVE2026_39829(t *testing.T) {
	f := attacked(t)
	f.start()
	c := f.raw(rawssh.Offer{})
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	n := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 65536), big.NewInt(1))
	blob := ssh.Marshal(struct {
		Name string
		E, N *big.Int
	}{"ssh-rsa", big.NewInt(65537), n})
	if reply, err := c.Ask("anna", "rsa-sha2-256", blob); err != nil || reply.Usable || reply.Success {
		t.Errorf("a key of 65536 bits: %+v, %v", reply, err)
	}
	c.Close()
	f.refusedFor(keyMalformed)
}

// TestCVE2026_39830 answers questions that nobody has asked, globally and on a channel.
func TestCVE2026_39830(t *testing.T) {
	f := attacked(t)
	f.start()
	c := f.rawLogin()
	channel := f.openRaw(c, 7, 1<<20)
	for i := range 2000 {
		var err error
		switch i % 4 {
		case 0:
			err = c.Write([]byte{81})
		case 1:
			err = c.Write([]byte{82})
		case 2:
			err = c.Write(number(99, channel))
		default:
			err = c.Write(number(100, channel))
		}
		if err != nil {
			break // it was shown the door
		}
	}
	f.works()
	c.Close()
	f.over("anna")
}

// over waits for the closing record of a session of this user.
func (f *fixture) over(user string) closingRecord {
	f.t.Helper()
	for {
		if r := f.closing(); r.User == user {
			if r.Outcome != "accepted" {
				f.t.Errorf("record: %+v", r)
			}
			return r
		}
	}
}

// TestCVE2026_39831 signs without a touch.
func TestCVE2026_39831(t *testing.T) {
	f := attacked(t)
	f.start()
	c := f.raw(rawssh.Offer{})
	if err := c.Login("anna", f.anna.Signer(softkey.Never)); err == nil {
		t.Error("logged in")
	}
	if r := f.refusedFor(keyNoTouch); r.Key != "" || r.ClaimedKey != ssh.FingerprintSHA256(f.anna.Public()) {
		t.Errorf("record: %+v", r)
	}
}

// TestCVE2026_39834 gives windows of 4 GiB and more, in one step and in several: bytes go on, or the connection ends.
func TestCVE2026_39834(t *testing.T) {
	f := attacked(t)
	f.start()
	c := f.rawLogin()
	channel := f.openRaw(c, 0, 0xffffffff)
	if err := c.Write(number(94, channel, 0, 0, 0, 3, 'a', 'b', 'c')); err != nil {
		t.Fatal(err)
	}
	if packet, err := c.Expect(94); err != nil || !bytes.HasSuffix(packet, []byte("abc")) {
		t.Fatalf("got %q, %v", packet, err)
	}
	if err := c.Write(number(93, channel, 0xff, 0xff, 0xff, 0xff)); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, c.Conn()) // a window beyond 4 GiB ends it
	if r := f.over("anna"); r.Up != 3 || r.Down != 3 {
		t.Errorf("record: %+v", r)
	}
	f.works()
}

// TestCVE2026_39835 brings a certificate where nobody may sign one.
func TestCVE2026_39835(t *testing.T) {
	f := attacked(t)
	f.start()
	c := &ssh.Certificate{Key: f.anna.Public(), CertType: ssh.UserCert, ValidPrincipals: []string{"anna"}, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(constant{}, f.hostCA); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(c, f.anna.Signer(softkey.Always))
	if err != nil {
		t.Fatal(err)
	}
	if client, err := f.client("anna", signer); err == nil {
		client.Close()
		t.Error("logged in")
	}
	f.refusedFor(policies.CertificateAuthorityUnknown)
}

// TestCVE2025_49825 brings a certificate that is signed by a certificate in the place of a CA.
func TestCVE2025_49825(t *testing.T) {
	f := attacked(t)
	f.authority()
	f.writeBundle(2)
	f.start()
	inner := f.certify(f.anna.Signer(softkey.Always), goodCertificate...).PublicKey().(*ssh.Certificate)
	outer := *inner
	outer.SignatureKey = inner
	c := f.raw(rawssh.Offer{})
	if err := c.Service(); err != nil {
		t.Fatal(err)
	}
	if reply, err := c.Ask("anna", outer.Type(), outer.Marshal()); err != nil || reply.Usable || reply.Success {
		t.Errorf("got %+v, %v", reply, err)
	}
	c.Close()
	f.refusedFor(keyMalformed)
}

// TestCVE2026_46595 and CVE-2026-56854: a certificate for another source opens nothing, whichever callback lets in.
func TestCVE2026_46595(t *testing.T) {
	f := attacked(t)
	f.authority()
	f.writeBundle(2)
	f.start()
	for _, source := range []string{"192.0.2.0/24", "127.0.0.2/32"} {
		if client, err := f.client("anna", f.certify(f.anna.Signer(softkey.Always), changed("-O", "", "-O", "source-address="+source)...)); err == nil {
			client.Close()
			t.Errorf("%s: logged in", source)
		}
		f.refusedFor(policies.CertificateSource)
		f.forgive()
	}
}

// TestCVE2026_46597 says that padding is longer than its packet.
func TestCVE2026_46597(t *testing.T) {
	f := attacked(t)
	f.start()
	for _, padding := range []byte{255, 1, 200} {
		c := f.raw(rawssh.Offer{})
		if err := c.WritePadded([]byte{5, 0, 0, 0, 0}, padding); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, c.Conn())
		if r := f.closing(); r.Outcome != "refused" || r.Reason != protocolError && r.Reason != leftEarly {
			t.Errorf("padding %d: %s, %s", padding, r.Outcome, r.Reason)
		}
		f.forgive()
	}
	f.works()
}

// TestCVE2026_56855 and CVE-2026-78662: messages of channels that should block whoever reads them, on channels that are open, closed and unknown. The
// connection may end of it; the bastion goes on, and its record is written when the client goes.
func TestCVE2026_56855(t *testing.T) {
	for name, flood := range map[string]func(channel uint32, i int) []byte{
		"requests that want no answer": func(c uint32, _ int) []byte {
			return number(98, c, append(ssh.Marshal(struct{ Name string }{"shell"}), 0)...)
		},
		"requests that want an answer": func(c uint32, _ int) []byte {
			return number(98, c, append(ssh.Marshal(struct{ Name string }{"shell"}), 1)...)
		},
		"answers to openings":   func(c uint32, _ int) []byte { return number(91, c, make([]byte, 12)...) },
		"refusals of openings":  func(c uint32, _ int) []byte { return number(92, c, make([]byte, 12)...) },
		"ends":                  func(c uint32, _ int) []byte { return number(96, c) },
		"closings":              func(c uint32, _ int) []byte { return number(97, c) },
		"channels that are not": func(_ uint32, i int) []byte { return number(94, uint32(i)+100, 0, 0, 0, 1, 'x') },
		"data beyond its window": func(c uint32, _ int) []byte {
			return number(94, c, append([]byte{0, 0, 0x80, 0}, make([]byte, 32<<10)...)...)
		},
		"standard error and odds": func(c uint32, i int) []byte { return number(95, c, 0, 0, 0, byte(i), 0, 0, 0, 1, 'x') },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			silent := make(chan struct{})
			f.target("10.77.0.13:22", echo)
			f.target("10.77.0.11:22", func(*net.TCPConn) { <-silent }) // reads nothing
			defer close(silent)
			f.start()
			c := f.rawLogin()
			channel := f.openRaw(c, 0, 0)
			c.Conn().SetDeadline(time.Now().Add(2 * time.Second))
			for i := range 1500 {
				if err := c.Write(flood(channel, i)); err != nil {
					break
				}
			}
			f.works()
			c.Close()
			f.over("anna")
		})
	}
}

// TestCVEPartsThatAreNotThere: what CVE-2025-47914, CVE-2026-39832, -39833 and -46598 (agent) are about is in no bastion, and what CVE-2026-42508
// (revoked CAs in known_hosts) is about only as the pinned library has it mended.
func TestCVEPartsThatAreNotThere(t *testing.T) {
	data, err := os.ReadFile("../docs/dependencies/bastion.txt")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); !strings.Contains(text, "golang.org/x/crypto/ssh\n") || strings.Contains(text, "golang.org/x/crypto/ssh/agent") {
		t.Error("the bastion has the library's agent in it, or no SSH at all")
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")
