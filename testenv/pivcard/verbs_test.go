package pivcard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/command"
)

var testProgram = command.Program{Name: "testenv", Summary: "tests", Verbs: Verbs()}

// run is one call of the program.
func run(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, said bytes.Buffer
	code = testProgram.Main(ctx, args, strings.NewReader(""), &out, &said)
	return code, out.String(), said.String()
}

// serving runs pivcard serve with a reader of the test's until the test ends or stop is called, and returns when it says that it is ready.
func serving(t *testing.T, dir string, args ...string) (ready string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // a reader that says nothing
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, conn)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	code := make(chan int, 1)
	go func() {
		args := append([]string{"pivcard", "serve", "--card", dir + "/card", "--issuer", dir + "/issuer", "--reader", l.Addr().String(), "--control", dir + "/control"}, args...)
		code <- testProgram.Main(ctx, args, strings.NewReader(""), io.Discard, write)
		write.Close()
	}()
	ready, err = bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatalf("serve ended: %d, %v", <-code, err)
	}
	go io.Copy(io.Discard, read)
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if got := <-code; got != command.OK {
			t.Errorf("serve: exit code %d", got)
		}
		l.Close()
	}
	t.Cleanup(stop)
	return ready, stop
}

func TestVerbs(t *testing.T) {
	dir, err := os.MkdirTemp("", "pivcard-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := issuer(t).Save(dir + "/issuer"); err != nil {
		t.Fatal(err)
	}
	ready, stop := serving(t, dir, "--serial", "2147000001", "--firmware", "5.4.3", "--touch", "auto", "--form-factor", "5")
	if want := "pivcard: software card 2147000001, firmware 5.4.3, ready at " + dir + "/control\n"; ready != want {
		t.Errorf("got %q, want %q", ready, want)
	}
	verb := func(words ...string) string {
		t.Helper()
		code, out, said := run(t.Context(), append([]string{"pivcard", words[0], "--control", dir + "/control"}, words[1:]...)...)
		if code != command.OK || said != "" {
			t.Errorf("%q: exit code %d, %s", words, code, said)
		}
		return out
	}
	verb("generate", "--pin", "never", "--touch", "always", "9a", "p256")
	key := filepath.Join(dir, "key.pem")
	writeKey(t, key)
	verb("import", "9c", key)
	verb("mode", "--window", "1s", "late")
	verb("faults", "--without", "serial,policy", "--touch", "cached", "--serial", "7")
	verb("pull")
	shown := verb("show")
	for _, want := range []string{
		"serial      2147000001 (software)\n", "in reader   false \n", "tries left  PIN 3, PUK 3\n", "touch       late, window 1s, waiting false\n",
		"touches     asked 0, given 0, refused 0, late 0, pulled 0, cached 0\n",
		"slot 9a     p256, PIN never, touch always, generated\n", "slot 9c     p256, PIN always, touch never, imported\n",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("show: got\n%s, want %q in it", shown, want)
		}
	}
	verb("insert")
	verb("firmware", "5.7.4")
	verb("replace", "--chain", "fido", dir+"/issuer")
	var reply Reply
	if err := json.Unmarshal([]byte(verb("show", "-o", "json")), &reply); err != nil {
		t.Fatal(err)
	}
	if !reply.Inside || reply.Card.Firmware != fw574 || reply.Card.FormFactor != 5 || len(reply.Card.Faults.Without) != 2 || reply.Card.Faults.Serial != 7 {
		t.Errorf("show: got %+v", reply.Card)
	}
	for _, what := range []string{"touch", "refuse"} {
		if code, _, said := run(t.Context(), "pivcard", what, "--control", dir+"/control"); code != command.Failed || !strings.Contains(said, "does not ask for a touch") {
			t.Errorf("%s: got %d, %s", what, code, said)
		}
	}
	stop()
	if code, _, said := run(t.Context(), "pivcard", "show", "--control", dir+"/control"); code != command.Failed || !strings.Contains(said, "hint: testenv pivcard serve") {
		t.Errorf("nobody there: got %d, %s", code, said)
	}
	ready, _ = serving(t, dir, "--serial", "2147000009") // about a new card, which this is not
	if !strings.Contains(ready, "software card 2147000001, firmware 5.7.4") {
		t.Errorf("again: got %q", ready)
	}
	if again := verb("show"); !strings.Contains(again, "slot 9a     p256") || !strings.Contains(again, "in reader   true") {
		t.Errorf("again: got\n%s", again)
	}
}

func writeKey(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(pemKey(t)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestIssuerVerb(t *testing.T) {
	path := filepath.Join(t.TempDir(), "issuer")
	if err := issuer(t).Save(path); err != nil {
		t.Fatal(err)
	}
	_, table, _ := run(t.Context(), "pivcard", "issuer", path)
	if strings.Count(table, "[[hardware.test_issuer]]") != 3 || !strings.Contains(table, `applet = "fido2"`) || !strings.Contains(table, issuer(t).PIV.Base64()) {
		t.Errorf("got %s", table)
	}
	_, out, _ := run(t.Context(), "pivcard", "issuer", "-o", "json", path)
	var all []DeviceIssuer
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 3 || all[0].Applet != "piv" || all[0].Certificate == "" || all[0].Name == "" {
		t.Errorf("got %s, %v", out, err)
	}
	if _, out, _ = run(t.Context(), "pivcard", "issuer", "-o", "pem", path); strings.Count(out, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("got %s", out)
	}
}

func TestVerbsRefuse(t *testing.T) {
	dir := t.TempDir()
	if err := issuer(t).Save(dir + "/issuer"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/rubbish", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := "pivcard serve --card " + dir + "/card --issuer " + dir + "/issuer --reader 127.0.0.1:1 --control " + dir + "/control "
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"pivcard":                                 {command.Usage, "needs another word"},
		"pivcard issuer":                          {command.Usage, "want one file"},
		"pivcard issuer " + dir + "/rubbish":      {command.Failed, "not of kind mayfly-pivcard-issuer/1"},
		"pivcard serve":                           {command.Usage, "want --card, --issuer, --reader and --control"},
		serve + "--serial 5":                      {command.Failed, "serial 5: want one from"},
		serve + "--firmware 9.9.9":                {command.Usage, "want a version"},
		serve + "--chain u2f":                     {command.Failed, `chain "u2f"`},
		serve + "--form-factor 256":               {command.Usage, "numbers in range"},
		serve + "--touch sometimes":               {command.Usage, `touch mode "sometimes"`},
		serve + "--card " + dir + "/rubbish":      {command.Failed, `kind "": want "mayfly-pivcard/1"`},
		"pivcard show":                            {command.Usage, "want --control SOCKET"},
		"pivcard show --control x more":           {command.Usage, "0 words"},
		"pivcard show --control x -o xml":         {command.Usage, "-o table or json"},
		"pivcard mode --control x":                {command.Usage, "1 words"},
		"pivcard generate --control x 9a":         {command.Usage, "2 words"},
		"pivcard import --control x 9a /none.pem": {command.Failed, "no such file"},
	} {
		code, _, said := run(t.Context(), strings.Fields(args)...)
		if code != want.code || !strings.Contains(said, want.text) {
			t.Errorf("%s: got %d, %s, want %d and %q", args, code, said, want.code, want.text)
		}
	}
	for _, v := range Verbs() {
		code, out, said := run(t.Context(), append(strings.Fields(v.Name), "--help")...)
		if code != command.OK || said != "" || !strings.Contains(out, "software") || !strings.Contains(out, v.Name) {
			t.Errorf("%s --help: got %d, %s%s", v.Name, code, out, said)
		}
	}
}
