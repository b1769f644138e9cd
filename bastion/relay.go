package bastion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/recording"
	"mayfly/policies"
)

// Implementation constants of a relayed session.
const (
	relayBuffer = 32 << 10
	maxTerm     = 64
	maxCommand  = 16 << 10 // bytes; a longer one is refused, so that a recording has all of it
)

// relay is a session between an engineer's channel and a server's.
type relay struct {
	visit    *visit
	opened   *opened
	engineer ssh.Channel
	server   ssh.Channel

	// owned by who serves the engineer's requests, until started is closed
	columns, rows uint32
	term          string
	pty           bool // read by others too, once it has started

	started chan struct{} // closed when the shell or command runs; then file is set
	file    *recording.Recording
	failed  chan policies.Reason // why the first thing could not be recorded
}

// relay carries a session until one side, a limit, a policy or the recording ends it. Everything it starts has ended when it returns.
func (v *visit) relay(ctx context.Context, o *opened, client *ssh.Client, engineer ssh.Channel, requests <-chan *ssh.Request) {
	defer engineer.Close()
	server, answers, err := client.OpenChannel("session", nil)
	if err != nil {
		o.finish(endTarget, "")
		go ssh.DiscardRequests(requests) // ends with the channel
		return
	}
	r := &relay{visit: v, opened: o, engineer: engineer, server: server, started: make(chan struct{}), failed: make(chan policies.Reason, 1)}
	ctx, cancel := context.WithCancel(ctx)
	r.run(ctx, client, requests, answers)
	cancel()
}

func (r *relay) run(ctx context.Context, client *ssh.Client, requests, answers <-chan *ssh.Request) {
	var all, output sync.WaitGroup
	defer r.close()
	defer all.Wait()
	defer r.engineer.Close()
	defer client.Close()
	stop := make(chan struct{})
	defer close(stop)

	gone, over := make(chan struct{}), make(chan struct{})
	all.Go(func() {
		r.serveRequests(requests)
		close(gone)
	})
	output.Go(func() { r.show(stop, r.server, r.engineer, 0) })
	output.Go(func() { r.show(stop, r.server.Stderr(), r.engineer.Stderr(), 1) })
	var exit *ssh.Request
	all.Go(func() {
		exit = r.serveAnswers(answers) // ends with the server's channel
		output.Wait()
		close(over)
	})
	all.Go(func() { r.typed(stop) })

	select {
	case <-over:
		if exit != nil {
			if _, err := r.engineer.SendRequest(exit.Type, false, exit.Payload); err != nil {
				r.visit.server.log.Debug("telling how a session ended", "connection", r.visit.id, "error", err)
			}
		}
		r.opened.finish(endTarget, "")
	case <-gone:
		r.opened.finish(endClient, "")
	case why := <-r.failed:
		fmt.Fprintf(r.engineer.Stderr(), "\r\nbastion: %s\r\n", why)
	case <-ctx.Done():
		r.opened.finish(endClient, "")
	}
}

// close ends the recording, when nothing writes to it any more.
func (r *relay) close() {
	if r.file == nil {
		return
	}
	r.opened.mu.Lock()
	how := r.opened.ended
	r.opened.mu.Unlock()
	sum, err := r.file.Close(how)
	if err != nil && !errors.Is(err, recording.ErrFull) {
		r.visit.server.log.Error("the end of a recording could not be written", "connection", r.visit.id, "file", r.file.Name(), "error", err)
	}
	r.opened.recording = recordingRecord{Recording: r.file.Name(), SHA256: sum, Whole: err == nil}
}

// fail ends the session because nothing more can be recorded. That is its end whatever the engineer does about it.
func (r *relay) fail(err error) {
	why := recordingFailed
	if errors.Is(err, recording.ErrFull) {
		why = recordingFull
	}
	r.opened.finish(endRecording, why)
	select {
	case r.failed <- why:
		r.visit.server.log.Error("a session ends because it cannot be recorded", "connection", r.visit.id, "error", err)
	default:
	}
}

// show records what the server says, and then shows it.
func (r *relay) show(stop <-chan struct{}, from io.Reader, to io.Writer, stream int) {
	buffer := make([]byte, relayBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			select {
			case <-r.started: // nothing is shown before the recording has begun
			case <-stop:
				return
			}
			r.visit.active()
			if err := r.file.Output(stream, buffer[:n]); err != nil {
				r.fail(err)
				return
			}
			w, err := to.Write(buffer[:n])
			r.opened.down.Add(int64(w))
			if err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// typed carries what the engineer types. At a terminal it is not recorded: passwords would be in it, and the server shows the rest. Without
// one nothing would show it (a script to a shell, a file), so it is recorded first.
func (r *relay) typed(stop <-chan struct{}) {
	select {
	case <-r.started:
	case <-stop:
		return
	}
	buffer := make([]byte, relayBuffer)
	for {
		n, err := r.engineer.Read(buffer)
		if n > 0 {
			r.visit.active()
			if !r.pty {
				if err := r.file.Input(buffer[:n]); err != nil {
					r.fail(err)
					return
				}
			}
			w, err := r.server.Write(buffer[:n])
			r.opened.up.Add(int64(w))
			if err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			err = r.server.CloseWrite()
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// serveAnswers keeps how the server's side ended, and refuses whatever else it asks for.
func (r *relay) serveAnswers(answers <-chan *ssh.Request) (exit *ssh.Request) {
	for a := range answers {
		if a.Type == "exit-status" || a.Type == "exit-signal" {
			exit = a
		}
		if a.WantReply {
			if err := a.Reply(false, nil); err != nil {
				continue
			}
		}
	}
	return exit
}

// serveRequests passes on what belongs to a terminal or a command, and refuses the rest: subsystems, agents, X11.
func (r *relay) serveRequests(requests <-chan *ssh.Request) {
	for q := range requests {
		ok := false
		switch q.Type {
		case "pty-req":
			ok = r.terminal(q)
		case "shell", "exec":
			ok = r.begin(q)
		case "window-change":
			ok = r.resize(q)
		case "signal":
			ok = r.pass(q)
		case "env":
			ok = language(q.Payload) && r.pass(q)
		default:
			if !quietRequests[q.Type] {
				r.visit.noteRefused("session "+q.Type, requestRefused, "")
			}
		}
		if q.WantReply {
			if err := q.Reply(ok, nil); err != nil {
				continue
			}
		}
	}
}

// pass asks the server what the engineer asks.
func (r *relay) pass(q *ssh.Request) bool {
	ok, err := r.server.SendRequest(q.Type, q.WantReply, q.Payload)
	return err == nil && (ok || !q.WantReply)
}

func (r *relay) running() bool {
	select {
	case <-r.started:
		return true
	default:
		return false
	}
}

// terminal notes the terminal's kind and size (RFC 4254, section 6.2).
func (r *relay) terminal(q *ssh.Request) bool {
	var m struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := ssh.Unmarshal(q.Payload, &m); err != nil || r.running() || len(m.Term) > maxTerm {
		return false
	}
	if !r.pass(q) {
		return false
	}
	r.columns, r.rows, r.term, r.pty = m.Columns, m.Rows, m.Term, true
	return true
}

// resize notes the terminal's new size (RFC 4254, section 6.7).
func (r *relay) resize(q *ssh.Request) bool {
	var m struct{ Columns, Rows, Width, Height uint32 }
	if err := ssh.Unmarshal(q.Payload, &m); err != nil {
		return false
	}
	if !r.running() {
		r.columns, r.rows = m.Columns, m.Rows
	} else if err := r.file.Resize(m.Columns, m.Rows); err != nil {
		r.fail(err)
		return false
	}
	return r.pass(q)
}

// begin starts the recording and then, once, the shell or command.
func (r *relay) begin(q *ssh.Request) bool {
	if r.running() || r.file != nil {
		return false
	}
	v, o := r.visit, r.opened
	header := recording.Header{Width: r.columns, Height: r.rows, Title: escape(v.login.User+"@"+o.target.Server, 2*maxText)}
	if r.term != "" {
		header.Env = map[string]string{"TERM": r.term}
	}
	if q.Type == "exec" {
		var m struct{ Command string }
		if err := ssh.Unmarshal(q.Payload, &m); err != nil {
			return false
		}
		if len(m.Command) > maxCommand {
			v.noteRefused("session exec", commandTooLong, fmt.Sprintf("%d bytes", len(m.Command)))
			return false
		}
		if header.Command = m.Command; !utf8.ValidString(m.Command) {
			header.Command, header.Bytes = strings.ToValidUTF8(m.Command, "\uFFFD"), []byte(m.Command)
		}
	}
	now := time.Now()
	name := fmt.Sprintf("%s-%s-%s", now.UTC().Format("20060102T150405.000000Z"), v.id, newID()[:4])
	file, err := recording.Create(v.server.session.config.Recordings, name, v.server.ruling.Load().recipients, header, now, v.server.recording)
	if err != nil {
		r.fail(err)
		return false
	}
	r.file = file
	if !r.pass(q) {
		return false
	}
	close(r.started)
	return true
}

// language reports whether an environment variable only says which language to speak (RFC 4254, section 6.4).
func language(payload []byte) bool {
	var m struct{ Name, Value string }
	if err := ssh.Unmarshal(payload, &m); err != nil || len(m.Value) > 256 {
		return false
	}
	return m.Name == "LANG" || strings.HasPrefix(m.Name, "LC_") && !slices.Contains([]byte(m.Name), '=')
}

// recordingRecord is a recording in a target's part of the closing record.
type recordingRecord struct {
	Recording string `json:"recording,omitempty"` // its file's name
	SHA256    string `json:"recording_sha256,omitempty"`
	Whole     bool   `json:"recording_whole,omitempty"`
}
