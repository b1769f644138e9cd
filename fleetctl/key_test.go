package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mayfly/bastion/hardkey"
	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/enrolment"
	"mayfly/policies/trust"
	"mayfly/testenv/softcard"
)

var maker = sync.OnceValues(func() (*softcard.Maker, error) { return softcard.NewMaker(hardkey.KindPIV, time.Now()) })

type cards map[string]*softcard.Key

func setCards(e *testscript.Env) error {
	m, err := maker()
	if err != nil {
		return err
	}
	e.Setenv("ISSUER", m.Issuer().Certificate)
	e.Values["cards"] = cards{}
	return nil
}

func scriptCard(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: card NAME [KEY=VALUE]...")
	}
	var plan softcard.Plan
	for _, arg := range args[1:] {
		switch key, value, _ := strings.Cut(arg, "="); key {
		case "touch":
			plan.Touch = map[string]byte{"never": softcard.TouchNever, "cached": softcard.TouchCached}[value]
		case "serial":
			_, err := fmt.Sscan(value, &plan.Serial)
			ts.Check(err)
		case "firmware":
			_, err := fmt.Sscanf(value, "%d.%d.%d", &plan.Firmware[0], &plan.Firmware[1], &plan.Firmware[2])
			ts.Check(err)
		default:
			ts.Fatalf("unknown %s", arg)
		}
	}
	m, err := maker()
	ts.Check(err)
	k, err := m.Make(plan)
	ts.Check(err)
	ts.Value("cards").(cards)[args[0]] = k
}

func scriptAnswer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: answer CARD CHALLENGE FILE")
	}
	c, err := hardkey.ParseChallenge(strings.TrimSuffix(ts.ReadFile(args[1]), "\n"))
	ts.Check(err)
	k := ts.Value("cards").(cards)[args[0]]
	shown, err := k.Shown(c)
	ts.Check(err)
	data, err := enrolment.New(c, k.Public(), shown).Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o644))
}

func scriptFingerprint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fingerprint CARD VAR")
	}
	ts.Setenv(args[1], policies.Fingerprint(ts.Value("cards").(cards)[args[0]].Public()))
}

// challenged lays a fleet with one engineer, and returns an answer to a challenge of it.
func challenged(t *testing.T) (state, enrolment.Request) {
	t.Helper()
	d := state(t.TempDir())
	fleet, err := os.ReadFile("testdata/lab/fleet.toml")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile("testdata/lab/policy.toml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := maker()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("BOOT_PORT", "80", "JOIN_PORT", "443", "CHECKIN_PORT", "8443", "EXPIRES", "2099-01-01T00:00:00Z").Replace(string(policy)) +
		"\n[[engineer]]\nname = \"anna\"\n\n[[hardware.test_issuer]]\nname = \"" + m.Issuer().Name + "\"\napplet = \"piv\"\ncertificate = \"" + m.Issuer().Certificate + "\"\n"
	for path, data := range map[string]string{d.policyFile(): text, d.fleetFile(): strings.NewReplacer("BOOT_PORT", "80", "JOIN_PORT", "443", "CHECKIN_PORT", "8443").Replace(string(fleet))} {
		if err := os.WriteFile(path, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	k, err := m.Make(softcard.Plan{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.makeChallenge("lab", "anna", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := k.Shown(c)
	if err != nil {
		t.Fatal(err)
	}
	return d, enrolment.New(c, k.Public(), shown)
}

// A key is added once however many ask at once, and the file keeps its mode.
func TestAddKeyOnce(t *testing.T) {
	d, r := challenged(t)
	results := make(chan error)
	for range 4 {
		go func() {
			_, _, err := d.addKey(r, time.Now())
			results <- err
		}()
	}
	added := 0
	for range 4 {
		if err := <-results; err == nil {
			added++
		} else if command.ExitCode(err) != command.Refused {
			t.Errorf("got %v", err)
		}
	}
	if added != 1 {
		t.Errorf("added %d times", added)
	}
	if info, err := os.Stat(d.policyFile()); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the policy's mode is %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(d.challengesDir()); err != nil || len(left) != 0 {
		t.Errorf("challenges left: %v, %v", left, err)
	}
}

// A challenge that was given back counts again; a policy that was changed behind a link changes where it lies.
func TestAddKeyFails(t *testing.T) {
	d, r := challenged(t)
	elsewhere := filepath.Join(t.TempDir(), "policy.toml")
	if err := os.Rename(d.policyFile(), elsewhere); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.addKey(r, time.Now()); err == nil || hint.Of(err) == "" {
		t.Errorf("without a policy: got %v", err)
	}
	if err := os.Symlink(elsewhere, d.policyFile()); err != nil {
		t.Fatal(err)
	}
	undo, err := d.burn(r.Challenge)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.addKey(r, time.Now()); command.ExitCode(err) != command.Refused || !strings.Contains(err.Error(), "answered already") {
		t.Errorf("burnt: got %v", err)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.addKey(r, time.Now().Add(challengeLife+time.Hour)); command.ExitCode(err) != command.Refused || !strings.Contains(err.Error(), "within 7 days") {
		t.Errorf("too late: got %v", err)
	}
	if _, _, err := d.addKey(r, time.Now()); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(elsewhere); err != nil || !strings.Contains(string(data), r.Public) {
		t.Errorf("the linked file does not have the key: %v", err)
	}
	if info, err := os.Lstat(d.policyFile()); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
}

// There is a bound on challenges, and those that are too old make room.
func TestChallengesAreBounded(t *testing.T) {
	d, now := state(t.TempDir()), time.Now()
	if err := os.Mkdir(d.challengesDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range maxChallenges - 1 {
		c := hardkey.NewChallenge("lab", "anna", [hardkey.NonceBytes]byte{byte(i >> 8), byte(i)}, now)
		if err := os.WriteFile(d.challengeFile(c), c.Signed(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.makeChallenge("lab", "anna", now); err != nil {
		t.Fatal(err)
	}
	if _, err := d.makeChallenge("lab", "anna", now); command.ExitCode(err) != command.Refused || !strings.HasPrefix(err.Error(), challengesFull) || hint.Of(err) == "" {
		t.Errorf("one more: got %v", err)
	}
	if _, err := d.makeChallenge("lab", "anna", now.Add(challengeLife+time.Second)); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(d.challengesDir()); err != nil || len(left) != 1 {
		t.Errorf("%d left, %v", len(left), err)
	}
	if err := os.WriteFile(filepath.Join(d.challengesDir(), "notes"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.makeChallenge("lab", "anna", now); err == nil || !strings.Contains(err.Error(), "is no challenge") {
		t.Errorf("a stranger's file: got %v", err)
	}
}

// The last use of a key is read from one log, or from those of several lives below a directory.
func TestReadUses(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"b-1/7", "b-1/8", "b-2/7"} {
		path := filepath.Join(root, dir)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		log, err := audit.Open(audit.Options{Dir: path, Name: "lab/test"})
		if err != nil {
			t.Fatal(err)
		}
		for event, key := range map[string]string{"login": "SHA256:a", "connection": "SHA256:b"} {
			if err := log.Append(event, map[string]string{"key": key, "source": dir + ":22"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]int{".": 3, "b-1": 2, "b-1/8": 1} {
		uses, err := readUses(filepath.Join(root, dir))
		if u := uses["SHA256:a"]; err != nil || u.logins != want || u.last.IsZero() || u.log == "" || len(uses) != 1 {
			t.Errorf("%s: got %+v, %v, want %d logins of one key", dir, uses, err, want)
		}
	}
	uses, err := readUses(root)
	if err != nil {
		t.Fatal(err)
	}
	k := usedKey{}
	k.used(uses["SHA256:a"])
	if !strings.Contains(k.Source, "b-2/7") || !strings.Contains(k.lastUse(root), "3 logins in all") || (usedKey{}).lastUse(root) != "never, in that log" {
		t.Errorf("got %+v", k)
	}
	if _, err := readUses(filepath.Join(root, "none")); err == nil {
		t.Error("got nil, want an error")
	}
}

// A robot's only key is not taken from it, and whoever revokes an approver's key hears that it still signs.
func TestRevokeKeyNotes(t *testing.T) {
	d, r := challenged(t)
	if _, _, err := d.addKey(r, time.Now()); err != nil {
		t.Fatal(err)
	}
	const robot = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2XsgPmw0M66SYeBBHYzHUTHKu+/S+6c9wk0FFSSTOP"
	before, err := os.ReadFile(d.policyFile())
	if err != nil {
		t.Fatal(err)
	}
	with := string(before) + "\n[[robot]]\nname = \"deploy\"\npublic = \"" + robot + "\"\nsource = \"198.51.100.10/32\"\nservers = [\"web-1\"]\nports = [22]\ncommands = [\"true\"]\n"
	if err := os.WriteFile(d.policyFile(), []byte(with), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := d.revokeKey(policies.Fingerprint(robot), time.Now()); command.ExitCode(err) != command.Refused || !strings.Contains(err.Error(), "robot deploy") || hint.Of(err) == "" {
		t.Errorf("a robot's: got %v", err)
	}
	if err := os.WriteFile(d.policyFile(), before, 0o640); err != nil {
		t.Fatal(err)
	}
	tr := trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 1, Approvers: []trust.Person{{Name: "ana", Keys: []string{r.Public}}},
		TicketKeys: []string{robot}, ListKeys: []string{strings.Replace(robot, "K2X", "K2Y", 1)}}
	data, err := tr.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.trustFile(), data, 0o644); err != nil {
		t.Fatal(err)
	}
	var notes strings.Builder
	d.noteApprover(&command.Call{Stderr: &notes}, policies.Fingerprint(r.Public))
	if !strings.Contains(notes.String(), "one of approver ana") {
		t.Errorf("got %q", notes.String())
	}
	if _, left, done, err := d.revokeKey(policies.Fingerprint(r.Public), time.Now()); err != nil || left != 0 || done.policy.Version != done.before {
		t.Errorf("got %d keys left, version %d, %v", left, done.policy.Version, err)
	}
}

// A public key in another form than the policy's is refused as what it is, before anything is written.
func TestAddKeyForms(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"in two lines":   func(s string) string { return s[:30] + "\n" + s[30:] },
		"with a newline": func(s string) string { return s + "\n" },
		"with a return":  func(s string) string { return s[:30] + "\r" + s[30:] },
	} {
		d, r := challenged(t)
		r.Public = change(r.Public)
		if _, err := r.Marshal(); err == nil || !strings.HasPrefix(err.Error(), "public: ") {
			t.Errorf("%s: marshalled: %v", name, err)
		}
		if rejection := r.Shown.Check(r.Public); rejection == nil || rejection.Reason != hardkey.Malformed {
			t.Errorf("%s: got %v", name, rejection)
		}
		if _, _, err := d.addKey(r, time.Now()); err == nil {
			t.Errorf("%s: added", name)
		}
	}
}

// A policy that cannot be written gives its challenge back. One that was written, if perhaps not for good, does not.
func TestAddKeyCannotWrite(t *testing.T) {
	d, r := challenged(t)
	before, err := os.ReadFile(d.policyFile())
	if err != nil {
		t.Fatal(err)
	}
	failing := errors.New("no")
	add := func(name string, data []byte) ([]byte, error) {
		return policies.AddKey(name, data, r.Name, policies.Key{Public: r.Public, Evidence: r.Shown.Kind, Challenge: r.Challenge, Attestation: r.Attestation, Signature: r.Signature})
	}
	accept := func(policies.Policy) error { return nil }
	if _, err := d.rewrite(time.Now(), add, accept, func() (func() error, error) { return nothingUndone, failing }); !errors.Is(err, failing) {
		t.Errorf("a challenge that cannot be used up: got %v", err)
	}
	// The directory that policy.toml lies in goes away between the burning and the write.
	away := filepath.Join(t.TempDir(), "policy")
	if err := os.Mkdir(away, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.policyFile(), filepath.Join(away, "policy.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(away, "policy.toml"), d.policyFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.rewrite(time.Now(), add, accept, func() (func() error, error) {
		undo, err := d.burn(r.Challenge)
		return undo, errors.Join(err, os.Rename(away, away+"-gone"))
	}); err == nil || !strings.Contains(err.Error(), "writing ") {
		t.Errorf("a policy that cannot be written: got %v", err)
	}
	if err := os.Rename(away+"-gone", away); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(d.policyFile()); err != nil || string(data) != string(before) {
		t.Errorf("the policy has changed: %v", err)
	}
	if _, _, err := d.addKey(r, time.Now()); err != nil {
		t.Errorf("the challenge is not back: %v", err)
	}
}

func nothingUndone() error { return nil }

// A robot's key is nobody else's, and a break-glass identity enrols as an engineer does.
func TestAddKeyOfOthers(t *testing.T) {
	d, r := challenged(t)
	before, err := os.ReadFile(d.policyFile())
	if err != nil {
		t.Fatal(err)
	}
	write := func(more string) {
		t.Helper()
		if err := os.WriteFile(d.policyFile(), []byte(string(before)+more), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("\n[[robot]]\nname = \"deploy\"\npublic = \"" + r.Public + "\"\nsource = \"198.51.100.10/32\"\nservers = [\"web-1\"]\nports = [22]\ncommands = [\"true\"]\n")
	if _, _, err := d.addKey(r, time.Now()); command.ExitCode(err) != command.Refused || !strings.Contains(err.Error(), keyEnrolled+": ") || !strings.Contains(err.Error(), "a key of deploy") {
		t.Errorf("a robot's: got %v", err)
	}
	write("\n[[break_glass]]\nname = \"glass\"\nservers = [\"*\"]\nports = [22]\n")
	m, err := maker()
	if err != nil {
		t.Fatal(err)
	}
	k, err := m.Make(softcard.Plan{Serial: 2})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.makeChallenge("lab", "glass", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := k.Shown(c)
	if err != nil {
		t.Fatal(err)
	}
	report, _, err := d.addKey(enrolment.New(c, k.Public(), shown), time.Now())
	if err != nil || report.Identity != policies.KindBreakGlass || report.Name != "glass" {
		t.Errorf("break-glass: got %+v, %v", report, err)
	}
}

// What somebody gives as a fingerprint is not written on a terminal as it is.
func TestRevokeKeyEscapes(t *testing.T) {
	d, _ := challenged(t)
	if _, _, _, err := d.revokeKey("SHA256:"+hostile, time.Now()); command.ExitCode(err) != command.Refused || !strings.Contains(err.Error(), harmless) {
		t.Errorf("got %v", err)
	}
}
