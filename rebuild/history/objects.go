package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

// objects reads many objects by one process. Each answer is given to use, which must read it within its limit.
type objects struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (r *Repository) objects(ctx context.Context) (*objects, error) {
	o := &objects{cmd: r.command(ctx, "cat-file", "--batch")}
	var err error
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := o.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	o.out = bufio.NewReaderSize(stdout, 64<<10)
	if err := o.cmd.Start(); err != nil {
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
	content := &io.LimitedReader{R: o.out, N: size}
	if err := use(content, size); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return fmt.Errorf("reading %s: %w", id, err)
	}
	if content.N > 0 {
		return fmt.Errorf("reading %s: %w", id, io.ErrUnexpectedEOF)
	}
	if end, err := o.out.ReadByte(); err != nil || end != '\n' {
		return fmt.Errorf("reading %s: its end is missing", id)
	}
	return nil
}

// content returns the whole of an object of at most max bytes.
func (o *objects) content(id, kind string, max int64) (data []byte, err error) {
	err = o.read(id, kind, func(content io.Reader, size int64) error {
		if size > max {
			return fmt.Errorf("%s %s has %d bytes, more than %d", kind, id, size, max)
		}
		var err error
		data, err = io.ReadAll(content)
		return err
	})
	return data, err
}

func (o *objects) close() error { return errors.Join(o.in.Close(), o.cmd.Wait()) }
