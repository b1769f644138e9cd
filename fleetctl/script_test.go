package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
	"mayfly/testenv/softkey"
	"mayfly/testenv/tinyefi"
	"mayfly/tunnel/checkin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fleetctl": main})
}

// TestScripts runs every verb as its user would. The language has four words of its own:
//
//	code N PROGRAM ARGS...      run, and want exit code N
//	lab DIR [OLD NEW]...        lay fleet.toml and policy.toml with free ports, OLD replaced by NEW
//	key NAME...                 make an Ed25519 key pair, NAME (0600) and NAME.pub
//	agent NAME...               make security keys in software, NAME.pub and $NAME_KEY; an agent holds them until the script ends
//	cards DIR NAME...           enrol cards in software for the fleet in DIR: NAME.json and NAME.pub; an agent holds their keys until the script ends
//	card NAME [KEY=VALUE]...    make a key in software with a card's evidence: touch=cached, firmware=5.4.3; $ISSUER is its maker's certificate
//	answer CARD CHALLENGE FILE  answer a challenge with a card's key: the enrolment request
//	fingerprint CARD VAR        put a card's fingerprint into the environment
//	release DIR VERSION [FOR [AGE [LEAST]]]  lay an unsigned release, valid for FOR (default 1h), for lives of AGE, under which none older than LEAST boots
//	built DIR VERSION KEY...    sign as builders do that built it again, which the release's files are too small for
//	approved DIR VERSION KEY... sign as approvers do with ssh-keygen, without a look at the release
//	uki DIR VERSION [KERNEL]    give a laid release a kernel that looks like one, and a unified kernel image
//	logged DIR VERSION          write a release, as it is signed now, into the fleet's ledger as the signer would, which must not run, with its proof
//	flip FILE                   change one bit in the middle of a file
//	listens HOST:PORT           wait until somebody listens there
//	occupy HOST:PORT            listen there until the script ends
//	exists-soon FILE            wait until a file is there
//	fetch-list DIR              ask check-in for the list as an app does, and print its servers
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"BOOT", "JOIN", "CHECKIN"} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				e.Setenv(name, l.Addr().String())
				if err := l.Close(); err != nil {
					return err
				}
			}
			makers, err := newScriptMakers()
			if err != nil {
				return err
			}
			e.Values["makers"] = makers
			lab, err := filepath.Abs("testdata/lab")
			e.Setenv("LAB", lab)
			if err := setCards(e); err != nil {
				return err
			}
			e.Setenv("PATHS", e.WorkDir)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": scriptCode, "cards": scriptCards, "agent": scriptAgent, "lab": scriptLab, "key": scriptKey, "release": scriptRelease, "logged": scriptLogged, "built": scriptSigned("built", release.BuildNamespace), "approved": scriptSigned("approved", release.Namespace), "uki": scriptUKI, "flip": scriptFlip, "pipe": scriptPipe, "listens": scriptListens,
			"card": scriptCard, "answer": scriptAnswer, "fingerprint": scriptFingerprint,
			"occupy": scriptOccupy, "exists-soon": scriptExistsSoon, "fetch-list": scriptFetchList,
		},
	})
}

func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARGS...")
	}
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("got exit code %d, want %s", got, args[0])
	}
}

func scriptLab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args)%2 != 1 {
		ts.Fatalf("usage: lab DIR [OLD NEW]...")
	}
	pairs := []string{"EXPIRES", time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)}
	for _, name := range []string{"BOOT", "JOIN", "CHECKIN"} {
		_, port, err := net.SplitHostPort(ts.Getenv(name))
		ts.Check(err)
		pairs = append(pairs, name+"_PORT", port)
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	for _, name := range []string{"fleet.toml", "policy.toml"} {
		text := strings.NewReplacer(pairs...).Replace(ts.ReadFile(filepath.Join(ts.Getenv("LAB"), name)))
		for i := 1; i < len(args); i += 2 {
			text = strings.ReplaceAll(text, args[i], args[i+1])
		}
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
}

func scriptKey(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		ts.Check(err)
		block, err := ssh.MarshalPrivateKey(private, name)
		ts.Check(err)
		key, err := ssh.NewPublicKey(public)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(block), 0o600))
		ts.Check(os.WriteFile(ts.MkAbs(name+".pub"), ssh.MarshalAuthorizedKey(key), 0o644))
	}
}

func scriptAgent(ts *testscript.TestScript, neg bool, args []string) {
	var signers []ssh.Signer
	for _, name := range args {
		key, err := softkey.New(rand.Reader)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name+".pub"), []byte(key.Authorized()+"\n"), 0o644))
		ts.Setenv(strings.ToUpper(name)+"_KEY", key.Authorized())
		signers = append(signers, key.Signer(softkey.Always))
	}
	m := ts.Value("makers").(*scriptMakers)
	m.signers = append(m.signers, signers...)
	m.serve(ts)
}

func scriptRelease(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: release DIR VERSION [FOR [AGE [LEAST]]]")
	}
	valid, age, least := time.Hour, 24*time.Hour, uint64(1)
	if len(args) > 2 {
		var err error
		valid, err = time.ParseDuration(args[2])
		ts.Check(err)
	}
	if len(args) > 3 {
		var err error
		age, err = time.ParseDuration(args[3])
		ts.Check(err)
	}
	if len(args) > 4 {
		var err error
		least, err = strconv.ParseUint(args[4], 10, 64)
		ts.Check(err)
	}
	version, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	dir := filepath.Join(ts.MkAbs(args[0]), "public", "releases", args[1])
	ts.Check(os.MkdirAll(dir, 0o755))
	lay := func(name string) release.Part {
		data := []byte(strings.Repeat(name+" of the test\n", 100))
		ts.Check(os.WriteFile(filepath.Join(dir, name), data, 0o644))
		return release.Part{Size: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data))}
	}
	now := time.Now().UTC().Truncate(time.Second)
	s := &release.Statement{Kind: release.Kind, Fleet: "lab", Version: version, Least: least, Profile: release.ProfileCloud, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(valid),
		MaxAge: int64(age / time.Second), Kernel: lay(release.KernelFile), Stub: lay(release.StubFile), Root: lay(release.RootFile),
		Cmdline: "console=ttyS0", Lock: lay(release.LockFile).SHA256, MinPolicy: 1}
	data, err := s.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, release.StatementFile), data, 0o644))
}

func scriptUKI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: uki DIR VERSION [KERNEL]")
	}
	root := ts.MkAbs(args[0])
	dir := filepath.Join(root, "public", "releases", args[1])
	s, err := release.Parse([]byte(ts.ReadFile(filepath.Join(dir, release.StatementFile))))
	ts.Check(err)
	kernel := tinyefi.Image(strings.Join(args[2:], " "))
	ts.Check(os.WriteFile(filepath.Join(dir, release.KernelFile), kernel, 0o644))
	s.Kernel = release.Part{Size: int64(len(kernel)), SHA256: fmt.Sprintf("%x", sha256.Sum256(kernel))}
	built := image.Result{EFIStub: tinyefi.Image(""), Cmdline: s.Cmdline, Uname: "6.1"}
	ts.Check(makeUKI(dir, built, []byte(ts.ReadFile(filepath.Join(root, "trust.json"))), s))
	data, err := s.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, release.StatementFile), data, 0o644))
}

// scriptSigned adds signatures of one kind to those that are there.
func scriptSigned(command, namespace string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 3 {
			ts.Fatalf("usage: %s DIR VERSION KEY...", command)
		}
		path := filepath.Join(ts.MkAbs(args[0]), "public", "releases", args[1], release.StatementFile)
		sigs, err := readSignatures(path)
		ts.Check(err)
		for _, name := range args[2:] {
			key, err := loadSigner(ts.MkAbs(name), "")
			ts.Check(err)
			block, err := sshsig.Sign(key, namespace, []byte(ts.ReadFile(path)))
			ts.Check(err)
			sigs = append(sigs, block...)
		}
		ts.Check(os.WriteFile(signatures(path), sigs, 0o644))
	}
}

func scriptLogged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: logged DIR VERSION")
	}
	dir := ts.MkAbs(args[0])
	t, _, err := state(dir).trust()
	ts.Check(err)
	key, err := loadSigner(filepath.Join(dir, "signer", "ledger-key"), "")
	ts.Check(err)
	private, err := ledger.NewSigner(t.Fleet, key)
	ts.Check(err)
	public, err := ledger.Verifier(t.Fleet, trust.FormatKey(key.PublicKey()))
	ts.Check(err)
	log, err := audit.Open(audit.Options{Dir: signer.LedgerDir(dir), Own: &audit.Own{Signer: private, Verifier: public}})
	ts.Check(err)
	path := filepath.Join(dir, "public", "releases", args[1], release.StatementFile)
	index, err := log.AppendIndexed(ledger.EventRelease, ledger.Release{Kind: ledger.Kind, Statement: ts.ReadFile(path), Signatures: ts.ReadFile(signatures(path))})
	ts.Check(err)
	ts.Check(log.Close())
	proof, err := audit.Prove(signer.LedgerDir(dir), index)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(filepath.Dir(path), release.ProofFile), proof.Marshal(), 0o644))
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	data := []byte(ts.ReadFile(path))
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(path, data, 0o644))
}

func scriptPipe(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o644))
}

// soon is how long a script waits for what has to come.
const soon = 20 * time.Second

// eventually asks again and again until ok.
func eventually(ts *testscript.TestScript, what string, ok func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(soon); !ok(); <-tick.C {
		if time.Now().After(end) {
			ts.Fatalf("%s: not within %v", what, soon)
		}
	}
}

func scriptListens(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts, "listening on "+args[0], func() bool {
		c, err := net.Dial("tcp", args[0])
		return err == nil && c.Close() == nil
	})
}

func scriptOccupy(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

func scriptExistsSoon(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts, args[0], func() bool {
		_, err := os.Stat(ts.MkAbs(args[0]))
		return err == nil
	})
}

func scriptFetchList(ts *testscript.TestScript, neg bool, args []string) {
	c, err := checkin.LoadConfig(state(ts.MkAbs(args[0])).clientFile())
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	list, err := checkin.Fetch(ctx, c, time.Now())
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "fleet %s, %d servers\n", list.Fleet, len(list.Servers))
}

// TestHelp: every verb explains itself on stdout with an example, and exits 0.
func TestHelp(t *testing.T) {
	for _, v := range program.Verbs {
		var out, errs strings.Builder
		code := run(t.Context(), append(strings.Fields(v.Name), "--help"), strings.NewReader(""), &out, &errs)
		if code != command.OK || errs.Len() > 0 {
			t.Errorf("%s --help: got exit code %d and %q on stderr", v.Name, code, errs.String())
		}
		for _, want := range []string{"fleetctl " + v.Name, "Example:"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s --help: no %q in %q", v.Name, want, out.String())
			}
		}
		errs.Reset()
		if code := run(t.Context(), append(strings.Fields(v.Name), "--no-such-flag"), strings.NewReader(""), &out, &errs); code != command.Usage || !strings.Contains(errs.String(), "fleetctl: hint: ") {
			t.Errorf("%s --no-such-flag: got exit code %d and %q", v.Name, code, errs.String())
		}
	}
}
