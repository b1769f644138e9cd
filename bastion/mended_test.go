package bastion

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/testenv/softkey"
)

// TestTrustPolicyIsWatched takes an approver out of trust.json, and touches nothing else: at once the policy that he signed is no approved
// one any more, and the log says so.
func TestTrustPolicyIsWatched(t *testing.T) {
	f := newFixture(t)
	f.start()
	f.approvers[0], f.approvers[2] = f.approvers[2], newSigner(t) // carl has another key
	f.writeTrust()
	var r policyRecord
	if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil || r.Outcome != "kept_old" || !strings.Contains(r.Detail, bundle.Unsigned) {
		t.Errorf("record: %+v, %v", r, err)
	}
}

// TestAnotherFileOfTheVersion: of two signed bundles of one version the bastion takes the first, and remembers it over a restart.
func TestAnotherFileOfTheVersion(t *testing.T) {
	f := newFixture(t)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	f.policy.SSH.MaxChannels = 7
	f.writeBundle(2)
	var r policyRecord
	if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil || r.Outcome != "kept_old" || !strings.Contains(r.Detail, witness.Forked) {
		t.Errorf("record: %+v, %v", r, err)
	}
	if limit := f.server.ruling.Load().limits.MaxChannels; limit == 7 {
		t.Error("the other file is in force")
	}
	anna.Close()
	_, err := newServer(f.config, nil, nil, time.Now())
	var refusal *bundle.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != witness.Forked {
		t.Errorf("after a restart: got %v, want %s", err, witness.Forked)
	}
	for text, want := range map[string]string{"1\n": "", "1 junk\n": "no hash", "x\n": "invalid syntax", "1 " + strings.Repeat("0", 64) + "\n": ""} {
		f.write(versionFile(f.config), []byte(text), 0o600)
		if p, err := seenVersion(f.config); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && p.version != 1 {
			t.Errorf("%q: got %+v, %v", text, p, err)
		}
	}
}

// TestNewLimitsReachWhoIsIn: channels, idle and session time of a new policy count for sessions that are older.
func TestNewLimitsReachWhoIsIn(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	conn, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Version++
	f.policy.SSH.MaxChannels = 1
	f.newPolicy()
	refusedWith(t, anna, "se-1:22", channelsFull)
	conn.Close()
	f.policy.Version++
	f.policy.SSH.IdleTimeout = policies.Duration(time.Second)
	f.writeBundle(2)
	for range 2 {
		if r := f.closing(); r.Ended != endIdle {
			t.Errorf("got %+v, want %s", r, endIdle)
		}
	}
	anna.Wait()
	bert.Wait()
	f.policy.Version++
	f.policy.SSH.IdleTimeout = 0
	f.newPolicy()
	f.login("anna", f.anna.Signer(softkey.Always))
	f.policy.Version++
	f.policy.SSH.SessionLimit = policies.Duration(time.Second)
	f.writeBundle(2)
	if r := f.closing(); r.Ended != endLimit {
		t.Errorf("got %+v, want %s", r, endLimit)
	}
}

// TestEnter fills the places of people and of robots, and asks for one more of each.
func TestEnter(t *testing.T) {
	limits := policies.Limits{MaxSessions: 2, MaxPerEngineer: 1, MaxRobots: 2, MaxPerRobot: 1}
	var s sessions
	for _, tt := range []struct {
		name string
		kind policies.Kind
		want policies.Reason
	}{
		{"deploy", policies.KindRobot, ""}, {"deploy", policies.KindRobot, robotFull}, {"probe", policies.KindRobot, ""}, {"sync", policies.KindRobot, robotsFull},
		{"anna", policies.KindEngineer, ""}, {"anna", policies.KindEngineer, engineerFull}, {"bert", policies.KindBreakGlass, ""}, {"cleo", policies.KindEngineer, sessionsFull},
	} {
		if got := s.enter(new(visit), policies.Login{User: tt.name, Source: netip.MustParseAddr("192.0.2.1")}, tt.kind, limits); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.kind, tt.name, got, tt.want)
		}
	}
}

// TestOpeningEndsDuringLogin: a break-glass opening that ends between the decision and the place among the sessions lets nobody in.
func TestOpeningEndsDuringLogin(t *testing.T) {
	f := newFixture(t)
	f.policy.BreakGlass = []policies.BreakGlass{{Name: "glass", Keys: f.policy.Engineers[0].Keys, Servers: []string{"*"}, Ports: []uint16{22}}}
	f.policy.Engineers = f.policy.Engineers[1:]
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := rule(&bundle.Bundle{Policy: f.policy, Inventory: f.fleet}, keys)
	if err != nil {
		t.Fatal(err)
	}
	r.fresh = &confirmation{trust: &trust.Trust{Test: true}}
	now := time.Now()
	r.statements.Openings = []policies.Opening{{ID: "o1", Name: "glass", Expires: now.Add(-time.Second)}}
	written := 0
	s := &Server{log: slog.New(slog.DiscardHandler), audit: appends(func() error { written++; return nil })}
	s.ruling.Store(r)
	here, there := net.Pipe()
	defer there.Close()
	defer here.Close()
	v := &visit{server: s, conn: here, source: netip.MustParseAddrPort("127.0.0.1:1"), began: now, ruling: r}
	if got := v.admitLogin("glass", f.anna.Public(), now.Add(-time.Minute)); got.Allow || got.Reason != policies.BreakGlassSealed {
		t.Errorf("got %+v, want %s", got, policies.BreakGlassSealed)
	}
	if written != 0 || len(s.sessions.list()) != 0 {
		t.Errorf("%d records, %d sessions", written, len(s.sessions.list()))
	}
}

// TestTargetLeavesTheReserve: a target's opening record may not use the space that is kept for closing records.
func TestTargetLeavesTheReserve(t *testing.T) {
	f := newFixture(t)
	reached := make(chan struct{}, 1)
	f.target("10.77.0.11:22", func(*net.TCPConn) { reached <- struct{}{} })
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	f.spy.failOpening(errors.New("disk full but for the reserve"))
	refusedWith(t, anna, "se-1:22", auditUnavailable)
	select {
	case <-reached:
		t.Error("the server was reached")
	default:
	}
	f.spy.failOpening(nil)
	anna.Close()
	if r := f.closing(); r.Outcome != "accepted" {
		t.Errorf("closing: %+v", r)
	}
}

// TestBalancerThatSaysNothing is cut off when its header is due.
func TestBalancerThatSaysNothing(t *testing.T) {
	f := behindBalancer(t)
	f.start()
	conn := f.through("127.0.0.9", proxyHeader(netip.MustParseAddrPort("192.0.2.7:1234"))[:12]) // its signature, and no more
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, conn); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(proxyHeaderMalformed)) {
		t.Errorf("record: %s", got)
	}
}

// TestOthersMayNotAsk connects to the control socket as another user, whom its mode would let in.
func TestOthersMayNotAsk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	f := controlled(t, 0)
	f.start()
	if err := os.Chmod(f.config.Control, 0o666); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(f.config.Control, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	ask := func(uid int) (answer string, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread, which alone is another user, ends with the goroutine
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				err = errno
				return
			}
			var fd int
			if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return
			}
			defer unix.Close(fd)
			if err = unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", at)}); err != nil {
				return
			}
			if _, err = unix.Write(fd, []byte(`{"kind":"mayfly-bastion-control/1","do":"status"}`+"\n")); err != nil {
				return
			}
			buffer := make([]byte, 1<<16)
			n, readErr := unix.Read(fd, buffer)
			if errors.Is(readErr, unix.ECONNRESET) {
				n = 0
			} else {
				err = readErr
			}
			answer = string(buffer[:max(n, 0)])
		}()
		<-done
		return answer, err
	}
	if answer, err := ask(0); err != nil || !strings.Contains(answer, `"status":{`) {
		t.Errorf("root: %.200q, %v", answer, err)
	}
	if answer, err := ask(65534); err != nil && !errors.Is(err, unix.EPIPE) || strings.Contains(answer, `"status":{`) {
		t.Errorf("somebody else: %.200q, %v", answer, err)
	}
}
