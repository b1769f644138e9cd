package bastion

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies"
	"mayfly/policies/statement"
	"mayfly/testenv/softkey"
)

// withStatements gives the bastion a directory of statements, and writes the policy with a change.
func withStatements(t *testing.T, change func(*policies.Policy)) *fixture {
	t.Helper()
	f := newFixture(t)
	f.config.Statements = f.path("statements")
	if err := os.Mkdir(f.config.Statements, 0o700); err != nil {
		t.Fatal(err)
	}
	change(&f.policy)
	f.writeBundle(2)
	return f
}

// say writes a statement with its signatures.
func (f *fixture) say(name string, s statement.Statement, namespace string, signers ...ssh.Signer) string {
	f.t.Helper()
	data, err := statement.Marshal(s)
	if err != nil {
		f.t.Fatal(err)
	}
	var sigs []byte
	for _, signer := range signers {
		block, err := sshsig.Sign(signer, namespace, data)
		if err != nil {
			f.t.Fatal(err)
		}
		sigs = append(sigs, block...)
	}
	path := filepath.Join(f.config.Statements, name+".json")
	f.write(path+".sig", sigs, 0o644)
	f.write(path, data, 0o644)
	return path
}

func decode[R any](t *testing.T, e entry) (r R) {
	t.Helper()
	if err := json.Unmarshal(e.Record, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func wholeSeconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func annasApproval() statement.Approval {
	now := wholeSeconds(time.Now())
	return statement.Approval{Kind: statement.KindApproval, Fleet: "lab", ID: "00000000000000a1", Engineer: "anna", Servers: []string{"se-1"}, Ports: []uint16{22},
		Reason: "disk full", Made: now, NotBefore: now, Expires: now.Add(time.Hour)}
}

// refusedWith dials and wants a reason.
func refusedWith(t *testing.T, client *ssh.Client, address string, want policies.Reason) {
	t.Helper()
	conn, err := client.Dial("tcp", address)
	if err == nil {
		conn.Close()
		t.Fatalf("%s: opened, want %s", address, want)
	}
	if !strings.Contains(err.Error(), string(want)) {
		t.Fatalf("%s: %v, want %s", address, err, want)
	}
}

// cutWithin waits for the other side's end.
func cutWithin(t *testing.T, conn net.Conn, limit time.Duration) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, conn)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(limit):
		t.Errorf("not cut within %v", limit)
	}
}

// cutLimit is generous to a busy machine, and much less than decideEvery: who is cut within it was not cut by the clock. What is promised, a
// second, is a measurement of bench.
const cutLimit = 10 * time.Second

// TestApprovedTarget: no approval, no target; its removal cuts the target and leaves the session.
func TestApprovedTarget(t *testing.T) {
	f := withStatements(t, func(p *policies.Policy) { p.Grants[0].Approval = true })
	f.start()
	f.target("10.77.0.11:22", echo)
	client := f.login("anna", f.anna.Signer(softkey.Always))
	refusedWith(t, client, "se-1:22", policies.ApprovalMissing)
	path := f.say("a1", annasApproval(), statement.NamespaceApproval, f.bert.Signer(softkey.Always))
	if r := decode[statementRecord](t, f.next(eventStatement)); r.Outcome != statementAccepted || r.ID != "00000000000000a1" || r.For != "anna" || r.Text != "disk full" {
		t.Errorf("record: %+v", r)
	}
	refusedWith(t, client, "se-2:22", policies.ApprovalMissing)
	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if r := decode[openingRecord](t, f.next(eventTarget)); r.Approval != "00000000000000a1" || r.Grant != 1 {
		t.Errorf("target's record: %+v", r)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	cutWithin(t, conn, cutLimit)
	if r := decode[statementRecord](t, f.next(eventStatement)); r.Outcome != statementRemoved || r.ID != "00000000000000a1" || r.Cut != 1 {
		t.Errorf("record: %+v", r)
	}
	if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Errorf("the session itself: %v", err)
	}
	client.Close()
	r := f.closing()
	if len(r.Targets) != 1 || r.Targets[0].Approval != "00000000000000a1" || r.Targets[0].Ended != endPolicy || r.Targets[0].Reason != policies.ApprovalMissing {
		t.Errorf("closing record: %+v", r.Targets)
	}
}

// TestApproverLeaves: an approval is worth what its approver is worth under the policy in force.
func TestApproverLeaves(t *testing.T) {
	f := withStatements(t, func(p *policies.Policy) { p.Grants[0].Approval = true })
	f.say("a1", annasApproval(), statement.NamespaceApproval, f.bert.Signer(softkey.Always))
	f.start()
	f.target("10.77.0.11:22", echo)
	client := f.login("anna", f.anna.Signer(softkey.Always))
	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f.policy.Version = 2
	f.policy.Engineers[1].Keys[0].Public = softwareKey(t)
	f.writeBundle(2)
	f.reloaded(func(r policyRecord) bool { return r.Version == 2 && r.Cut == 1 })
	cutWithin(t, conn, patience)
	refusedWith(t, client, "se-1:22", policies.ApprovalMissing)
	f.next(eventStatement) // accepted, at the start
	if r := decode[statementRecord](t, f.next(eventStatement)); r.Outcome != statementRefused || r.Reason != string(policies.ApprovalMissing) {
		t.Errorf("record under the new policy: %+v", r)
	}
}

// TestRefusedStatements: each is refused with its reason, once, and whatever else lies there does no harm.
func TestRefusedStatements(t *testing.T) {
	f := withStatements(t, func(p *policies.Policy) { p.Grants[0].Approval = true })
	var noticed []string
	var mu sync.Mutex
	anna, bert := f.anna.Signer(softkey.Always), f.bert.Signer(softkey.Always)
	dir := f.config.Statements
	want := map[string]string{}
	refuse := func(name, reason string, change func(*statement.Approval), signers ...ssh.Signer) {
		a := annasApproval()
		a.ID = "00000000000000" + name
		change(&a)
		f.say(name, a, statement.NamespaceApproval, signers...)
		want[name+".json"] = reason
	}
	refuse("01", string(policies.ApprovalOwn), func(*statement.Approval) {}, anna)
	refuse("02", statement.Unsigned, func(*statement.Approval) {})
	refuse("03", string(policies.ApprovalMissing), func(*statement.Approval) {}, f.ticket)
	refuse("04", statement.OtherFleet, func(a *statement.Approval) { a.Fleet = "other" }, bert)
	refuse("05", statement.FromFuture, func(a *statement.Approval) {
		a.Made, a.NotBefore, a.Expires = a.Made.Add(time.Hour), a.Made.Add(time.Hour), a.Made.Add(2*time.Hour)
	}, bert)
	refuse("06", statement.Expired, func(a *statement.Approval) {
		a.Made, a.NotBefore, a.Expires = a.Made.Add(-time.Hour), a.Made.Add(-time.Hour), a.Made.Add(-time.Minute)
	}, bert)
	refuse("07", string(policies.UserUnknown), func(a *statement.Approval) { a.Engineer = "zoe" }, bert)
	refuse("08", statement.Malformed, func(*statement.Approval) {}, bert)
	if err := os.WriteFile(filepath.Join(dir, "08.json"), []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "09.json"), 0); err == nil {
		t.Fatal("there is a 09 already")
	}
	if err := os.WriteFile(filepath.Join(dir, "09.json"), []byte(strings.Repeat(" ", statement.MaxSize+1)), 0o644); err != nil {
		t.Fatal(err)
	}
	want["09.json"] = statement.Malformed
	if err := syscall.Mkfifo(filepath.Join(dir, "10.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	want["10.json"] = statement.Malformed
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "11.json")); err != nil {
		t.Fatal(err)
	}
	want["11.json"] = statement.Malformed
	f.say("12", annasApproval(), statement.NamespaceApproval, bert)
	f.say("13", annasApproval(), statement.NamespaceApproval, bert, anna)
	want["13.json"] = statementTwice
	glass := statement.BreakGlass{Kind: statement.KindBreakGlass, Fleet: "lab", ID: "00000000000000b1", Name: "glass", Reason: "x", Made: wholeSeconds(time.Now()), Expires: wholeSeconds(time.Now()).Add(time.Hour)}
	f.say("14", glass, statement.NamespaceBreakGlass, f.approvers[0])
	want["14.json"] = statement.Unsigned
	drained := statement.Drained{Kind: statement.KindDrained, Fleet: "lab", Server: "se-1", Epoch: 1, Made: glass.Made, Expires: glass.Expires}
	f.say("15", drained, statement.NamespaceDrained, bert)
	want["15.json"] = statement.Unsigned
	if err := os.WriteFile(filepath.Join(dir, ".16.json"), []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.startWith(func(s *Server) {
		s.events = func(kind string, fields any) {
			mu.Lock()
			defer mu.Unlock()
			noticed = append(noticed, kind+" "+fields.(statementRecord).File)
		}
	})
	got := map[string]string{}
	for range len(want) + 1 {
		r := decode[statementRecord](t, f.next(eventStatement))
		if _, twice := got[r.File]; twice {
			t.Errorf("%s: told of twice", r.File)
		}
		if got[r.File] = r.Reason; r.Outcome == statementAccepted && r.File != "12.json" {
			t.Errorf("accepted: %+v", r)
		}
	}
	for name, reason := range want {
		if got[name] != reason {
			t.Errorf("%s: got %q, want %q", name, got[name], reason)
		}
	}
	// Something changes: what was told is not told again.
	a := annasApproval()
	a.ID = "00000000000000ff"
	f.say("20", a, statement.NamespaceApproval, bert)
	if r := decode[statementRecord](t, f.next(eventStatement)); r.File != "20.json" {
		t.Errorf("got %+v, want the new one alone", r)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(noticed) != len(want) || !slices.Contains(noticed, "statement 01.json") {
		t.Errorf("noticed: %v", noticed)
	}
}

// TestStatementsVanish: a directory that cannot be read has nothing in force, and one that is not there does not start.
func TestStatementsVanish(t *testing.T) {
	f := withStatements(t, func(p *policies.Policy) { p.Grants[0].Approval = true })
	f.say("a1", annasApproval(), statement.NamespaceApproval, f.bert.Signer(softkey.Always))
	f.start()
	f.target("10.77.0.11:22", echo)
	client := f.login("anna", f.anna.Signer(softkey.Always))
	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := os.Rename(f.config.Statements, f.path("elsewhere")); err != nil {
		t.Fatal(err)
	}
	cutWithin(t, conn, cutLimit)
	refusedWith(t, client, "se-1:22", policies.ApprovalMissing)
	if _, err := newServer(f.config, slog.New(slog.DiscardHandler), nil, time.Now()); err == nil || !strings.Contains(err.Error(), "statements") {
		t.Errorf("started without its directory: %v", err)
	}
	if err := os.Rename(f.path("elsewhere"), f.config.Statements); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{statementAccepted, statementRemoved, statementAccepted} {
		if r := decode[statementRecord](t, f.next(eventStatement)); r.Outcome != want {
			t.Errorf("record: %+v, want %s", r, want)
		}
	}
}

// TestStatementWrittenInPieces copies a statement slowly, into its place: none of its parts is in force.
func TestStatementWrittenInPieces(t *testing.T) {
	f := withStatements(t, func(*policies.Policy) {})
	path := f.say("a1", annasApproval(), statement.NamespaceApproval, f.bert.Signer(softkey.Always))
	data, sigs := f.read("statements/a1.json"), bytes.TrimSpace(f.read("statements/a1.json.sig"))
	d := statementDir{path: f.config.Statements, trust: f.config.Trust}
	for _, part := range []struct{ json, sig int }{{0, 0}, {len(data) / 2, 0}, {len(data) - 1, 0}, {len(data), 0}, {len(data), len(sigs) / 2}, {len(data), len(sigs) - 1},
		{0, len(sigs)}, {len(data) - 1, len(sigs)}, {len(data), len(sigs)}} {
		for _, err := range []error{os.WriteFile(path, data[:part.json], 0o644), os.WriteFile(path+".sig", sigs[:part.sig], 0o644)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		d.seen = nil // read it again, however coarse the file system's time is
		if _, _, err := d.look(f.policy, time.Now()); err != nil {
			t.Fatal(err)
		}
		whole := part.json == len(data) && part.sig == len(sigs)
		if got := len(d.collected().Approvals); (got == 1) != whole {
			t.Errorf("%d of %d bytes, %d of %d of signatures: %d approvals", part.json, len(data), part.sig, len(sigs), got)
		}
	}
}

// TestUnreadableStatement: it is refused by a name of its own, once, and read again although nothing of the file changes.
func TestUnreadableStatement(t *testing.T) {
	f := withStatements(t, func(*policies.Policy) {})
	f.say("a1", annasApproval(), statement.NamespaceApproval, f.bert.Signer(softkey.Always))
	readable := false
	d := statementDir{path: f.config.Statements, trust: f.config.Trust, readFile: func(path string, limit int64) ([]byte, error) {
		if !readable {
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrPermission}
		}
		return readRegular(path, limit)
	}}
	now := time.Now()
	records, _, err := d.look(f.policy, now)
	if err != nil || len(records) != 1 || records[0].Reason != statementUnread || len(d.collected().Approvals) != 0 {
		t.Fatalf("%+v, %v", records, err)
	}
	if records, _, err := d.look(f.policy, now.Add(retryFresh)); err != nil || len(records) != 0 {
		t.Errorf("said again: %+v, %v", records, err)
	}
	readable = true
	if _, changed, _ := d.look(f.policy, now.Add(retryFresh+time.Millisecond)); changed {
		t.Error("read at every look")
	}
	records, _, err = d.look(f.policy, now.Add(2*retryFresh))
	if err != nil || len(records) != 1 || records[0].Outcome != statementAccepted || len(d.collected().Approvals) != 1 {
		t.Errorf("%+v, %v", records, err)
	}
	if _, changed, _ := d.look(f.policy, now.Add(time.Hour)); changed {
		t.Error("read again without need")
	}
}

// TestTooManyStatements: the newest count.
func TestTooManyStatements(t *testing.T) {
	f := withStatements(t, func(p *policies.Policy) { p.Grants[0].Approval = true })
	for i := range maxStatements {
		path := filepath.Join(f.config.Statements, string(rune('b'+i/26/26))+string(rune('a'+i/26%26))+string(rune('a'+i%26))+".json")
		if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	f.say("a", annasApproval(), statement.NamespaceApproval, f.bert.Signer(softkey.Always))
	f.start()
	seen := map[string]int{}
	for range maxStatements + 1 {
		r := decode[statementRecord](t, f.next(eventStatement))
		seen[r.Outcome+" "+r.Reason]++
	}
	if seen["accepted "] != 1 || seen["refused "+statementsExceed] != 1 || seen["refused "+statement.Malformed] != maxStatements-1 {
		t.Errorf("got %v", seen)
	}
}

// TestDrainedTarget: the grant opens the server only while the fleet's signer says that it is drained.
func TestDrainedTarget(t *testing.T) {
	f := withStatements(t, func(p *policies.Policy) { p.Grants[0].Drained = true })
	f.start()
	f.target("10.77.0.11:22", echo)
	client := f.login("anna", f.anna.Signer(softkey.Always))
	refusedWith(t, client, "se-1:22", policies.ServerNotDrained)
	now := wholeSeconds(time.Now())
	path := f.say("d1", statement.Drained{Kind: statement.KindDrained, Fleet: "lab", Server: "se-1", Epoch: 3, Made: now, Expires: now.Add(time.Hour)},
		statement.NamespaceDrained, f.ticket)
	if r := decode[statementRecord](t, f.next(eventStatement)); r.Outcome != statementAccepted || r.ID != "se-1/3" || r.For != "se-1" {
		t.Errorf("record: %+v", r)
	}
	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if r := decode[openingRecord](t, f.next(eventTarget)); r.Drained != 3 {
		t.Errorf("target's record: %+v", r)
	}
	refusedWith(t, client, "se-2:22", policies.ServerNotDrained)
	if err := os.Remove(path + ".sig"); err != nil {
		t.Fatal(err)
	}
	cutWithin(t, conn, cutLimit)
}

// TestBreakGlass: sealed, opened by two people, used loudly, closed by itself with whoever is in.
func TestBreakGlass(t *testing.T) {
	key, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := withStatements(t, func(p *policies.Policy) {
		p.BreakGlass = []policies.BreakGlass{{Name: "glass", Keys: []policies.Key{{Public: key.Authorized(), Evidence: "test:softkey"}}, Servers: []string{"*"}, Ports: []uint16{22}}}
	})
	notices := make(chan breakGlassRecord, 16)
	f.startWith(func(s *Server) {
		s.events = func(kind string, fields any) {
			if kind == noticeBreakGlass {
				notices <- fields.(breakGlassRecord)
			}
		}
	})
	f.target("10.77.0.13:22", echo)
	if _, err := f.client("glass", key.Signer(softkey.Always)); err == nil {
		t.Fatal("a sealed identity logged in")
	}
	if r := f.closing(); r.Outcome != "refused" || r.Reason != policies.BreakGlassSealed || r.Identity != "break_glass" {
		t.Errorf("closing record: %+v", r)
	}
	now := wholeSeconds(time.Now())
	f.say("b1", statement.BreakGlass{Kind: statement.KindBreakGlass, Fleet: "lab", ID: "00000000000000b1", Name: "glass", Reason: "all is lost",
		Made: now, Expires: now.Add(6 * time.Second)}, statement.NamespaceBreakGlass, f.approvers[0], f.approvers[2])
	if r := decode[breakGlassRecord](t, f.next(eventBreakGlass)); r.What != glassOpened || r.Name != "glass" || r.Text != "all is lost" || !slices.Equal(r.By, []string{"carl", "emil"}) {
		t.Errorf("record: %+v", r)
	}
	client := f.login("glass", key.Signer(softkey.Always))
	if r := decode[loginRecord](t, f.next(eventLogin)); r.Identity != "break_glass" || r.Opening != "00000000000000b1" {
		t.Errorf("login record: %+v", r)
	}
	if r := decode[breakGlassRecord](t, f.next(eventBreakGlass)); r.What != glassLogin || r.Opening != "00000000000000b1" || r.Source == "" {
		t.Errorf("record: %+v", r)
	}
	conn, err := client.Dial("tcp", "nl-1:22")
	if err != nil {
		t.Fatal(err)
	}
	if r := decode[breakGlassRecord](t, f.next(eventBreakGlass)); r.What != glassTarget || r.Server != "nl-1" || r.Port != 22 {
		t.Errorf("record: %+v", r)
	}
	cutWithin(t, conn, patience)
	if late := time.Since(now.Add(6 * time.Second)); late > cutLimit || late < 0 {
		t.Errorf("cut %v after the opening's end", late)
	}
	if r := f.closing(); r.Ended != endPolicy || r.Reason != policies.BreakGlassSealed || r.Identity != "break_glass" || len(r.Targets) != 1 || r.Targets[0].Opening != "00000000000000b1" {
		t.Errorf("closing record: %+v", r)
	}
	if r := decode[breakGlassRecord](t, f.next(eventBreakGlass)); r.What != glassClosed {
		t.Errorf("record: %+v", r)
	}
	for _, want := range []string{glassOpened, glassLogin, glassTarget, glassClosed} {
		if got := <-notices; got.What != want {
			t.Errorf("noticed %+v, want %s", got, want)
		}
	}
}

// TestStatementsAreReadOnce: a file that comes or goes has no other read again, unless the trust policy changes or its end has come.
func TestStatementsAreReadOnce(t *testing.T) {
	f := withStatements(t, func(*policies.Policy) {})
	var names []string
	for i := range 8 {
		a := annasApproval()
		a.ID = fmt.Sprintf("%016x", i)
		names = append(names, f.say(fmt.Sprintf("a%d", i), a, statement.NamespaceApproval, f.bert.Signer(softkey.Always)))
	}
	d := statementDir{path: f.config.Statements, trust: f.config.Trust}
	look := func(what string, now time.Time, reads, files int) {
		t.Helper()
		d.reads = 0
		if _, _, err := d.look(f.policy, now); err != nil {
			t.Fatal(err)
		}
		if d.reads != reads || len(d.files) != files || len(d.collected().Approvals) != files {
			t.Errorf("%s: %d files read, %d count; want %d and %d", what, d.reads, len(d.files), reads, files)
		}
	}
	now := time.Now()
	look("at first", now, 8, 8)
	look("nothing new", now, 0, 8)
	if err := os.Remove(names[3]); err != nil {
		t.Fatal(err)
	}
	look("one has gone", now, 0, 7)
	if len(d.kept) != 7 {
		t.Errorf("%d are remembered, want 7", len(d.kept))
	}
	f.policy.Version++
	look("another policy", now, 0, 7)
	a := annasApproval()
	a.ID = fmt.Sprintf("%016x", 99)
	f.say("a5", a, statement.NamespaceApproval, f.bert.Signer(softkey.Always))
	look("one is another", now, 1, 7)
	f.writeTrust()
	look("another trust policy", now, 7, 7)
	f.say("a6", a, statement.NamespaceApproval, f.anna.Signer(softkey.Always))
	look("one is there twice", now, 1, 6)
	f.policy.Version++
	look("they have ended", now.Add(24*time.Hour), 7, 7) // told apart from none
}
