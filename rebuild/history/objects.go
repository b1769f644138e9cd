package history

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

// objects reads many objects by one process. Each answer is given to use, which must read it within its limit.
type objects struct {
	cmd  *exec.Cmd
	stop context.CancelFunc
	in   io.WriteCloser
	out  *bufio.Reader
}

func (r *Repository) objects(ctx context.Context) (*objects, error) {
	ctx, stop := context.WithCancel(ctx)
	o := &objects{cmd: r.command(ctx, "cat-file", "--batch"), stop: stop}
	var err error
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		stop()
		return nil, err
	}
	stdout, err := o.cmd.StdoutPipe()
	if err != nil {
		stop()
		return nil, err
	}
	o.out = bufio.NewReaderSize(stdout, 64<<10)
	if err := o.cmd.Start(); err != nil {
		stop()
		return nil, fmt.Errorf("starting git cat-file: %w", err)
	}
	return o, nil
}

// read gives the object's content, of the wanted type, to use.
func (o *objects) read(id, kind string, use func(content io.Reader, size int64) error) error {
	if !isID(id) {
		return fmt.Errorf("%q is no object's id", id)
	}
	if _, err := io.WriteString(o.in, id+"\n"); err != nil {
		return fmt.Errorf("asking git for %s: %w", id, err)
	}
	head, err := o.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading %s: %w", id, err)
	}
	parts := strings.Fields(head)
	if len(parts) != 3 || parts[0] != id || parts[1] != kind {
		return fmt.Errorf("reading %s: git says %q, want a %s", id, strings.TrimSpace(head), kind)
	}
	size, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("reading %s: git says %q", id, strings.TrimSpace(head))
	}
	h := newHash(id)
	fmt.Fprintf(h, "%s %d\x00", kind, size)
	content := &io.LimitedReader{R: io.TeeReader(o.out, h), N: size}
	failed := use(content, size)
	if _, err := io.Copy(io.Discard, content); err != nil { // the next answer begins after it
		return fmt.Errorf("reading %s: %w", id, err)
	}
	if content.N > 0 {
		return fmt.Errorf("reading %s: %w", id, io.ErrUnexpectedEOF)
	}
	if end, err := o.out.ReadByte(); err != nil || end != '\n' {
		return fmt.Errorf("reading %s: its end is missing", id)
	}
	if failed != nil {
		return failed
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != id {
		return refuse(Damaged, "", "what the repository has as %s %s is %s", kind, id, got)
	}
	return nil
}

// newHash is what makes an object's id: of the repository's two formats the one that the id's length tells.
func newHash(id string) hash.Hash {
	if len(id) == 2*sha256.Size {
		return sha256.New()
	}
	return sha1.New()
}

// errTooLong is of an object that is longer than is read.
var errTooLong = errors.New("too long")

// content returns the whole of an object of at most max bytes.
func (o *objects) content(id, kind string, max int64) (data []byte, err error) {
	err = o.read(id, kind, func(content io.Reader, size int64) error {
		if size > max {
			return fmt.Errorf("%s %s has %d bytes, more than %d: %w", kind, id, size, max, errTooLong)
		}
		var err error
		data, err = io.ReadAll(content)
		return err
	})
	return data, err
}

// close ends the process, whatever it was about to say.
func (o *objects) close() error {
	err := o.in.Close()
	o.stop()
	_ = o.cmd.Wait() // it was ended
	return err
}
