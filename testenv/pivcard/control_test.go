package pivcard

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// held is a card with a control socket, in a reader.
func held(t *testing.T) (c client, socket string, conns chan net.Conn) {
	t.Helper()
	c = newCard(t, fw574)
	slot, conns := slotIn(t, c.card, true)
	dir, err := os.MkdirTemp("", "pivcard-") // t.TempDir's paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "control")
	l, err := ListenControl(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&Control{Card: c.card, Slot: slot}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, socket, conns
}

func TestControl(t *testing.T) {
	c, socket, conns := held(t)
	(<-conns).Close() // a reader that is not quiet
	conn := <-conns
	c.must(0xA4, 4, 0, aidPIV) // out of the reader it lost its power
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	ask := func(r Request) Reply {
		t.Helper()
		reply, err := Ask(t.Context(), socket, r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		return reply
	}
	if got := ask(Request{Do: "show"}); got.Card.Serial != c.card.Serial() || got.Card.PINLeft != 3 || got.Card.Management != "aes192, touch never" || got.Card.Slots["f9"].Algorithm != "rsa2048" {
		t.Errorf("show: got %+v", got.Card)
	}
	got := ask(Request{Do: "generate", Key: &KeyPlan{Slot: "9a", Algorithm: "p384", PIN: "never", Touch: "always"}})
	if k := got.Card.Slots["9a"]; k.Algorithm != "p384" || k.PIN != "never" || k.Touch != "always" || k.Imported || k.Public == "" {
		t.Errorf("generate: got %+v", k)
	}
	signed := make(chan Status, 1)
	sign := func() {
		go func() {
			_, sw := c.sign(0x14, 0x9A, make([]byte, 48))
			signed <- sw
		}()
	}
	sign()
	if got := ask(Request{Do: "touch", Wait: true}); got.Card.Touch.Asked != 1 || <-signed != statusOK {
		t.Errorf("touch: got %+v", got.Card.Touch)
	}
	sign()
	if got := ask(Request{Do: "refuse", Wait: true}); got.Card.Touch.Asked != 2 || <-signed != statusSecurity {
		t.Errorf("refuse: got %+v", got.Card.Touch)
	}
	if got := ask(Request{Do: "mode", Mode: "late", Window: "1ms"}); got.Card.Touch.Mode != TouchLate || got.Card.Touch.Window != "1ms" {
		t.Errorf("mode: got %+v", got.Card.Touch)
	}
	sign()
	if sw := <-signed; sw != statusSecurity {
		t.Errorf("late: got %04x", uint16(sw))
	}
	if got := ask(Request{Do: "show"}).Card.Touch.Touches; got != (Touches{Asked: 3, Given: 1, Refused: 1, Late: 1}) {
		t.Errorf("touches: got %+v", got)
	}
	if got := ask(Request{Do: "pull"}); got.Inside {
		t.Error("pull: the card is in the reader")
	}
	if _, err := readFrame(conn); err == nil {
		t.Error("pull: the reader does not notice")
	}
	if got := ask(Request{Do: "insert"}); !got.Inside {
		t.Error("insert: the card is not in the reader")
	}
	(<-conns).Close()
	text := pemKey(t)
	if got := ask(Request{Do: "import", Key: &KeyPlan{Slot: "9c"}, PEM: text}); !got.Card.Slots["9c"].Imported || got.Card.Slots["9c"].PIN != "always" {
		t.Errorf("import: got %+v", got.Card.Slots["9c"])
	}
	if got := ask(Request{Do: "faults", Faults: &Faults{Touch: "cached"}}); got.Card.Faults.Touch != "cached" {
		t.Errorf("faults: got %+v", got.Card.Faults)
	}
	if got := ask(Request{Do: "faults"}); got.Card.Faults.Touch != "" {
		t.Errorf("no faults: got %+v", got.Card.Faults)
	}
	if got := ask(Request{Do: "firmware", Firmware: "5.2.7"}); got.Card.Firmware != fw527 {
		t.Errorf("firmware: got %s", got.Card.Firmware)
	}
	file := filepath.Join(t.TempDir(), "issuer")
	if err := issuer(t).Save(file); err != nil {
		t.Fatal(err)
	}
	c.must(0xA4, 4, 0, aidPIV)
	ask(Request{Do: "replace", Issuer: file, Chain: ChainFIDO})
	if err := c.device().CheckSignatureFrom(issuer(t).FIDO.Certificate); err != nil {
		t.Errorf("replace: %v", err)
	}
}

// pemKey is a P-256 key as a file.
func pemKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// A request that is none names what is wrong, and the connection goes on.
func TestControlRefuses(t *testing.T) {
	c, socket, _ := held(t)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for line, want := range map[string]string{
		``:                              "reading a request",
		`x`:                             "reading a request",
		`{"do":"show"} {}`:              "more than one object",
		`{"do":"show","serial":5}`:      "unknown field",
		`{"do":"explode"}`:              `no request \"explode\"`,
		`{"do":"touch"}`:                ErrNotAsked.Error(),
		`{"do":"refuse"}`:               ErrNotAsked.Error(),
		`{"do":"mode","mode":"often"}`:  `touch mode \"often\"`,
		`{"do":"mode","window":"1h"}`:   "touch window 1h0m0s",
		`{"do":"mode","window":"soon"}`: "invalid duration",
		`{"do":"generate"}`:             "generate wants a key",
		`{"do":"generate","key":{"slot":"9a","algorithm":"dsa"}}`:                                `algorithm \"dsa\"`,
		`{"do":"generate","key":{"slot":"9b","algorithm":"p256"}}`:                               `slot \"9b\"`,
		`{"do":"generate","key":{"slot":"9a","algorithm":"p256","pin":"x"}}`:                     `policy \"x\"`,
		`{"do":"generate","key":{"slot":"9a","algorithm":"p256","touch":"seldom"}}`:              `policy \"seldom\"`,
		`{"do":"import","key":{"slot":"9a"}}`:                                                    "import wants a slot and a PEM file",
		`{"do":"import","key":{"slot":"9a"},"pem":"-----BEGIN A-----\nAAAA\n-----END A-----\n"}`: "asn1",
		`{"do":"faults","faults":{"without":["x"]}}`:                                             `extension \"x\"`,
		`{"do":"firmware","firmware":"1.0.0"}`:                                                   "want a version",
		`{"do":"replace","issuer":"/none"}`:                                                      "loading test issuer",
	} {
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := answers.ReadString('\n')
		if err != nil || !strings.Contains(answer, want) || !strings.HasPrefix(answer, `{"error":`) {
			t.Errorf("%s: got %s, %v, want an error with %s", line, answer, err, want)
		}
	}
	if _, err := Ask(t.Context(), socket, Request{Do: "touch"}); err == nil || err.Error() != ErrNotAsked.Error() {
		t.Errorf("got %v", err)
	}
	if got := c.card.Show(); len(got.Slots) != 1 {
		t.Errorf("what was refused was done: %+v", got.Slots)
	}
	if _, err := io.WriteString(conn, strings.Repeat("x", maxControlLine+1)); err == nil {
		if _, err := answers.ReadString('\n'); err == nil {
			t.Error("a line too long: got an answer")
		}
	}
	if _, err := Ask(t.Context(), socket+".none", Request{Do: "show"}); err == nil {
		t.Error("no socket: got no error")
	}
}

func TestControlWithoutReader(t *testing.T) {
	k := &Control{Card: newCard(t, fw574).card}
	if got := k.line(t.Context(), []byte(`{"do":"pull"}`)); got.Error != "this card is in no reader" {
		t.Errorf("got %+v", got)
	}
}

// There is room for so many clients; one more waits until one leaves.
func TestControlClients(t *testing.T) {
	c, socket, _ := held(t)
	ask := func(conn net.Conn, line string) string {
		t.Helper()
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	var conns []net.Conn
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for range maxControlClients {
		conn := dial()
		ask(conn, `{"do":"show"}`)
		conns = append(conns, conn)
	}
	late := dial()
	if _, err := io.WriteString(late, `{"do":"mode","mode":"auto"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ask(conns[1], `{"do":"show"}`)
	}
	if got := c.card.Touch.State().Mode; got != TouchManual {
		t.Errorf("one client more: its request was done, mode %s", got)
	}
	conns[0].Close()
	if _, err := bufio.NewReader(late).ReadString('\n'); err != nil {
		t.Error(err)
	}
	if got := c.card.Touch.State().Mode; got != TouchAuto {
		t.Errorf("after one left: mode %s", got)
	}
}

func TestListenControl(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenControl(file); err == nil || !strings.Contains(err.Error(), "a file that is no socket") {
		t.Errorf("got %v", err)
	}
	_, socket, _ := held(t)
	if _, err := ListenControl(socket); err == nil || !strings.Contains(err.Error(), "another card answers there") {
		t.Errorf("got %v", err)
	}
	stale := filepath.Join(filepath.Dir(socket), "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = ListenControl(stale); err != nil {
		t.Fatal(err)
	}
	l.Close()
}
