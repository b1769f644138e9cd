package bastion

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/bastion/reconcile"
	"mayfly/internal/hint"
	"mayfly/policies"
)

// Specification constants of the control socket: one line of JSON each way (docs/formats/control.md).
const (
	kindControl = "mayfly-bastion-control/1"
	doStatus    = "status"
	doDrain     = "drain"
	doAlert     = "alert"
)

// Implementation constants of the control socket.
const (
	controlDeadline = 5 * time.Second
	maxControl      = 4096    // bytes of a question
	maxAnswer       = 8 << 20 // bytes of an answer; the lists in it are bounded
	maxControllers  = 4       // questions at a time
	maxSocketPath   = 107     // sun_path (unix(7)) without its end
)

// controlQuestion is what a verb asks a serving bastion.
type controlQuestion struct {
	Kind  string            `json:"kind"`
	Do    string            `json:"do"`
	Limit policies.Duration `json:"limit,omitempty"` // of a drain
	Login *UnrecordedLogin  `json:"login,omitempty"` // of an alert
}

// controlAnswer is one of the four.
type controlAnswer struct {
	Error  string  `json:"error,omitempty"`
	Status *Status `json:"status,omitempty"`
	Drain  *Drain  `json:"drain,omitempty"`
	Told   bool    `json:"told,omitempty"`
}

// Drain is what "bastion drain" has set off.
type Drain struct {
	Sessions int       `json:"sessions"` // that may go on
	Until    time.Time `json:"until"`
}

// controlSocket is the socket by which the machine's own administrator asks a serving bastion.
type controlSocket struct {
	*net.UnixListener
	path string
}

// listenControl makes the socket under another name first, so that it never lies there open to others. What an earlier bastion has left
// goes; anything that is no socket stays.
func listenControl(path string) (*controlSocket, error) {
	fail := func(err error) (*controlSocket, error) {
		return nil, fmt.Errorf("making control socket %s: %w", path, err)
	}
	fresh := path + ".new"
	if len(fresh) > maxSocketPath {
		return nil, hint.New(fmt.Errorf("control socket %s: the path is longer than %d bytes", path, maxSocketPath-len(".new")), "choose a shorter one, below /run for example")
	}
	for _, old := range []string{path, fresh} {
		switch info, err := os.Lstat(old); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fail(err)
		case info.Mode().Type() != fs.ModeSocket:
			return nil, hint.New(fmt.Errorf("control socket %s: something else lies there", old), "move it away, or name another file in bastion.toml")
		case old == fresh:
			if err := os.Remove(old); err != nil {
				return fail(err)
			}
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, controlMissing(fmt.Errorf("making control socket %s: %w", path, err))
	}
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		return fail(errors.Join(err, l.Close()))
	}
	return &controlSocket{l, path}, nil
}

// close takes the socket away; within the sandbox it may have to stay, and the next bastion replaces it.
func (c *controlSocket) close() { errors.Join(c.Close(), os.Remove(c.path)) }

// serveControl answers until ctx ends. Who is neither root nor this bastion's own user is not answered.
func (s *Server) serveControl(ctx context.Context) {
	if s.control == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { s.control.Close() })
	defer stop()
	var answers sync.WaitGroup
	defer answers.Wait()
	places := make(chan struct{}, maxControllers)
	for ctx.Err() == nil {
		conn, err := s.control.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Error("accepting on the control socket", "error", err)
			pause(ctx, acceptBackoff)
			continue
		}
		select {
		case places <- struct{}{}:
			answers.Go(func() {
				defer func() { <-places }()
				defer conn.Close()
				if err := s.answerControl(conn); err != nil {
					s.log.Warn("a question on the control socket failed", "error", err)
				}
			})
		default:
			conn.Close()
		}
	}
}

func (s *Server) answerControl(conn *net.UnixConn) error {
	now := time.Now()
	if err := conn.SetDeadline(now.Add(controlDeadline)); err != nil {
		return err
	}
	if err := checkPeer(conn); err != nil {
		return err
	}
	var answer controlAnswer
	line, err := bufio.NewReader(io.LimitReader(conn, maxControl)).ReadBytes('\n')
	if err != nil {
		return err
	}
	question, err := parseControl(line)
	switch {
	case err != nil:
		answer.Error = err.Error()
	case question.Do == doStatus:
		status := s.status(now)
		answer.Status = &status
	case question.Do == doDrain:
		answer.Drain = &Drain{Sessions: len(s.sessions.list()), Until: s.drain.order(question.Limit.Std(), now).UTC()}
		s.log.Info("a drain was asked for", "until", answer.Drain.Until)
	case s.alerts == nil:
		answer.Error = "no alerts are configured"
	default:
		s.notify(noticeLogin, *question.Login)
		answer.Told = true
	}
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(data, '\n'))
	return err
}

// parseControl is strict: whoever asks is of the same release.
func parseControl(line []byte) (controlQuestion, error) {
	var q controlQuestion
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return controlQuestion{}, errors.New("not a question")
	}
	switch {
	case q.Kind != kindControl:
		return controlQuestion{}, fmt.Errorf("kind %q: want %s", q.Kind, kindControl)
	case q.Do != doStatus && q.Do != doDrain && q.Do != doAlert:
		return controlQuestion{}, fmt.Errorf("do %q: want %s, %s or %s", q.Do, doStatus, doDrain, doAlert)
	case (q.Do == doAlert) != (q.Login != nil):
		return controlQuestion{}, fmt.Errorf("%s and a login go together", doAlert)
	case q.Limit < 0 || q.Limit.Std() > MaxDrain:
		return controlQuestion{}, fmt.Errorf("limit %s: at most %s", q.Limit, policies.Duration(MaxDrain))
	}
	return q, nil
}

// checkPeer asks the kernel who connected.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	err = onSocket(raw, func(fd int) (err error) {
		peer, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return err
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("uid %d may not ask", peer.Uid)
	}
	return nil
}

// AskStatus asks the bastion of a configuration how it does.
func AskStatus(ctx context.Context, c Config) (Status, error) {
	answer, err := ask(ctx, c, controlQuestion{Do: doStatus})
	if err != nil {
		return Status{}, err
	}
	if answer.Status == nil {
		return Status{}, errors.New("asking the bastion: an answer without a status")
	}
	return *answer.Status, nil
}

// AskDrain has the bastion of a configuration accept nobody and end, once everybody has left or the limit has passed.
func AskDrain(ctx context.Context, c Config, limit time.Duration) (Drain, error) {
	answer, err := ask(ctx, c, controlQuestion{Do: doDrain, Limit: policies.Duration(limit)})
	if err != nil {
		return Drain{}, err
	}
	if answer.Drain == nil {
		return Drain{}, errors.New("asking the bastion: an answer without a drain")
	}
	return *answer.Drain, nil
}

// TellLogins has the bastion of a configuration tell of logins that it did not record; of many, the first.
func TellLogins(ctx context.Context, c Config, list []reconcile.Unrecorded) error {
	for i, u := range list {
		if i == maxLoginsTold {
			break
		}
		answer, err := ask(ctx, c, controlQuestion{Do: doAlert, Login: noticeOfLogin(u, len(list))})
		if err != nil {
			return err
		}
		if !answer.Told {
			return errors.New("asking the bastion: it has told nobody")
		}
	}
	return nil
}

func ask(ctx context.Context, c Config, q controlQuestion) (controlAnswer, error) {
	if c.Control == "" {
		return controlAnswer{}, hint.New(errors.New("bastion.toml names no control socket"), `control = "/run/mayfly-bastion/control.sock"`)
	}
	ctx, cancel := context.WithTimeout(ctx, controlDeadline)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Control)
	if err != nil {
		return controlAnswer{}, hint.New(fmt.Errorf("asking the bastion: %w", err), "does it serve with this configuration, and are you root or its user?")
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return controlAnswer{}, err
	}
	q.Kind = kindControl
	data, err := json.Marshal(q)
	if err != nil {
		return controlAnswer{}, err
	}
	if _, err := conn.Write(append(data, '\n')); err != nil {
		return controlAnswer{}, fmt.Errorf("asking the bastion: %w", err)
	}
	line, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return controlAnswer{}, fmt.Errorf("asking the bastion: %w", err)
	}
	var answer controlAnswer
	if err := json.Unmarshal(line, &answer); err != nil {
		return controlAnswer{}, hint.New(fmt.Errorf("asking the bastion: %w", err), "only root and the bastion's own user are answered")
	}
	if answer.Error != "" {
		return controlAnswer{}, fmt.Errorf("the bastion says: %s", strings.TrimSpace(escape(answer.Error, maxDetail)))
	}
	return answer, nil
}
