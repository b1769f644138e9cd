package agent

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// buildPinentry builds the pinentry of testdata, once for a test.
func buildPinentry(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "pinentry")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/pinentry")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

var question = PINRequest{Card: "TEST card 1", Purpose: "log in as anna at 100% bastion.lab", Tries: 2, Again: true}

// TestPinentry is each answer of a pinentry.
func TestPinentry(t *testing.T) {
	program := buildPinentry(t)
	for _, tt := range []struct {
		do   string
		pin  string
		err  error
		text string
	}{
		{"give 123456", "123456", nil, ""},
		{"give 1%2\n3", "1%2", nil, ""}, // see below
		{"give ", "", errPINCancelled, "empty"},
		{"cancel", "", errPINCancelled, ""},
		{"timeout", "", errPINTimeout, ""},
		{"die", "", errPINUnavailable, "EOF"},
		{"flood", "", errPINUnavailable, "more than 64 lines"},
		{"long", "", errPINUnavailable, "more than 64 bytes"},
		{"garbage", "", errPINUnavailable, "WHAT"},
		{"inquire", "", errPINUnavailable, "INQUIRE"},
		{"notty", "", errPINUnavailable, "Inappropriate ioctl"},
		{"hang", "", errNobody, ""},
	} {
		name, _, _ := strings.Cut(tt.do, " ")
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			t.Setenv("PINENTRY_LOG", log)
			t.Setenv("PINENTRY_DO", strings.ReplaceAll(tt.do, "\n", "")) // a line holds no line end
			t.Setenv("GPG_TTY", "/dev/pts/x y")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if tt.err == errNobody {
				go func() {
					defer cancel(errNobody)
					for ctx.Err() == nil {
						if data, err := os.ReadFile(log); err == nil && strings.Contains(string(data), "GETPIN") {
							return
						}
						time.Sleep(5 * time.Millisecond)
					}
				}()
			}
			asker := newPINAsker([]PINWay{Pinentry{Program: program}}, patience, discard())
			pin, err := asker.ask(ctx, question)
			want := tt.pin
			if tt.do == "give 1%2\n3" {
				want = "1%23"
			}
			if string(pin) != want || !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("got %q, %v", pin, err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want …%s…", err, tt.text)
			}
			data, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{
				"OPTION ttyname=/dev/pts/x y\n", "SETERROR That PIN was wrong.\n", "SETTIMEOUT ",
				"SETDESC PIN of TEST card 1%0A2 tries left.%0Ato log in as anna at 100%25 bastion.lab\n", "GETPIN\n",
			} {
				if !strings.Contains(string(data), part) {
					t.Errorf("it was not told %q:\n%s", part, data)
				}
			}
			if strings.Contains(string(data), "external-password-cache") {
				t.Error("it was told that it may keep the PIN")
			}
		})
	}
}

var errNobody = errors.New("nobody waits any more")

// TestAskpass is each answer of an askpass program.
func TestAskpass(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		pin          string
		err          error
	}{
		{"a line", "echo 123456", "123456", nil},
		{"no line end", "printf 123456", "123456", nil},
		{"more lines", "printf '123456\\r\\nmore\\n'", "123456", nil},
		{"no", "exit 1", "", errPINCancelled},
		{"a PIN and no", "echo 123456; exit 1", "", errPINCancelled},
		{"empty", "echo", "", errPINCancelled},
		{"too long", "head -c 100000 /dev/zero", "", errPINUnavailable},
		{"hangs", "exec sleep 1000", "", errPINTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "askpass")
			write(t, program, "#!/bin/sh\nprintf %s \"$1\" > \"$0.prompt\"\n"+tt.script+"\n", 0o755)
			limit := patience
			if tt.err == errPINTimeout {
				limit = 100 * time.Millisecond
			}
			asker := newPINAsker([]PINWay{Askpass{program}}, limit, discard())
			pin, err := asker.ask(t.Context(), question)
			if string(pin) != tt.pin || !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("got %q, %v", pin, err)
			}
			if tt.err == nil {
				if prompt, err := os.ReadFile(program + ".prompt"); err != nil || string(prompt) != strings.Join(question.lines(), "\n")+"\nPIN: " {
					t.Errorf("prompt %q, %v", prompt, err)
				}
			}
		})
	}
}

// TestPINWaysInOrder: the next way is tried where one cannot ask, and not where the person said no.
func TestPINWaysInOrder(t *testing.T) {
	yes, no := &person{answers: []string{"1"}}, &person{}
	for _, tt := range []struct {
		name string
		ways []PINWay
		err  error
	}{
		{"the first cannot", []PINWay{Askpass{}, yes}, nil},
		{"the first is told no", []PINWay{no, yes}, errPINCancelled},
		{"none can", []PINWay{Askpass{}}, errPINUnavailable},
		{"none", nil, errPINUnavailable},
	} {
		if _, err := newPINAsker(tt.ways, patience, discard()).ask(t.Context(), question); !errors.Is(err, tt.err) || tt.err == nil && err != nil {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// terminalChild is what the test program is when it asks on a terminal of its own: the agent's foreground is a process's.
func terminalChild() {
	asker := newPINAsker([]PINWay{Terminal{Path: "/dev/tty"}}, patience, discard())
	pin, err := asker.ask(context.Background(), question)
	if err != nil {
		os.Stderr.WriteString("error: " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Stderr.WriteString("PIN " + string(pin) + "\n")
	os.Exit(0)
}

// TestNothingPushesThePromptOut: a name that would not be shown to its end is refused; whatever else others choose, the tries that are left come first, and a
// pinentry whose line does not hold all of it is not asked.
func TestNothingPushesThePromptOut(t *testing.T) {
	key, host := newSigner(t).PublicKey(), newHostKey(t)
	id := sessionID(1)
	binds := bindings{}
	judge := func(data []byte) *Refusal {
		_, refusal := rules{allowUnknownData: true}.judge(key, data, binds, func(k ssh.PublicKey) Host { return Host{Key: k} })
		return refusal
	}
	for _, tt := range []struct {
		name string
		ok   bool
	}{
		{"anna", true}, {strings.Repeat("a", maxShown), true}, {strings.Repeat("a", maxShown+1), false}, {"anna\x01", false}, {"a\u202eb", false}, {"a\xff", false},
		{strings.Repeat("\u00e9", maxShown/6), true}, {strings.Repeat("\u00e9", maxShown/6+1), false}, {strings.Repeat("\x01", 120), false}, {"a\nb", false},
	} {
		for kind, data := range map[string][]byte{"user": loginData(id, tt.name, key, host.PublicKey()), "namespace": fileData(tt.name)} {
			refusal := judge(data)
			if (refusal == nil) != tt.ok || refusal != nil && (refusal.Reason != ReasonUnknownData || !strings.Contains(refusal.Error(), kind)) {
				t.Errorf("%s %q: got %v", kind, tt.name, refusal)
			}
			if refusal != nil && len(refusal.Error()) > 3*maxShown {
				t.Errorf("%s %q: %d bytes of refusal", kind, tt.name, len(refusal.Error()))
			}
		}
	}

	long := strings.Repeat("\x01", 200)
	hostile := certify(t, host.PublicKey(), host, long, long, long, long)
	h := knownHosts{now: time.Now}.resolve(hostile)
	p := Purpose{Login: &Login{User: strings.Repeat("a", maxShown)}, Host: h, Through: h, Bound: true}
	q := PINRequest{Card: CardInfo{Reader: strings.Repeat("r", 128)}.String(), Purpose: p.String(), Tries: 1}
	lines := q.lines()
	if len(lines) != 3 || !strings.Contains(lines[1], "LAST try") || !strings.HasSuffix(lines[2], "which this agent is forwarded to") {
		t.Errorf("got %q", lines)
	}
	if n := len(strings.Join(lines, "%0A")); n >= assuanLine-50 {
		t.Errorf("at most %d bytes fit, and there are %d", assuanLine-50, n)
	}

	log := filepath.Join(t.TempDir(), "log")
	t.Setenv("PINENTRY_LOG", log)
	t.Setenv("PINENTRY_DO", "give 123456")
	q.Purpose = strings.Repeat("x", assuanLine)
	if pin, err := newPINAsker([]PINWay{Pinentry{Program: buildPinentry(t)}}, patience, discard()).ask(t.Context(), q); !errors.Is(err, errPINUnavailable) {
		t.Errorf("what does not fit: got %q, %v", pin, err)
	}
	if data, err := os.ReadFile(log); err != nil || strings.Contains(string(data), "GETPIN") || strings.Contains(string(data), "SETDESC") {
		t.Errorf("what does not fit: %q, %v", data, err)
	}
}

// TestReaderNames: a device that calls itself by our own words is quoted.
func TestReaderNames(t *testing.T) {
	got := CardInfo{Reader: "x) to log in as anna at prod ("}.String()
	if want := `card in "x) to log in as anna at prod ("`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
